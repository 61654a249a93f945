import { RlsdError } from "../../errors.js";
import { didYouMean } from "../../suggest.js";
import type { Row } from "./read-rows.js";
import { isTools } from "./tools.js";

/** Which column plays which part; null: none does. Dots reach into objects. */
export interface FieldMap {
  readonly messages: string | null;
  readonly prompt: string | null;
  readonly answer: string | null;
  readonly trace: string | null;
  readonly document: string | null;
  readonly id: string | null;
  readonly tools: string | null;
}

/**
 * Column names by part, the likeliest first: TRL (prompt, privileged_context), verl (prompt, reward_model.ground_truth,
 * extra_info.index), EasyR1 and RLSD (problem, answer, trajectory), ms-swift (messages, solution, teacher_prompt).
 */
const CANDIDATES: Readonly<Record<keyof FieldMap, readonly string[]>> = {
  messages: ["messages", "conversations", "conversation"],
  prompt: ["prompt", "problem", "question", "query", "instruction"],
  answer: ["answer", "reward_model.ground_truth", "ground_truth", "solution", "target", "label"],
  trace: ["trace", "trajectory", "reasoning", "rationale", "solution"],
  document: ["privileged", "privileged_context", "teacher_prompt", "document", "hint"],
  id: ["id", "problem_id", "uid", "extra_info.index"],
  tools: ["tools"],
};

/** More names of a trace where rows are there to be imitated: TRL's, Alpaca's. */
const REPLIES = ["completion", "response"];

/** The value at `path` (`reward_model.ground_truth`), or undefined. A column of that very name wins. */
export function valueAt(row: Row, path: string): unknown {
  if (Object.hasOwn(row, path)) return row[path];
  let value: unknown = row;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Row)[name];
  }
  return value;
}

type Parts = Record<keyof FieldMap, string | null>;

const NONE: Parts = { messages: null, prompt: null, answer: null, trace: null, document: null, id: null, tools: null };
const PARTS = Object.keys(NONE) as (keyof FieldMap)[];

/** A question is in one of two parts: where one is known, no other column is guessed to be the other. */
const QUESTION: { readonly [part in keyof FieldMap]?: keyof FieldMap } = { messages: "prompt", prompt: "messages" };

/** Which of `names` some row has a value for: a column may be missing, or null, wherever there is nothing to say. */
function columnsIn(rows: readonly Row[], names: ReadonlySet<string>): ReadonlySet<string> {
  const missing = new Set(names);
  for (const row of rows) {
    for (const name of missing) if ((valueAt(row, name) ?? null) !== null) missing.delete(name);
  }
  return new Set([...names].filter((name) => !missing.has(name)));
}

/** Every column of the rows, as they stand. */
const allColumns = (rows: readonly Row[]): string[] => [...new Set(rows.flatMap((row) => Object.keys(row)))];

function checkNamed(rows: readonly Row[], part: string, name: string): void {
  if (rows.some((row) => valueAt(row, name) !== undefined)) return;
  const message = `"data.fields.${part}" is ${name}, but no row has such a column.${didYouMean(name, allColumns(rows))}`;
  throw new RlsdError("ERR_RLSD_DATA", message);
}

/**
 * Whether a column that plays one part already may play this one too: a worked solution states the right answer at its
 * end, as in GSM8K and MATH. In conversations the assistant's own turns are the trace.
 */
function sharesAnswer(part: keyof FieldMap, name: string, map: Readonly<Parts>): boolean {
  if (part === "answer") return name === map.trace;
  return part === "trace" && name === map.answer && map.messages === null;
}

/**
 * The map for these rows: what the user named, and a guess for the rest from the columns that any of them has. A column
 * plays one part, but that answer and trace may be in one: `solution` is the trace alone where another column has the answer.
 *
 * @param given an empty name: no column plays the part
 * @param imitated the rows' traces are what is learned
 */
export function guessFields(rows: readonly Row[], given: Partial<FieldMap>, imitated = false): FieldMap {
  const names = imitated ? { ...CANDIDATES, trace: [...CANDIDATES.trace, ...REPLIES] } : CANDIDATES;
  const map: Parts = { ...NONE };
  const taken = new Set<string>();
  for (const part of PARTS) {
    const named = given[part] || null;
    if (named === null) continue;
    checkNamed(rows, part, named);
    map[part] = named;
    taken.add(named);
  }
  const there = new Set(columnsIn(rows, new Set(PARTS.flatMap((part) => names[part]))));
  // Tools are a plain word: what has none of their schemas is another column.
  for (const name of names.tools) if (!rows.some((row) => isTools(valueAt(row, name)))) there.delete(name);
  for (const part of PARTS) {
    if (map[part] !== null || given[part] === "" || (part in QUESTION && map[QUESTION[part]!] !== null)) continue;
    const free = names[part].find((name) => there.has(name) && !taken.has(name));
    const found = free ?? names[part].find((name) => there.has(name) && sharesAnswer(part, name, map));
    if (found === undefined) continue;
    map[part] = found;
    taken.add(found);
  }
  if (map.messages === null && map.prompt === null) {
    const columns = allColumns(rows).join(", ");
    throw new RlsdError(
      "ERR_RLSD_DATA",
      `none of the columns (${columns}) looks like a prompt. Say which one is: --set data.fields.prompt=COLUMN.`,
    );
  }
  return map;
}
