import { isUtf8 } from "node:buffer";
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { isObject } from "../check.js";
import { RlsdError } from "../errors.js";
import { rawLines, withoutReturn } from "../file-lines.js";
import type { ChatMessage } from "../prompt/messages.js";
import { allSaid, turnsIn } from "./conversation.js";
import { checkLines, LineFile, writeWhole } from "./durable.js";
import type { KeptPredictions, Place, Prediction, Scored } from "./predict.js";
import { rounded } from "./run-folder.js";

export const PREDICTIONS_FILE = "predictions.jsonl";

/** A line of predictions.jsonl. */
interface PredictionLine extends Place {
  /** Of the row, and "#" with the number of the completion. */
  readonly id: string;
  /** As the model read it. */
  readonly prompt: string;
  /** What the row says is right; null: nothing. */
  readonly answer: unknown;
  /** Of a conversation, the model's last turn. */
  readonly completion: string;
  /** Of a conversation: all that followed the prompt. */
  readonly messages?: readonly ChatMessage[];
  readonly finish: "stop" | "length";
  /** Of the completion. */
  readonly tokens: number;
  /** null: the verifier did not say. */
  readonly reward: number | null;
  /** Before a fine for length; absent: there was none. */
  readonly unfined?: number;
  /** Sum over the completion's tokens; null: not finite. */
  readonly logProb: number | null;
  /** What the verifier said besides. */
  readonly detail: Readonly<Record<string, unknown>>;
}

function lineOf({ rollout, verdict, group, sample, greedy }: Prediction): string {
  const { row, answer } = rollout.prompt.example;
  const { unfined, reason } = verdict;
  const talked = rollout.conversation;
  const line: PredictionLine = {
    id: rollout.id,
    group,
    sample,
    greedy,
    prompt: rollout.prompt.text,
    answer: row.answer ?? answer,
    completion: rollout.text,
    ...(talked && { messages: talked.messages }),
    finish: rollout.finish,
    tokens: rollout.tokenIds.length,
    reward: verdict.reward,
    ...(unfined !== undefined && { unfined }),
    logProb: rounded([rollout.logProbs.reduce((sum, p) => sum + p, 0)])[0]!,
    detail: { ...talked?.detail, ...verdict.detail, ...(reason !== undefined && { reason }) },
  };
  return JSON.stringify(line);
}

const isMessage = (value: unknown): boolean =>
  isObject(value) && ["role", "content"].every((name) => typeof value[name] === "string");

const FIELDS: Readonly<Record<string, (value: unknown) => boolean>> = {
  greedy: (value) => typeof value === "boolean",
  group: Number.isSafeInteger,
  sample: Number.isSafeInteger,
  completion: (value) => typeof value === "string",
  finish: (value) => value === "stop" || value === "length",
  tokens: Number.isSafeInteger,
  reward: (value) => value === null || typeof value === "number",
  unfined: (value) => value === undefined || typeof value === "number",
  detail: isObject,
  messages: (value) => value === undefined || (Array.isArray(value) && value.every(isMessage)),
};

/** A line that this file's writer wrote whole; undefined: it did not. */
function parsed(text: string): PredictionLine | undefined {
  try {
    const line = Object(JSON.parse(text)) as Record<string, unknown>;
    const whole = Object.entries(FIELDS).every(([name, fits]) => fits(line[name]));
    return whole ? (line as unknown as PredictionLine) : undefined;
  } catch {
    return undefined;
  }
}

function scoredOf({ group, completion, messages, tokens, finish, reward, unfined, detail }: PredictionLine): Scored {
  const { reason, ...rest } = detail;
  const verdict = {
    reward,
    detail: rest,
    ...(unfined !== undefined && { unfined }),
    ...(typeof reason === "string" && { reason }),
  };
  const text = allSaid({ text: completion, messages });
  return { group, text, length: tokens, turns: turnsIn(messages), finish, verdict };
}

const keyOf = ({ greedy, group, sample }: Place) => `${greedy} ${group} ${sample}`;

interface Kept extends Place {
  readonly text: string;
}

/** Lines that are there whole, and where the last of them ends. What follows was being written when the process died. */
async function readKept(path: string): Promise<{ kept: Kept[]; length: number }> {
  await checkLines(path, 0);
  const size = existsSync(path) ? (await stat(path)).size : 0;
  const kept: Kept[] = [];
  let length = 0;
  if (size === 0) return { kept, length };
  for await (const bytes of rawLines(path)) {
    if (length + bytes.length + 1 > size) break;
    length += bytes.length + 1;
    const text = withoutReturn(bytes).toString("utf8");
    const line = isUtf8(bytes) ? parsed(text) : undefined;
    if (line === undefined) {
      const message = `${path}:${kept.length + 1} is no prediction: the file is damaged. Remove it, and all of it is drawn and judged again.`;
      throw new RlsdError("ERR_RLSD_RUN_FOLDER", message);
    }
    const { greedy, group, sample } = line;
    kept.push({ greedy, group, sample, text });
  }
  return { kept, length };
}

/**
 * predictions.jsonl while it is made: a line a prediction as soon as it is judged, so that an evaluation that was interrupted
 * at any moment finds them again. What metrics are made of is what the line says, whether it was written or read.
 */
export class PredictionFile implements KeptPredictions {
  /** Lines are written one after the other. */
  private writing: Promise<void> = Promise.resolve();

  private constructor(
    private readonly path: string,
    private file: LineFile,
    private readonly lines: Map<string, Kept>,
  ) {}

  static async open(folder: string): Promise<PredictionFile> {
    const path = join(folder, PREDICTIONS_FILE);
    const { kept, length } = await readKept(path);
    const lines = new Map(kept.map((line) => [keyOf(line), line]));
    return new PredictionFile(path, await LineFile.open(path, length), lines);
  }

  get count(): number {
    return this.lines.size;
  }

  find(place: Place): Scored | undefined {
    const line = this.lines.get(keyOf(place));
    return line && scoredOf(parsed(line.text)!);
  }

  async keep(prediction: Prediction): Promise<Scored> {
    const { greedy, group, sample } = prediction;
    const text = lineOf(prediction);
    const line = this.writing.then(() => this.file.append([text]));
    // A failed write is reported to whoever asked for it, and does not hold back the next.
    this.writing = line.catch(() => {});
    await line;
    this.lines.set(keyOf(prediction), { greedy, group, sample, text });
    return scoredOf(parsed(text)!);
  }

  async forget(): Promise<void> {
    await this.writing;
    await this.file.close();
    this.lines.clear();
    this.file = await LineFile.open(this.path, 0);
  }

  /** All lines in their order: greedy ones first, row by row. Verdicts came in any. */
  async finish(): Promise<void> {
    // Windows replaces no file that is open.
    await this.close();
    const sorted = [...this.lines.values()].sort(
      (a, b) => Number(b.greedy) - Number(a.greedy) || a.group - b.group || a.sample - b.sample,
    );
    await writeWhole(
      this.path,
      sorted.map(({ text }) => `${text}\n`),
    );
  }

  async close(): Promise<void> {
    await this.writing;
    await this.file.close();
  }
}
