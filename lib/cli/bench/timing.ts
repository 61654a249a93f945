/** Contestants and their ceiling in turn, so that what disturbs the machine disturbs all of them. */
import { Interrupted } from "../command.js";

/** One measurement: what it took, in milliseconds. */
export type Measure = () => number | Promise<number>;

export interface Limits {
  /** Rounds go on until so much time has passed, */
  readonly milliseconds: number;
  /** but there are at least and at most so many. */
  readonly least: number;
  readonly most: number;
  /** Rounds that do not count: threads start, caches and scratch memory come to be. */
  readonly warmups: number;
}

/** What happens between measurements. */
export interface Pace {
  readonly signal: AbortSignal;
  /** What is being measured, and its rounds so far. */
  show(what: string, round: number): void;
}

/** Milliseconds of a call. */
export async function timed(call: () => unknown): Promise<number> {
  const begin = performance.now();
  const result = call();
  if (result instanceof Promise) await result;
  return performance.now() - begin;
}

/** Milliseconds of one of several calls in a row: a reading of the clock costs as much as a small one. */
export function repeated(calls: number, call: () => unknown): Measure {
  return () => {
    const begin = performance.now();
    for (let i = 0; i < calls; i++) call();
    return (performance.now() - begin) / calls;
  };
}

/** Lets the event loop see Ctrl-C. */
export async function checkpoint({ signal }: Pace): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  if (signal.aborted) throw new Interrupted();
}

/** The times of each contestant, as many of one as of another. */
export async function interleave<Name extends string>(
  what: string,
  contestants: Readonly<Record<Name, Measure>>,
  limits: Limits,
  pace: Pace,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(contestants) as Name[];
  const times = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  let begin = performance.now();
  for (let round = -limits.warmups; round < limits.most; round++) {
    if (round === 0) begin = performance.now();
    if (round >= limits.least && performance.now() - begin > limits.milliseconds) break;
    pace.show(what, Math.max(0, round));
    for (const name of names) {
      await checkpoint(pace);
      const time = await contestants[name]();
      if (round >= 0) times[name].push(time);
    }
  }
  return times;
}
