import { isUtf8 } from "node:buffer";
import { join } from "node:path";
import { checkPath, isObject } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { fileLines } from "../file-lines.js";
import type { MetricsLine } from "./metrics-line.js";
import { METRICS_FILE, readRunConfig, SAMPLES_FILE, type SampleLine } from "./run-folder.js";

type Fields = Readonly<Record<string, unknown>>;

const isNumber = (value: unknown): boolean => typeof value === "number";
const isText = (value: unknown): boolean => typeof value === "string";
const isNumberOrNull = (value: unknown): boolean => value === null || isNumber(value);

const isMetrics = ({ step, kind, time }: Fields): boolean =>
  isNumber(step) &&
  (kind === "train" || kind === "eval") &&
  isObject(time) &&
  Object.values(time).every(isNumberOrNull);

/** What a sample's fields are, and of its lists the entries. */
const SAMPLE: Readonly<Record<string, (value: unknown) => boolean>> = {
  step: isNumber,
  id: isText,
  group: isNumber,
  prompt: isText,
  privileged: (value) => value === null || isText(value),
  completion: isText,
  reward: isNumberOrNull,
  advantage: isNumber,
  detail: isObject,
};
const PER_TOKEN: Readonly<Record<string, (value: unknown) => boolean>> = {
  tokenIds: isNumber,
  tokenText: isText,
  logProbs: isNumberOrNull,
  teacherLogProbs: isNumberOrNull,
  contrastLogProbs: isNumberOrNull,
  evidenceWeights: isNumberOrNull,
  tokenAdvantages: isNumberOrNull,
  divergences: isNumberOrNull,
};
/** Absent where no second teacher was asked, or no distributions were compared. */
const MAY_BE_ABSENT = ["contrastLogProbs", "divergences"];
/** Empty where the teacher was not asked. */
const MAY_BE_EMPTY = ["teacherLogProbs", "evidenceWeights"];

function isSample(line: Fields): boolean {
  const { tokenIds } = line;
  if (!Array.isArray(tokenIds) || !Object.entries(SAMPLE).every(([name, fits]) => fits(line[name]))) return false;
  return Object.entries(PER_TOKEN).every(([name, fits]) => {
    const list = line[name];
    if (list === undefined && MAY_BE_ABSENT.includes(name)) return true;
    if (!Array.isArray(list) || !list.every(fits)) return false;
    return list.length === tokenIds.length || (list.length === 0 && MAY_BE_EMPTY.includes(name));
  });
}

/** Lines of a run's file, which may still be growing; one that was never begun has none. */
async function* readLines<T>(run: string, name: string, fits: (line: Fields) => boolean): AsyncGenerator<T> {
  const file = join(checkPath(run, "path"), name);
  const damaged = (line: number, why: string) =>
    new RlsdError("ERR_RLSD_RUN_FOLDER", `${file}:${line} ${why}: the file is damaged.`);
  let number = 0;
  let broken = 0;
  try {
    for await (const bytes of fileLines(file)) {
      number++;
      const text = bytes.toString("utf8");
      if (text === "") continue;
      // A run that is going on may be in the middle of its last line: that one alone may be broken.
      if (broken > 0) throw damaged(broken, "is not JSON");
      const line = isUtf8(bytes) ? parsed(text) : undefined;
      if (line === undefined) broken = number;
      else if (!fits(line)) throw damaged(number, "is no line that a run writes");
      else yield line as T;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      await readRunConfig(run);
      return;
    }
    if (error instanceof RlsdError) throw error;
    const why = messageOf(error);
    throw new RlsdError("ERR_RLSD_RUN_FOLDER", `cannot read ${file}: ${why}`, { cause: error });
  }
}

function parsed(text: string): Fields | undefined {
  try {
    return Object(JSON.parse(text)) as Fields;
  } catch {
    return undefined;
  }
}

/** Metrics of a run, in order. ERR_RLSD_RUN_FOLDER where there is no run, or the file is damaged. */
export const readMetrics = (path: string): AsyncGenerator<MetricsLine> => readLines(path, METRICS_FILE, isMetrics);

/** Samples of a run, in order. ERR_RLSD_RUN_FOLDER where there is no run, or the file is damaged. */
export const readSamples = (path: string): AsyncGenerator<SampleLine> => readLines(path, SAMPLES_FILE, isSample);
