/** Contestants that take turns, so that a busy minute is everybody's. */
import { spreadOf } from "../../lib/cli/bench/statistics.js";

/** Does the work once: the seconds that it took. */
export type Contestant = () => Promise<number>;

/** Times a call from outside. */
export function timed(call: () => Promise<unknown>): Contestant {
  return async () => {
    const start = performance.now();
    await call();
    return (performance.now() - start) / 1000;
  };
}

/** Median seconds of each contestant; one round before them warms up. */
export async function inTurn(contestants: readonly Contestant[], rounds: number): Promise<number[]> {
  const times: number[][] = contestants.map(() => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, run] of contestants.entries()) {
      const seconds = await run();
      if (round > 0) times[i]!.push(seconds);
    }
  }
  return times.map((all) => spreadOf(all).median);
}
