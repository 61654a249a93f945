import { RlsdError } from "../../errors.js";
import { type ChatMessage, type Tool, turnText } from "../../prompt/messages.js";
import { createQuestionTemplate, type QuestionTemplate } from "../../prompt/question.js";
import { messagesAt, toConversation, toReply } from "./conversation.js";
import { type FieldMap, guessFields, valueAt } from "./fields.js";
import { findDataFiles } from "./find-files.js";
import { type PlacedRow, type Row, readRows } from "./read-rows.js";
import { toTools } from "./tools.js";

/** A row made ready: what is asked, what privileged text there is, and every column as it came. */
export interface Example {
  readonly id: string;
  readonly where: string;
  readonly messages: readonly ChatMessage[];
  /** These without `data.template`, where there is one. */
  readonly given?: readonly ChatMessage[];
  /** What the model may call. */
  readonly tools: readonly Tool[];
  readonly answer: string | null;
  readonly trace: string | null;
  /** The trace as the turn that it is. */
  readonly reply: ChatMessage | null;
  readonly document: string | null;
  /** Every column; `answer` too where the answer came from another one. */
  readonly row: Row;
}

interface Problem {
  readonly where: string;
  readonly problem: string;
}

export interface Dataset {
  readonly examples: readonly Example[];
  readonly problems: readonly Problem[];
  readonly fields: FieldMap | null;
}

/** With a system message in front, where there is one to put and none yet. */
export const withSystem = (messages: readonly ChatMessage[], system: string | null): readonly ChatMessage[] =>
  system === null || messages[0]?.role === "system" ? messages : [{ role: "system", content: system }, ...messages];

/** A column as text; numbers and booleans are written out, objects as JSON. */
function textAt(row: Row, path: string | null): string | null {
  const value = path === null ? null : valueAt(row, path);
  if (value === null || value === undefined || value === "") return null;
  if (typeof value === "string") return value;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A row's own answer: that of its trace's column, or the conversation's. A text: what is wrong with it. */
function replyAt(
  { row, exact }: { readonly row: Row; readonly exact: Row },
  path: string | null,
  own: ChatMessage | null,
): ChatMessage | null | string {
  const turns = path === null ? undefined : toReply(valueAt(exact, path), path);
  if (turns !== undefined) return turns ?? own;
  const text = textAt(row, path);
  return text === null ? own : { role: "assistant", content: text };
}

/** Columns that tell a row's answer, whole: of `reward_model.ground_truth` all of `reward_model`. */
const telling = ({ answer, trace, document, messages, prompt }: FieldMap): string[] =>
  [answer, trace, document].flatMap((path) => {
    const name = path?.split(".")[0];
    return name === undefined || name === (messages ?? prompt) ? [] : [name];
  });

function toExample(
  placed: PlacedRow,
  index: number,
  fields: FieldMap | null,
  { system, question }: { readonly system: string | null; readonly question: QuestionTemplate | undefined },
): Example | Problem {
  const { where, row, exact = row } = placed;
  // Where no row of a file can be read, there are no columns.
  if (row === undefined || exact === undefined || fields === null)
    return { where, problem: placed.problem ?? "unreadable" };
  const column = fields.messages ?? fields.prompt!;
  const value = valueAt(exact, column);
  const conversation = toConversation(fields.messages === null ? value : messagesAt(value), column);
  if (typeof conversation === "string") return { where, problem: conversation };
  const tools = fields.tools === null ? [] : toTools(valueAt(exact, fields.tools));
  if (typeof tools === "string") return { where, problem: `column "${fields.tools}": ${tools}` };
  const reply = replyAt({ row, exact }, fields.trace, conversation.reply);
  if (typeof reply === "string") return { where, problem: reply };
  const given = withSystem(conversation.messages, system);
  const asked =
    question === undefined ? { messages: given } : { messages: question.apply(given, row, telling(fields)), given };
  const answerValue = fields.answer === null ? undefined : valueAt(row, fields.answer);
  return {
    id: textAt(row, fields.id) ?? String(index),
    where,
    ...asked,
    tools,
    answer: textAt(row, fields.answer),
    trace: reply === null ? null : turnText(reply),
    reply,
    document: textAt(row, fields.document),
    row: answerValue === undefined || Object.hasOwn(row, "answer") ? row : { ...row, answer: answerValue },
  };
}

interface DatasetOptions {
  readonly fields?: Partial<FieldMap>;
  readonly system?: string | null;
  /** Jinja source of `data.template`. */
  readonly template?: string | null;
  /** Rows at most; 0: all. */
  readonly limit?: number;
  /** The rows' traces are what is learned: more names of columns mean one. */
  readonly imitated?: boolean;
  /** The right answer in other words than the row's; undefined: in those. */
  readonly answerOf?: ((row: Row) => string | undefined) | undefined;
  /** Throws when a row does not fit for a reason that only the caller knows (the verifier's, the prompt's length). */
  readonly check?: (example: Example) => void;
}

function checked({ where }: PlacedRow, make: () => Example | Problem): Example | Problem {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    return { where, problem: error.message };
  }
}

function told(example: Example, answerOf: DatasetOptions["answerOf"]): Example {
  const answer = answerOf?.(example.row);
  return answer === undefined ? example : { ...example, answer };
}

/** How long rows are read in one go: a second Ctrl-C, and what is told meanwhile, wait no longer. */
const BREATH_MS = 100;

/** A promise each time that the event loop has waited so long; undefined: it has not. */
function breathing(): () => Promise<void> | undefined {
  let last = performance.now();
  return () => {
    if (performance.now() - last < BREATH_MS) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        last = performance.now();
        resolve();
      });
    });
  };
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
  const { system = null, template = null, check = () => {} } = options;
  const question = template === null ? undefined : createQuestionTemplate(template);
  let map: FieldMap | null = null;
  let index = 0;
  const breath = breathing();
  for (const file of await findDataFiles(files)) {
    if (examples.length >= limit) break;
    const rows = readRows(file);
    try {
      const head = await readHead(rows, Math.max(limit, LEAST_SEEN));
      // Each file has its own columns.
      const fields = fieldsOf(file, head, options);
      map ??= fields;
      const add = (placed: PlacedRow): void => {
        const result = checked(placed, () => {
          const made = toExample(placed, index++, fields, { system, question });
          if ("problem" in made) return made;
          const example = told(made, options.answerOf);
          check(example);
          return example;
        });
        if ("problem" in result) problems.push(result);
        else examples.push(result);
      };
      for (const placed of head) {
        if (examples.length < limit) add(placed);
        await breath();
      }
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
