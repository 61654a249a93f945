import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { isObject } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { exactJson } from "../exact-json.js";
import { differingPaths } from "../leaves.js";
import { makeFolder } from "../policy/folder.js";
import { readRegular } from "../regular-file.js";
import { giveUpAll, releasing, writeWhole, writing } from "./durable.js";
import type { Numbers } from "./metrics.js";
import { newFolder } from "./new-folder.js";
import { PREDICTIONS_FILE, PredictionFile } from "./prediction-file.js";
import type { Prompted } from "./rollout.js";
import { recorded } from "./run-folder.js";
import { lockRun } from "./run-lock.js";

const EVALUATION_FILE = "evaluation.json";
const METRICS_FILE = "metrics.json";

/** evaluation.json: all that predictions depend on. */
export interface EvaluationRecord {
  /** Of rlsd. */
  readonly version: string;
  /** Of the CPU: others draw other tokens where two are almost as likely. */
  readonly instructionSet: string;
  readonly model: string;
  readonly data: readonly string[];
  /** Of the weights; null: a hook loads them, and only it knows what they are. */
  readonly weights: string | null;
  /** Of the prompts as the model reads them, and of their rows. */
  readonly rows: string;
  /** Tokens that end a completion; null: the policy does not tell. */
  readonly endTokenIds: readonly number[] | null;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Fingerprint of prompts and of the rows that verdicts are given by. */
export function rowsFingerprint(prompts: readonly Prompted[]): string {
  const hash = createHash("sha256");
  for (const { ids, text, example } of prompts) {
    hash.update(exactJson([example.id, text, [...ids], example.messages, example.answer, example.row]));
  }
  return hash.digest("hex");
}

/** How two evaluations differ; empty: the one may go on with the predictions of the other. */
function differences(before: EvaluationRecord, now: EvaluationRecord): string[] {
  // A function is not told from another one, nor is JSON from what it was made of.
  const settings = differingPaths([before.settings, JSON.parse(recorded(now.settings))]);
  const byPlace = before.weights === null || now.weights === null;
  const otherModel = byPlace ? before.model !== now.model : before.weights !== now.weights;
  return [
    ...(otherModel ? [`the model (${before.model} as it was then)`] : []),
    ...(before.rows === now.rows ? [] : [`the rows or their prompts (${before.data.join(", ")} as they were then)`]),
    ...(JSON.stringify(before.endTokenIds) === JSON.stringify(now.endTokenIds)
      ? []
      : ["the tokens that end a completion"]),
    ...settings,
    ...(before.instructionSet === now.instructionSet
      ? []
      : [`the instructions of the processor (${before.instructionSet}; RLSD_ISA asks for them where it has them)`]),
    ...(before.version === now.version ? [] : [`the version of rlsd (${before.version})`]),
  ];
}

const isText = (value: unknown): boolean => typeof value === "string";

/** What its fields are. */
const RECORD: Readonly<Record<keyof EvaluationRecord, (value: unknown) => boolean>> = {
  version: isText,
  instructionSet: isText,
  model: isText,
  data: (value) => Array.isArray(value) && value.every(isText),
  weights: (value) => value === null || isText(value),
  rows: isText,
  endTokenIds: (value) => value === null || (Array.isArray(value) && value.every(Number.isSafeInteger)),
  settings: isObject,
};

/** What the evaluation in a folder is of; undefined: there is none. */
async function readRecord(folder: string): Promise<EvaluationRecord | undefined> {
  const file = join(folder, EVALUATION_FILE);
  if (!existsSync(file)) return undefined;
  try {
    const read = Object(JSON.parse((await readRegular(file)).toString("utf8"))) as Record<string, unknown>;
    const whole = Object.entries(RECORD).every(([name, fits]) => fits(read[name]));
    if (whole) return read as unknown as EvaluationRecord;
    throw new Error("no evaluation wrote it");
  } catch (error) {
    const why = messageOf(error);
    const message = `${file} cannot be used: ${why}. Choose another folder.`;
    throw new RlsdError("ERR_RLSD_RUN_FOLDER", message, { cause: error });
  }
}

/** A file where the folder of the results is to be, or results of which nothing is known: better known before than after. */
export async function refuseUnknown(folder: string): Promise<void> {
  await writing(folder, async () => {
    const found = await stat(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (found?.isDirectory() === false) throw Object.assign(new Error("a file"), { code: "EEXIST" });
    if (existsSync(join(folder, EVALUATION_FILE)) || !existsSync(join(folder, PREDICTIONS_FILE))) return;
    const message = `${folder} has ${PREDICTIONS_FILE} without ${EVALUATION_FILE}, so that what they are of is not known: choose another folder.`;
    throw new RlsdError("ERR_RLSD_RUN_FOLDER", message);
  });
}

/** The folder of an evaluation that is being made; one process at a time writes it. */
export class EvalFolder {
  private constructor(
    readonly path: string,
    readonly predictions: PredictionFile,
    private readonly unlock: () => Promise<void>,
  ) {}

  /**
   * Begins an evaluation in a folder, or goes on with what is there of it: of a finished one with all.
   *
   * @throws RlsdError ERR_RLSD_RUN_FOLDER where another one is there, or another process is writing it
   */
  static async open(path: string, record: EvaluationRecord): Promise<EvalFolder> {
    await writing(path, () => makeFolder(path));
    const unlock = await lockRun(path);
    return releasing(unlock, async () => {
      await refuseUnknown(path);
      const before = await readRecord(path);
      const differing = before === undefined ? [] : differences(before, record);
      if (differing.length > 0) {
        const end = existsSync(join(path, METRICS_FILE)) ? "is" : "was not";
        const message = `${path} holds an evaluation that ${end} finished, and this one differs from it in ${differing.join(", ")}. Choose another folder, or remove that one.`;
        throw new RlsdError("ERR_RLSD_RUN_FOLDER", message);
      }
      if (before === undefined) {
        await writeWhole(
          join(path, EVALUATION_FILE),
          `${JSON.stringify(JSON.parse(recorded({ ...record })), null, 2)}\n`,
        );
      }
      return new EvalFolder(path, await PredictionFile.open(path), unlock);
    });
  }

  /** Goes on with the same evaluation where one under runs/ was not finished, or begins it in a new folder there. */
  static async find(record: EvaluationRecord): Promise<EvalFolder> {
    const names: string[] = await readdir("runs").catch(() => []);
    for (const name of names
      .filter((one) => /-eval(-\d+)?$/.test(one))
      .sort()
      .reverse()) {
      const folder = join("runs", name);
      if (existsSync(join(folder, METRICS_FILE))) continue;
      const before = await readRecord(folder).catch(() => undefined);
      if (before === undefined || differences(before, record).length > 0) continue;
      const opened = await EvalFolder.open(folder, record).catch((error: unknown) => {
        // Another process is at it, or has just finished it.
        if (error instanceof RlsdError) return undefined;
        throw error;
      });
      if (opened !== undefined) return opened;
    }
    return EvalFolder.open(newFolder("eval"), record);
  }

  /** The whole result. metrics.json is written last: where it is, every prediction is there. */
  async finish(model: string, metrics: Numbers): Promise<void> {
    await this.predictions.finish();
    await writeWhole(join(this.path, METRICS_FILE), `${JSON.stringify({ model, ...metrics }, null, 2)}\n`);
  }

  async close(): Promise<void> {
    await giveUpAll(
      () => this.predictions.close(),
      () => this.unlock(),
    );
  }
}
