import { isUtf8 } from "node:buffer";
import { createHash } from "node:crypto";
import { isObject } from "../check.js";
import { RlsdError } from "../errors.js";
import { exactJson } from "../exact-json.js";
import { LINE_FEED } from "../file-lines.js";
import { readRegular } from "../regular-file.js";
import type { Example } from "./data/dataset.js";
import { LineFile, writeWhole } from "./durable.js";
import type { Judged } from "./judge.js";
import type { Rollout } from "./rollout.js";
import { recorded } from "./run-folder.js";
import type { RewardSetting } from "./settings.js";

/** When a verdict is asked for: the step that is being made, and which draw of it. */
export interface Occasion {
  readonly step: number;
  readonly name: string;
}

interface Entry extends Occasion {
  readonly id: string;
  /** Place of the prompt in the run, or among the held-out rows: ids may be the same in several rows. */
  readonly group: number;
  /** Of all that the verdict depends on: the reward, and what it was shown. */
  readonly judged: string;
  readonly verdict: Judged;
}

const keyOf = ({ step, name, group, id, judged }: Omit<Entry, "verdict">) =>
  JSON.stringify([step, name, group, id, judged]);

/** A line that this file's writer wrote whole; undefined: it did not. */
function entryIn(line: Buffer): Entry | undefined {
  if (!isUtf8(line)) return undefined;
  try {
    const entry = Object(JSON.parse(line.toString("utf8"))) as Entry;
    const { reward, detail } = Object(entry.verdict) as Judged;
    return (reward === null || typeof reward === "number") && isObject(detail ?? {}) ? entry : undefined;
  } catch {
    return undefined;
  }
}

/** Entries by key. A damaged one is told: its verdict would be asked for again, and may come out otherwise. */
function readEntries(path: string, bytes: Buffer): Map<string, Entry> {
  const entries = new Map<string, Entry>();
  for (let [start, number] = [0, 1]; start < bytes.length; number++) {
    const end = bytes.indexOf(LINE_FEED, start);
    const entry = entryIn(bytes.subarray(start, end));
    if (entry === undefined) {
      const why = `${path}:${number} is no verdict: the file is damaged. Remove it, and its verdicts are asked for again.`;
      throw new RlsdError("ERR_RLSD_RUN_FOLDER", why);
    }
    // Older versions did not say what was judged: such a verdict is asked for again.
    if (typeof entry.judged === "string") entries.set(keyOf(entry), entry);
    start = end + 1;
  }
  return entries;
}

/**
 * Verdicts given since the last checkpoint, on disk as soon as they are given. A verifier may cost money or answer
 * differently the second time (a judge model, a deadline); a resumed run takes the verdicts that the killed one was given.
 */
export class VerdictJournal {
  /** By example, so that a row is read once and not once a completion. */
  private readonly rows = new WeakMap<Example, string>();
  /** The last write that began or waits for its turn. */
  private writing: Promise<void> = Promise.resolve();
  /** Lines that wait for it, and what writes them all at once. */
  private lines: string[] = [];
  private next: Promise<void> | undefined;

  private constructor(
    private readonly path: string,
    private readonly reward: string,
    private readonly entries: Map<string, Entry>,
    private file: LineFile,
  ) {}

  /** `reward` gives the verdicts: what another one said is not found. A function is known by being one, and no further. */
  static async open(path: string, reward: RewardSetting): Promise<VerdictJournal> {
    const bytes = await readRegular(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return Buffer.alloc(0);
      throw new RlsdError("ERR_RLSD_RUN_FOLDER", `${path} cannot be used: ${error.message}.`, { cause: error });
    });
    // What follows the last newline was being written when the run died.
    const whole = bytes.subarray(0, bytes.lastIndexOf(LINE_FEED) + 1);
    const entries = readEntries(path, whole);
    return new VerdictJournal(path, recorded({ reward }), entries, await LineFile.open(path, whole.length));
  }

  private keyed(occasion: Occasion, rollout: Rollout): Omit<Entry, "verdict"> {
    const { id, group, prompt, text, finish, conversation } = rollout;
    const row = this.rows.get(prompt.example) ?? hash([prompt.text, prompt.example.messages, prompt.example.row]);
    this.rows.set(prompt.example, row);
    const talked = conversation === undefined ? [] : [conversation.messages, conversation.reward, conversation.detail];
    return { ...occasion, id, group, judged: hash([this.reward, row, text, finish, ...talked]) };
  }

  /** What was said of a rollout on an occasion, if anything was, and what remembers what is said now. */
  at(occasion: Occasion, rollout: Rollout): { known: Judged | undefined; record(verdict: Judged): Promise<void> } {
    const place = this.keyed(occasion, rollout);
    const key = keyOf(place);
    const record = (verdict: Judged) => {
      const entry: Entry = { ...place, verdict };
      this.entries.set(key, entry);
      return this.append(JSON.stringify(entry));
    };
    return { known: this.entries.get(key)?.verdict, record };
  }

  /** Done when the line is on disk. Those that come while others are being written go there together. */
  private append(line: string): Promise<void> {
    this.lines.push(line);
    if (this.next === undefined) {
      this.next = this.writing.then(() => {
        const lines = this.lines;
        [this.lines, this.next] = [[], undefined];
        return this.file.append(lines);
      });
      // A failed write is reported to whoever asked for it, and does not hold back the next.
      this.writing = this.next.catch(() => {});
    }
    return this.next;
  }

  /** A checkpoint after `step` was made: only what belongs to later steps need be remembered. */
  settle(step: number): Promise<void> {
    return this.keep((entry) => entry.step > step);
  }

  /** What was said at `step` on occasions whose name begins so is asked for again. */
  forget(step: number, name: string): Promise<void> {
    return this.keep((entry) => entry.step !== step || !entry.name.startsWith(name));
  }

  private async keep(wanted: (entry: Entry) => boolean): Promise<void> {
    await this.writing;
    await this.file.close();
    for (const [key, entry] of this.entries) if (!wanted(entry)) this.entries.delete(key);
    const lines = [...this.entries.values()].map((entry) => `${JSON.stringify(entry)}\n`);
    // In one stroke: what is wanted was paid for, and must not be lost where the process ends here.
    await writeWhole(this.path, lines);
    this.file = await LineFile.open(this.path, Buffer.byteLength(lines.join("")));
  }

  async close(): Promise<void> {
    await this.writing;
    await this.file.close();
  }
}

const hash = (value: unknown): string => createHash("sha256").update(exactJson(value)).digest("base64url").slice(0, 22);
