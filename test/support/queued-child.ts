// What must happen in a process of its own: queued-child.ts CASE. Prints one line of JSON.
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { empty, type PolicyBatch, policyLoss, policyLossSync, rlsd, type Tensor, tensor } from "../../lib/index.js";
import { kept } from "./queueable.js";

const V = 40_000;

function batchOf(rows: number, logits: Tensor): PolicyBatch {
  return {
    student: { logits },
    tokenIds: new Int32Array(rows).fill(3),
    cuSeqlens: Int32Array.of(0, rows),
    advantages: Float32Array.of(-1),
  };
}

function logitsOf(rows: number): Float32Array {
  const values = new Float32Array(rows * V);
  for (let i = 0; i < values.length; i++) values[i] = ((i * 37) % 101) / 25;
  return values;
}

const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

const cases: Record<string, () => unknown> = {
  /** Nobody but native code knows the tensors of a running call. */
  async collected() {
    const values = logitsOf(8);
    const expected = policyLossSync(batchOf(8, kept(tensor(values.slice(), [8, V]))), rlsd(), { inPlace: true });
    const pending = Array.from({ length: 10 }, () => {
      using logits = kept(tensor(values.slice(), [8, V]));
      return policyLoss(batchOf(8, logits), rlsd());
    });
    const collect = setInterval(() => globalThis.gc?.(), 1);
    const got = await Promise.all(pending);
    clearInterval(collect);
    print(
      got.every(({ gradient }) =>
        Buffer.from(gradient.logits!.data.buffer).equals(Buffer.from(expected.gradient.logits!.data.buffer)),
      ),
    );
  },

  exit() {
    const logits = kept(tensor(logitsOf(32), [32, V]));
    for (let i = 0; i < 20; i++) void policyLoss(batchOf(32, logits), rlsd());
    print("pending");
    process.exit(0);
  },

  /** The process lives until its queued calls are done. */
  natural() {
    void policyLoss(batchOf(64, kept(tensor(logitsOf(64), [64, V]))), rlsd()).then(() => print("done"));
  },

  async terminate() {
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: "in-worker", argv: ["in-worker"] });
      await new Promise((resolve) => worker.once("message", resolve));
      await new Promise((resolve) => setTimeout(resolve, 4 * round));
      await worker.terminate();
    }
    const { loss } = await policyLoss(batchOf(1, kept(tensor(logitsOf(1), [1, V]))), rlsd());
    print(loss);
  },

  "in-worker"() {
    const logits = kept(tensor(logitsOf(32), [32, V]));
    for (let i = 0; i < 10; i++) void policyLoss(batchOf(32, logits), rlsd(), { signal: new AbortController().signal });
    parentPort!.postMessage("running");
  },

  /** Memory whose view, or whose buffer, says that it is another or of fixed size: what a queued call uses stays in its place. */
  async forged() {
    const memoryOf = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Float32Array.prototype), "buffer")!.get!;
    class Elsewhere extends Float32Array {
      override get buffer(): ArrayBuffer {
        return new ArrayBuffer(8);
      }
    }
    const subclass = new Elsewhere(256 * V);
    const own = new Float32Array(256 * V);
    const buffers = [memoryOf.call(subclass), own.buffer] as ArrayBuffer[];
    Object.defineProperty(own, "buffer", { value: new ArrayBuffer(8) });
    const losses: number[] = [];
    for (const [i, values] of [subclass, own].entries()) {
      const call = policyLoss(batchOf(256, kept(tensor(values, [256, V]))), rlsd(), { inPlace: true, threads: 1 });
      const buffer = buffers[i]!;
      try {
        structuredClone(buffer, { transfer: [buffer] }); // Node 20 copies a marked buffer, later ones throw
      } catch {}
      losses.push((await call).loss);
    }
    print(losses);
  },

  /** A runtime whose transfer() does not heed the mark. */
  async unprotected() {
    const codes: unknown[] = [];
    const attempt = (logits: Tensor) => policyLoss(batchOf(1, logits), rlsd(), { inPlace: true });
    await attempt(tensor(logitsOf(1), [1, V])).catch((error: { code: string }) => codes.push(error.code));
    const shared = new Float32Array(new SharedArrayBuffer(4 * V));
    codes.push((await attempt(tensor(shared, [1, V]))).stats.tokens);
    codes.push((await attempt(empty([1, V], "f32"))).stats.tokens);
    codes.push(policyLossSync(batchOf(1, tensor(logitsOf(1), [1, V])), rlsd()).stats.tokens);
    print(codes);
  },
};

await cases[isMainThread ? process.argv[2]! : (workerData as string)]!();
