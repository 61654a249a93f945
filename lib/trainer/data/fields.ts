import { RlsdError } from "../../errors.js";
import { didYouMean } from "../../suggest.js";
import type { Row } from "./read-rows.js";

/** Which column plays which part; null: none does. Dots reach into objects. */
export interface FieldMap {
  readonly messages: string | null;
  readonly prompt: string | null;
  readonly answer: string | null;
  readonly trace: string | null;
  readonly document: string | null;
  readonly id: string | null;
}

/**
 * Column names by part, the likeliest first: TRL (prompt, privileged_context), verl (prompt, reward_model.ground_truth,
 * extra_info.index), EasyR1 and RLSD (problem, answer, trajectory), ms-swift (messages, solution, teacher_prompt).
 */
const CANDIDATES: Readonly<Record<keyof FieldMap, readonly string[]>> = {
  messages: ["messages", "conversation"],
  prompt: ["prompt", "problem", "question", "query", "instruction"],
  answer: ["answer", "reward_model.ground_truth", "ground_truth", "solution", "target", "label"],
  trace: ["trace", "trajectory", "reasoning", "rationale", "solution"],
  document: ["privileged", "privileged_context", "teacher_prompt", "document", "hint"],
  id: ["id", "problem_id", "uid", "extra_info.index"],
};

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

/**
 * The map for rows like `row`: what the user named, and a guess for the rest. A column plays one part only: `solution` is
 * the trace where another column has the answer.
 */
export function guessFields(row: Row, given: Partial<FieldMap>): FieldMap {
  const taken = new Set<string>();
  const map: Record<keyof FieldMap, string | null> = {
    messages: null,
    prompt: null,
    answer: null,
    trace: null,
    document: null,
    id: null,
  };
  for (const part of Object.keys(map) as (keyof FieldMap)[]) {
    const named = given[part] ?? null;
    if (named !== null && valueAt(row, named) === undefined) {
      throw new RlsdError(
        "ERR_RLSD_DATA",
        `"data.fields.${part}" is ${named}, but the first row has no such column.${didYouMean(named, Object.keys(row))}`,
      );
    }
    map[part] = named;
    if (named !== null) taken.add(named);
  }
  for (const part of Object.keys(map) as (keyof FieldMap)[]) {
    if (map[part] !== null || (part === "prompt" && map.messages !== null)) continue;
    const found = CANDIDATES[part].find((name) => !taken.has(name) && valueAt(row, name) !== undefined);
    if (found === undefined) continue;
    map[part] = found;
    taken.add(found);
  }
  if (map.messages === null && map.prompt === null) {
    const columns = Object.keys(row).join(", ");
    throw new RlsdError(
      "ERR_RLSD_DATA",
      `none of the columns (${columns}) looks like a prompt. Say which one is: --set data.fields.prompt=COLUMN.`,
    );
  }
  return map;
}
