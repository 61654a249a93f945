import type { DType } from "../../tensor/dtype.js";
import type { Level } from "./options.js";
import { type Spread, spreadOf } from "./statistics.js";

/** A plain copy of as many threads in the same rounds: what memory can do. */
interface CopyFigure {
  /** Those read and those written. */
  readonly bytesMoved: number;
  readonly timeMilliseconds: Spread;
  readonly gigabytesPerSecond: number;
}

/** What one call was measured at. Rates are of the median time; a quantity that has no meaning here is absent. */
export interface Figure {
  readonly level: Level;
  /** The function of the package. */
  readonly call: string;
  /** How it was called. */
  readonly variant: string;
  /** Which kernel a device had for the rows. */
  readonly rows?: string;
  readonly device: string;
  readonly dtype?: DType;
  readonly tokens: number;
  readonly vocab?: number;
  readonly hidden?: number;
  readonly threads?: number;
  readonly rounds: number;
  /** Of one round, all of them in its time; `timeMilliseconds` is that of one. */
  readonly callsPerRound: number;
  readonly timeMilliseconds: Spread;
  readonly nanosecondsPerToken: number;
  /** Those that must move: each score read once, each gradient written once. */
  readonly bytesMoved?: number;
  readonly gigabytesPerSecond?: number;
  readonly copy?: CopyFigure;
  readonly percentOfCopy?: number;
  /** Of the matrix products: a multiplication and an addition are two. */
  readonly operations?: number;
  readonly gigaflopsPerSecond?: number;
}

/** What a figure is of, before it is measured. */
export type Subject = Omit<
  Figure,
  | "rounds"
  | "timeMilliseconds"
  | "nanosecondsPerToken"
  | "gigabytesPerSecond"
  | "copy"
  | "percentOfCopy"
  | "gigaflopsPerSecond"
>;

/** 10^9 a second of so many in so many milliseconds. */
const billions = (count: number, milliseconds: number): number => count / milliseconds / 1e6;

export function copyFigure(bytesMoved: number, times: readonly number[]): CopyFigure {
  const timeMilliseconds = spreadOf(times);
  return { bytesMoved, timeMilliseconds, gigabytesPerSecond: billions(bytesMoved, timeMilliseconds.median) };
}

/** @param times milliseconds of one call, one a round */
export function figure(subject: Subject, times: readonly number[], copy?: CopyFigure): Figure {
  const timeMilliseconds = spreadOf(times);
  const { median } = timeMilliseconds;
  const { bytesMoved, operations, tokens } = subject;
  const rate = bytesMoved === undefined ? undefined : billions(bytesMoved, median);
  return {
    ...subject,
    rounds: times.length,
    timeMilliseconds,
    nanosecondsPerToken: (1e6 * median) / tokens,
    ...(rate !== undefined && { gigabytesPerSecond: rate }),
    ...(copy !== undefined && { copy }),
    ...(rate !== undefined && copy !== undefined && { percentOfCopy: (100 * rate) / copy.gigabytesPerSecond }),
    ...(operations !== undefined && { gigaflopsPerSecond: billions(operations, median) }),
  };
}
