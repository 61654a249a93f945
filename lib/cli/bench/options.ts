import { RlsdError } from "../../errors.js";
import { didYouMean } from "../../suggest.js";
import type { DType } from "../../tensor/dtype.js";

const LEVELS = ["logprob", "logits", "head"] as const;
export type Level = (typeof LEVELS)[number];
const DTYPES = ["f32", "bf16", "f16"] as const satisfies readonly DType[];

/** As the command line gives them. */
export interface BenchFlags {
  readonly tokens?: string;
  readonly vocab?: string;
  readonly hidden?: string;
  readonly dtype?: readonly string[];
  readonly level?: readonly string[];
  readonly threads?: string;
  readonly device: string;
  readonly quick?: boolean;
  readonly json?: boolean;
}

export interface BenchOptions {
  /** Absent: chosen from cache and memory. */
  readonly tokens?: number;
  readonly vocab?: number;
  readonly hidden?: number;
  /** Absent: all at the logits level, f32 at the head. */
  readonly dtypes?: readonly DType[];
  readonly levels: readonly Level[];
  readonly threads: number;
  readonly device: string;
  readonly quick: boolean;
}

const usage = (message: string) => new RlsdError("ERR_RLSD_USAGE", message);

/** Token ids and offsets are 32-bit numbers with a sign. */
const LARGEST = 2 ** 31 - 1;

function readCount(value: string, option: string, most = LARGEST, why = ""): number {
  const count = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (count >= 1 && count <= most) return count;
  throw usage(`Expected a whole number from 1 to ${most} for ${option} but received "${value}".${why}`);
}

function readWords<T extends string>(given: readonly string[], what: string, words: readonly T[]): T[] {
  const read = given.map((one) => {
    const word = words.find((known) => known === one);
    if (word !== undefined) return word;
    throw usage(`There is no ${what} "${one}".${didYouMean(one, words)}`);
  });
  return words.filter((word) => read.includes(word));
}

/** An option that nothing that will be measured looks at. */
function refuseUseless(flags: BenchFlags, levels: readonly Level[]): void {
  const needs: readonly (readonly [keyof BenchFlags, readonly Level[]])[] = [
    ["hidden", ["head"]],
    ["vocab", ["logits", "head"]],
    ["dtype", ["logits", "head"]],
  ];
  for (const [name, useful] of needs) {
    if (flags[name] === undefined || levels.some((level) => useful.includes(level))) continue;
    throw usage(
      `--${name} says nothing at the level ${levels.join(", ")}. Add --level ${useful.join(" or --level ")}.`,
    );
  }
}

const onDevice = (device: string): boolean => device !== "cpu";

function readLevels(flags: BenchFlags): readonly Level[] {
  if (flags.level !== undefined) return readWords(flags.level, "level", LEVELS);
  return onDevice(flags.device) ? ["logprob", "logits"] : LEVELS;
}

/** @param poolThreads threads that a call can use here */
export function readOptions(flags: BenchFlags, poolThreads: number): BenchOptions {
  const { device } = flags;
  if (!/^(cpu|cuda:\d+)$/.test(device)) {
    throw usage(`There is no device "${device}".${didYouMean(device, ["cpu", "cuda:0"])}`);
  }
  if (onDevice(device) && flags.threads !== undefined)
    throw usage(`--threads is the CPU's: leave it out with --device ${device}.`);
  const levels = readLevels(flags);
  if (onDevice(device) && levels.includes("head")) {
    throw new RlsdError(
      "ERR_RLSD_UNSUPPORTED",
      `The LM head is not computed on ${device} yet. Leave out --level head.`,
    );
  }
  refuseUseless(flags, levels);
  const why = " The pool of this process has no more; RLSD_NUM_THREADS says how many.";
  return {
    ...(flags.tokens !== undefined && { tokens: readCount(flags.tokens, "--tokens") }),
    ...(flags.vocab !== undefined && { vocab: readCount(flags.vocab, "--vocab") }),
    ...(flags.hidden !== undefined && { hidden: readCount(flags.hidden, "--hidden") }),
    ...(flags.dtype !== undefined && { dtypes: readWords(flags.dtype, "dtype", DTYPES) }),
    levels,
    threads: flags.threads === undefined ? poolThreads : readCount(flags.threads, "--threads", poolThreads, why),
    device,
    quick: flags.quick === true,
  };
}
