import { availableParallelism } from "node:os";
import { integer, oneOf } from "./options.js";

/** Options that every verifier takes which runs in workers. */
export const harnessReaders = {
  /** Worker processes; default: up to four, as many as there are processors. */
  workers: integer(Math.min(4, availableParallelism()), 1, 256),
  /** Milliseconds for one sample, from the moment a worker turns to it. */
  deadlineMs: integer(10_000, 1, 86_400_000),
  /** Milliseconds for a worker to start. */
  startMs: integer(60_000, 1, 86_400_000),
  /** MiB of resident memory for one worker (Linux); its JavaScript heap may take three quarters of that (everywhere). */
  memoryMb: integer(512, 64, 1_048_576),
  /** Samples that may wait; one more is ERR_RLSD_VERIFIER_QUEUE. */
  maxQueue: integer(1_000_000, 1),
  /** Reward of a sample at the deadline: null, or 0 where slowness is the answer's own fault. */
  onTimeout: oneOf([null, 0], null),
  /** Reward of a sample that ran out of memory. */
  onMemory: oneOf([null, 0], null),
  /** Reward of a sample on which the worker died. */
  onCrash: oneOf([null, 0], null),
};

export interface HarnessOptions {
  readonly workers: number;
  readonly deadlineMs: number;
  readonly startMs: number;
  readonly memoryMb: number;
  readonly maxQueue: number;
  readonly onTimeout: 0 | null;
  readonly onMemory: 0 | null;
  readonly onCrash: 0 | null;
}

/** Counts since the harness was made, but for the last two, which are of now. */
export interface HarnessStats {
  /** Samples with a verdict from a worker; those of the next three have none. */
  readonly judged: number;
  /** Samples at their deadline. */
  readonly timeouts: number;
  /** Samples whose worker died. */
  readonly crashes: number;
  /** Samples whose worker needed more than `memoryMb`. */
  readonly outOfMemory: number;
  /** Samples whose signal was aborted. */
  readonly aborted: number;
  readonly workersStarted: number;
  readonly workersAlive: number;
  /** Samples that no worker has taken yet. */
  readonly waiting: number;
}
