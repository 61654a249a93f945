/** Bandwidth of plain memory copies, on as many threads as asked, as a measure of what memory can do. */
import { Worker } from "node:worker_threads";

/** Control words shared with the workers: the round to run, and how many have finished it. */
const WORKER = `
  const { workerData: { control, bytes } } = require("node:worker_threads");
  const from = new Uint8Array(bytes).fill(1), to = new Uint8Array(bytes).fill(2);
  const words = new Int32Array(control);
  for (let round = 0; round >= 0; ) {
    Atomics.add(words, 1, 1);
    Atomics.notify(words, 1);
    Atomics.wait(words, 0, round);
    round = Atomics.load(words, 0);
    if (round > 0) to.set(from);
  }`;

/** Best rate in bytes a second, those read and those written together, of `rounds` copies of `bytes` in all. */
export async function copyRate(bytes: number, threads: number, rounds: number): Promise<number> {
  const control = new SharedArrayBuffer(8);
  const words = new Int32Array(control);
  const share = Math.ceil(bytes / threads);
  const workers = Array.from(
    { length: threads },
    () => new Worker(WORKER, { eval: true, workerData: { control, bytes: share } }),
  );
  const ended = workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
  const allReady = (): void => {
    for (let ready = Atomics.load(words, 1); ready < threads; ready = Atomics.load(words, 1)) {
      Atomics.wait(words, 1, ready);
    }
    Atomics.store(words, 1, 0);
  };
  let best = Number.POSITIVE_INFINITY;
  allReady();
  for (let round = 1; round <= rounds; round++) {
    const begin = performance.now();
    Atomics.store(words, 0, round);
    Atomics.notify(words, 0);
    allReady();
    best = Math.min(best, performance.now() - begin);
  }
  Atomics.store(words, 0, -1);
  Atomics.notify(words, 0);
  await Promise.all(ended);
  return (2 * share * threads) / (best / 1000);
}
