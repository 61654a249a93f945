/** Bandwidth of plain memory copies, on as many threads as asked, as a measure of what memory can do. */
import { existsSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { RlsdError } from "../../errors.js";
import { COUNT, ROUND, type Share, STOP } from "./copy-share.js";

/** Beside this file when built; where only the sources are run (benches, tests), the built copy. */
function entry(): URL {
  const built = new URL("./copy-worker.js", import.meta.url);
  return existsSync(built) ? built : new URL("../../../dist/cli/bench/copy-worker.js", import.meta.url);
}

/** Longest that one copy may take; beyond it a worker has died. */
const PATIENCE_MS = 60_000;

function started(share: Share): Promise<Worker> {
  // The hooks by which a developer runs the sources are not for the built worker.
  const worker = new Worker(entry(), { workerData: share, execArgv: [] });
  return new Promise((resolve, reject) => {
    worker.once("message", () => resolve(worker)).once("error", reject);
  });
}

/** Threads that each hold a share of two buffers, as large as asked together, and copy one into the other when told. */
export class Copier {
  /** Bytes of one copy, those read and those written together. */
  readonly bytesMoved: number;
  readonly #workers: readonly Worker[];
  readonly #words: Int32Array;
  #round = 0;

  private constructor(workers: readonly Worker[], words: Int32Array, bytesMoved: number) {
    this.#workers = workers;
    this.#words = words;
    this.bytesMoved = bytesMoved;
  }

  /** Buffers are of the memory that `empty` gives tensors, and touched: no page fault is left for the first copy. */
  static async start(bytes: number, threads: number): Promise<Copier> {
    const words = new Int32Array(new SharedArrayBuffer(8));
    const floats = Math.ceil(bytes / 4 / threads);
    const made = await Promise.allSettled(Array.from({ length: threads }, () => started({ words, floats })));
    const workers = made.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const copier = new Copier(workers, words, 2 * 4 * floats * threads);
    const failed = made.find((one) => one.status === "rejected");
    if (failed === undefined) return copier;
    await copier.stop();
    throw failed.reason;
  }

  /** Milliseconds of one copy. Blocks this thread, which has nothing else to do: no core is taken from the copy. */
  copy(): number {
    Atomics.store(this.#words, COUNT, 0);
    const begin = performance.now();
    Atomics.store(this.#words, ROUND, ++this.#round);
    Atomics.notify(this.#words, ROUND);
    for (let done = 0; done < this.#workers.length; done = Atomics.load(this.#words, COUNT)) {
      if (Atomics.wait(this.#words, COUNT, done, PATIENCE_MS) === "timed-out") {
        throw new RlsdError("ERR_RLSD_INTERNAL", "A thread that copies memory does not answer.");
      }
    }
    return performance.now() - begin;
  }

  /** Resolves when the threads have ended and their memory is free. */
  async stop(): Promise<void> {
    Atomics.store(this.#words, ROUND, STOP);
    Atomics.notify(this.#words, ROUND);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}
