import { RlsdError } from "../../errors.js";
import type { Message } from "../../verifiers/verifier.js";
import { type FieldMap, guessFields, valueAt } from "./fields.js";
import { findDataFiles } from "./find-files.js";
import { type PlacedRow, type Row, readRows } from "./read-rows.js";

/** A row made ready: what is asked, what privileged text there is, and every column as it came. */
export interface Example {
  readonly id: string;
  readonly where: string;
  readonly messages: readonly Message[];
  readonly answer: string | null;
  readonly trace: string | null;
  readonly document: string | null;
  /** Every column; `answer` too where the answer came from another one. */
  readonly row: Row;
}

export interface Problem {
  readonly where: string;
  readonly problem: string;
}

export interface Dataset {
  readonly examples: readonly Example[];
  readonly problems: readonly Problem[];
  readonly fields: FieldMap | null;
}

/** A text, or a list of parts that are texts, put together; undefined: something else. */
function contentText(content: unknown): string | undefined {
  if (typeof content === "string") return content;
  if (!Array.isArray(content) || content.length === 0) return undefined;
  const texts = content.map((part) => (part?.type === "text" && typeof part.text === "string" ? part.text : undefined));
  return texts.includes(undefined) ? undefined : texts.join("");
}

/** Who speaks in rows made for ShareGPT. */
const SPEAKERS: Readonly<Record<string, string>> = { human: "user", gpt: "assistant" };

/** A message as {role, content}, or as ShareGPT's {from, value}. */
function toMessage(value: unknown): Message | undefined {
  const given = Object(value) as Readonly<Record<"role" | "content" | "from" | "value", unknown>>;
  const { from = "" } = given;
  const role = given.role ?? (typeof from === "string" && Object.hasOwn(SPEAKERS, from) ? SPEAKERS[from] : from);
  const text = contentText(given.content ?? given.value);
  return typeof role === "string" && role !== "" && text !== undefined ? { role, content: text } : undefined;
}

/** What is asked, and how the messages answer it themselves; a text: what is wrong with them. */
interface Conversation {
  readonly messages: readonly Message[];
  readonly reply: string | null;
}

/** The assistant's turns at the end are a reference answer, and no part of the question. */
function toConversation(value: unknown, column: string): Conversation | string {
  if (typeof value === "string") {
    if (value.trim() === "") return `column "${column}" is empty`;
    return { messages: [{ role: "user", content: value }], reply: null };
  }
  if (!Array.isArray(value) || value.length === 0) {
    return `column "${column}": expected a text or a list of {role, content}`;
  }
  const all = value.map(toMessage);
  const wrong = all.indexOf(undefined);
  if (wrong >= 0) return `column "${column}": message ${wrong + 1} has no "role" and "content" that are texts`;
  const read = all as Message[];
  const asked = 1 + read.findLastIndex(({ role }) => role !== "assistant");
  if (asked === 0) return `column "${column}" has no message to answer`;
  const replies = read.slice(asked).map(({ content }) => content);
  return { messages: read.slice(0, asked), reply: replies.join("\n") || null };
}

/** With a system message in front, where there is one to put and none yet. */
export const withSystem = (messages: readonly Message[], system: string | null): readonly Message[] =>
  system === null || messages[0]?.role === "system" ? messages : [{ role: "system", content: system }, ...messages];

/** A column as text; numbers and booleans are written out, objects as JSON. */
function textAt(row: Row, path: string | null): string | null {
  const value = path === null ? null : valueAt(row, path);
  if (value === null || value === undefined || value === "") return null;
  if (typeof value === "string") return value;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A trace as text; one that is a list of the assistant's turns, as they stand one below the other. */
function traceAt(row: Row, path: string | null): string | null {
  const value = path === null ? null : valueAt(row, path);
  const turns = Array.isArray(value) ? value.map(toMessage) : [];
  if (turns.length === 0 || turns.some((turn) => turn?.role !== "assistant")) return textAt(row, path);
  return turns.map((turn) => turn!.content).join("\n") || null;
}

function toExample(
  placed: PlacedRow,
  index: number,
  fields: FieldMap | null,
  system: string | null,
): Example | Problem {
  const { where, row } = placed;
  // Where no row of a file can be read, there are no columns.
  if (row === undefined || fields === null) return { where, problem: placed.problem ?? "unreadable" };
  const column = fields.messages ?? fields.prompt!;
  const conversation = toConversation(valueAt(row, column), column);
  if (typeof conversation === "string") return { where, problem: conversation };
  const answerValue = fields.answer === null ? undefined : valueAt(row, fields.answer);
  return {
    id: textAt(row, fields.id) ?? String(index),
    where,
    messages: withSystem(conversation.messages, system),
    answer: textAt(row, fields.answer),
    trace: traceAt(row, fields.trace) ?? conversation.reply,
    document: textAt(row, fields.document),
    row: answerValue === undefined || Object.hasOwn(row, "answer") ? row : { ...row, answer: answerValue },
  };
}

export interface DatasetOptions {
  readonly fields?: Partial<FieldMap>;
  readonly system?: string | null;
  /** Rows at most; 0: all. */
  readonly limit?: number;
  /** The rows' traces are what is learned: more names of columns mean one. */
  readonly imitated?: boolean;
  /** Throws when a row does not fit for a reason that only the caller knows (the verifier's, the prompt's length). */
  readonly check?: (example: Example) => void;
}

function checked(example: Example, check: (example: Example) => void): Example | Problem {
  try {
    check(example);
    return example;
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    return { where: example.where, problem: error.message };
  }
}

/** Rows that columns are guessed from where not all of a file are wanted. */
const LEAST_SEEN = 1000;

/** The next rows, at most so many. */
async function readHead(rows: AsyncGenerator<PlacedRow>, most: number): Promise<PlacedRow[]> {
  const head: PlacedRow[] = [];
  while (head.length < most) {
    const { value, done } = await rows.next();
    if (done) break;
    head.push(value);
  }
  return head;
}

function fieldsOf(file: string, head: readonly PlacedRow[], o: DatasetOptions): FieldMap | null {
  const read = head.flatMap(({ row }) => (row === undefined ? [] : [row]));
  try {
    return read.length === 0 ? null : guessFields(read, o.fields ?? {}, o.imitated);
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    throw new RlsdError(error.code, `${file}: ${error.message}`, { cause: error });
  }
}

/** Reads files (see findDataFiles) into examples. Rows that do not fit are listed with their place, never dropped in silence. */
export async function loadDataset(files: readonly string[], options: DatasetOptions = {}): Promise<Dataset> {
  const examples: Example[] = [];
  const problems: Problem[] = [];
  const limit = options.limit === undefined || options.limit === 0 ? Number.POSITIVE_INFINITY : options.limit;
  const { system = null, check = () => {} } = options;
  let map: FieldMap | null = null;
  let index = 0;
  for (const file of await findDataFiles(files)) {
    if (examples.length >= limit) break;
    const rows = readRows(file);
    try {
      const head = await readHead(rows, Math.max(limit, LEAST_SEEN));
      // Each file has its own columns.
      const fields = fieldsOf(file, head, options);
      map ??= fields;
      const add = (placed: PlacedRow): void => {
        const made = toExample(placed, index++, fields, system);
        const result = "problem" in made ? made : checked(made, check);
        if ("problem" in result) problems.push(result);
        else examples.push(result);
      };
      for (const placed of head) if (examples.length < limit) add(placed);
      for await (const placed of rows) {
        if (examples.length >= limit) break;
        add(placed);
      }
    } finally {
      // The file is closed, also where a row ended this.
      await rows.return(undefined);
    }
  }
  return { examples, problems, fields: map };
}

/** Acts on rows that do not fit: an error that names the first of them, or, with "skip", only the count. */
export function settleProblems(what: string, data: Dataset, invalid: "error" | "skip"): number {
  const { examples, problems } = data;
  if (problems.length > 0 && invalid === "error") {
    const shown = problems.slice(0, 5).map(({ where, problem }) => `\n  ${where}: ${problem}`);
    const more = problems.length > 5 ? `\n  and ${problems.length - 5} more` : "";
    throw new RlsdError(
      "ERR_RLSD_DATA",
      `${what}: ${problems.length} of ${problems.length + examples.length} rows do not fit:${shown.join("")}${more}\n` +
        "Mend them, or leave them out with --set data.invalid=skip.",
    );
  }
  if (examples.length === 0) throw new RlsdError("ERR_RLSD_DATA", `${what}: there is no row to use.`);
  return problems.length;
}
