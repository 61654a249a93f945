import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { checkPath } from "../check.js";
import { RlsdError } from "../errors.js";
import { instructionSet } from "../ops/backend-info.js";
import { makeFolder } from "../policy/folder.js";
import type { ChatMessage } from "../prompt/messages.js";
import { readFault } from "../read-fault.js";
import { readRegular } from "../regular-file.js";
import { isFolder } from "./data/glob.js";
import { checkLines, giveUpAll, LineFile, releasing, writeWhole, writing } from "./durable.js";
import type { MetricsLine } from "./metrics-line.js";
import { otherRows, type RowPrints } from "./row-prints.js";
import { lockRun } from "./run-lock.js";

/** A line of samples.jsonl: one completion of a step, or of an evaluation where steps draw none. Per-token lists have one entry a token of the completion. */
export interface SampleLine {
  /** That it was drawn for; of a held-out one: after which. */
  readonly step: number;
  /** It answers a held-out row, and nothing was learned from it. */
  readonly heldOut?: true;
  /** Of the row, and "#" with the number of the completion. */
  readonly id: string;
  /** Completions with the same number answer the same prompt. */
  readonly group: number;
  /** As the model read it. */
  readonly prompt: string;
  /** What the teacher saw besides; null: it was not asked. */
  readonly privileged: string | null;
  /** Special tokens left out. Of a conversation, the model's last turn. */
  readonly completion: string;
  /** Of a conversation: all that followed the prompt. */
  readonly messages?: readonly ChatMessage[];
  /** Of a conversation: 1 where the model drew the token, 0 where it read it. */
  readonly mask?: readonly number[];
  /** "length": it was cut off. Absent in lines of earlier versions. */
  readonly finish?: "stop" | "length";
  /** An end token is the last of them. */
  readonly tokenIds: readonly number[];
  /** The text that each token completes; special tokens included. */
  readonly tokenText: readonly string[];
  /** Of the student, when it drew the token. null: not finite. */
  readonly logProbs: readonly (number | null)[];
  /** Empty when the teacher was not asked. */
  readonly teacherLogProbs: readonly (number | null)[];
  /** With `privileged.contrast`: of the teacher who saw a rejected completion, in the student's place as evidence. */
  readonly contrastLogProbs?: readonly (number | null)[];
  /** After the clip; 1 where no credit is given: outside the span, and where `negativeOnly` spares the sample. */
  readonly evidenceWeights: readonly (number | null)[];
  /** A rho_t; with `distill.divergence` sampled-reverse-kl its share of that besides; 0 where the token was left out of the loss. */
  readonly tokenAdvantages: readonly (number | null)[];
  /** Where the loss compares distributions: that of the student from the teacher's, in nats; 0 outside the span. */
  readonly divergences?: readonly (number | null)[];
  /** After a fine for length; null: it was not judged. */
  readonly reward: number | null;
  /** Of the completion, before credit. */
  readonly advantage: number;
  /** What the verifier said besides. */
  readonly detail: Readonly<Record<string, unknown>>;
}

/** config.json: every setting, and what computes the steps to come. */
export interface RunConfig {
  /** Of rlsd. */
  readonly version: string;
  /** Instructions of the CPU, as `rlsd doctor` names them. Absent in runs of earlier versions. */
  readonly instructionSet?: string | undefined;
  /** Of the rows that the steps to come take. Absent in runs of earlier versions. */
  readonly rows?: RowPrints | undefined;
  /** Every setting, defaults included; functions from code are named, not written. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** How far the two growing files had come. */
export interface Offsets {
  readonly metrics: number;
  readonly samples: number;
}

export const CONFIG_FILE = "config.json";
export const METRICS_FILE = "metrics.jsonl";
export const SAMPLES_FILE = "samples.jsonl";
export const CHECKPOINTS = "checkpoints";
export const REPORT_FILE = "report.html";

/** The writer of a run's folder. There is one a run: others write their own files there (report.html), and none of these. */
export class RunFolder {
  private constructor(
    readonly path: string,
    private readonly metrics: LineFile,
    private readonly samples: LineFile,
    private readonly unlock: () => Promise<void>,
  ) {}

  /** A new folder, or an empty one. ERR_RLSD_RUN_FOLDER when a run is already there. */
  static async create(path: string, config: RunConfig): Promise<RunFolder> {
    const folder = resolve(path);
    await writing(folder, () => makeFolder(join(folder, CHECKPOINTS)));
    const unlock = await lockRun(folder);
    return releasing(unlock, async () => {
      const found = await readdir(folder);
      if (found.includes(CONFIG_FILE)) {
        throw new RlsdError(
          "ERR_RLSD_RUN_FOLDER",
          `${path} holds a run already. Go on with it by --resume ${path} (from code: hooks.resume), or choose another folder with --output ("output").`,
        );
      }
      await writeWhole(join(folder, CONFIG_FILE), `${JSON.stringify(config, jsonSafe, 2)}\n`);
      return RunFolder.at(folder, { metrics: 0, samples: 0 }, unlock);
    });
  }

  /**
   * The folder of a run that goes on: what was logged after the offsets is cut off, and will be logged again. `unlock`
   * gives up its lock, which was taken before the offsets were read.
   */
  static async resume(
    path: string,
    config: RunConfig,
    offsets: Offsets,
    unlock: () => Promise<void>,
  ): Promise<RunFolder> {
    const run = await RunFolder.at(resolve(path), offsets, unlock);
    return releasing(
      () => run.close(),
      async () => {
        await run.settle(config);
        return run;
      },
    );
  }

  /** config.json is of the steps to come: a run that is stopped again goes on with those settings. */
  private async settle(config: RunConfig): Promise<void> {
    const before = await readRunConfig(this.path);
    const known = before.rows !== undefined && otherRows(before.rows, config.rows ?? before.rows).length === 0;
    const same = known && before.instructionSet === config.instructionSet;
    if (same && recorded(config.config) === JSON.stringify(before.config)) return;
    await writeWhole(join(this.path, CONFIG_FILE), `${JSON.stringify(config, jsonSafe, 2)}\n`);
  }

  private static async at(folder: string, offsets: Offsets, unlock: () => Promise<void>): Promise<RunFolder> {
    // Both before one of them is cut off.
    await checkLines(join(folder, METRICS_FILE), offsets.metrics);
    await checkLines(join(folder, SAMPLES_FILE), offsets.samples);
    const metrics = await LineFile.open(join(folder, METRICS_FILE), offsets.metrics);
    return releasing(
      () => metrics.close(),
      async () =>
        new RunFolder(folder, metrics, await LineFile.open(join(folder, SAMPLES_FILE), offsets.samples), unlock),
    );
  }

  get checkpoints(): string {
    return join(this.path, CHECKPOINTS);
  }

  get offsets(): Offsets {
    return { metrics: this.metrics.offset, samples: this.samples.offset };
  }

  async log(line: MetricsLine): Promise<void> {
    await this.metrics.append([JSON.stringify(line, finiteOrNull)]);
  }

  async logSamples(lines: readonly SampleLine[]): Promise<void> {
    await this.samples.append(lines.map((line) => JSON.stringify(line)));
  }

  /** Everything logged so far is on the disk after this. */
  async flush(): Promise<void> {
    await Promise.all([this.metrics.flush(), this.samples.flush()]);
  }

  async close(): Promise<void> {
    await giveUpAll(
      () => this.metrics.close(),
      () => this.samples.close(),
      () => this.unlock(),
    );
  }
}

/** JSON has no NaN: a number that is none becomes null, never a wrong number. */
function finiteOrNull(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? null : value;
}

/** Whether a setting, as a run's folder has it, was code. */
export const wasCode = (value: unknown): boolean =>
  typeof value === "string" && ["(function)", "(verifier)", "(environment)"].includes(value);

/** Settings may hold functions when they come from code; they are named, not written. */
function jsonSafe(_: string, value: unknown): unknown {
  if (typeof value === "function") return "(function)";
  if (typeof value !== "object" || value === null) return value;
  if ("verify" in value) return "(verifier)";
  return "respond" in value ? "(environment)" : value;
}

/** Settings as config.json has them. */
export const recorded = (config: RunConfig["config"]): string => JSON.stringify(config, jsonSafe);

/** Seven significant digits: all that a float32 holds, at half the length of a double. */
export function rounded(values: ArrayLike<number>): (number | null)[] {
  return Array.from(values, (v) => (Number.isFinite(v) ? Number(v.toPrecision(7)) : null));
}

const notRun = (error: unknown): string =>
  (error as NodeJS.ErrnoException).code === "ENOENT" ? `it has no ${CONFIG_FILE}` : (error as Error).message;

/** The settings of a run. */
export async function readRunConfig(path: string): Promise<RunConfig> {
  const file = join(checkPath(path, "path"), CONFIG_FILE);
  try {
    const read = JSON.parse((await readRegular(file)).toString("utf8")) as Partial<RunConfig> | null;
    // A model's folder has a config.json too.
    if (typeof read?.version === "string" && typeof read.config === "object" && read.config !== null) {
      const { version, instructionSet, rows, config } = read;
      return { version, ...(instructionSet !== undefined && { instructionSet }), ...(rows && { rows }), config };
    }
    throw new Error("no run wrote its config.json");
  } catch (error) {
    // A folder that is there, but no run, is not looked for.
    const why = (await isFolder(path)) ? notRun(error) : readFault(path, error);
    throw new RlsdError("ERR_RLSD_RUN_FOLDER", `${path} is not a run folder: ${why}`, { cause: error });
  }
}

/** The instructions that computed a run until now, where they are not those of this process; null: they are, or are not known. */
export const otherInstructions = ({ instructionSet: earlier }: RunConfig): string | null =>
  earlier === undefined || earlier === instructionSet() ? null : earlier;

/** Puts a page into a run's folder or beside it, in one stroke: a reader sees the old page or the new one. */
export const writeReport = (file: string, page: string): Promise<void> => writeWhole(file, page);

/** Puts a comparison into a folder, as a page and as numbers; returns where the page is. */
export async function writeComparison(folder: string, comparison: object, page: string): Promise<string> {
  const report = join(folder, "compare.html");
  await writing(folder, () => makeFolder(folder));
  await writeWhole(join(folder, "compare.json"), `${JSON.stringify(comparison, null, 2)}\n`);
  await writeWhole(report, page);
  return report;
}
