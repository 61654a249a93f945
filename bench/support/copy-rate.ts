import { Copier } from "../../lib/cli/bench/copy-rate.js";

/** Best rate in bytes a second, those read and those written together, of `rounds` copies of `bytes` in all. */
export async function copyRate(bytes: number, threads: number, rounds: number): Promise<number> {
  const copier = await Copier.start(bytes, threads);
  try {
    const times = Array.from({ length: rounds }, () => copier.copy());
    return copier.bytesMoved / (Math.min(...times) / 1000);
  } finally {
    await copier.stop();
  }
}
