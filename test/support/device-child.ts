// What must happen in a process of its own, on an emulated device: device-child.ts CASE. Prints one line of JSON.
import { rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import {
  backendInfo,
  empty,
  grpo,
  type PolicyBatch,
  policyLoss,
  policyLossSync,
  tensor,
  toDevice,
  toDeviceAsync,
  toHostAsync,
  tokenLogProbs,
} from "../../lib/index.js";

const V = 64;
const gate = process.env.RLSD_EMULATION_GATE ?? "";
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

function makeBatch(): PolicyBatch {
  const values = Float32Array.from({ length: 4 * V }, (_, i) => ((i * 37) % 101) / 25);
  return {
    student: { logits: toDevice(tensor(values, [4, V]), "cuda:0") },
    tokenIds: Int32Array.of(1, 2, 3, 4),
    cuSeqlens: Int32Array.of(0, 4),
    advantages: Float32Array.of(-1),
  };
}

/** Calls and copies that the device has not done. */
function leavePending(): void {
  const batch = makeBatch();
  const large = empty([1 << 20], "f32", "cuda:0");
  const source = empty([1 << 20], "f32");
  writeFileSync(gate, "");
  void policyLoss(batch, grpo());
  void policyLoss(batch, grpo(), { signal: new AbortController().signal });
  policyLossSync(batch, grpo(), { results: "device" });
  void tokenLogProbs(batch.student, batch.tokenIds!);
  void toHostAsync(large);
  void toDeviceAsync(source, "cuda:0");
}

const cases: Record<string, () => unknown> = {
  exit() {
    leavePending();
    print("pending");
    process.exit(0);
  },

  /** Device memory that calls keep once they are over and their results disposed; the batch keeps nothing from going. */
  async memory() {
    const batch = makeBatch();
    const wrong = { ...batch, tokenIds: Int32Array.of(0, V, 0, 0) };
    const once = async () => {
      policyLossSync(batch, grpo()).gradient.logits![Symbol.dispose]();
      (await policyLoss(batch, grpo())).gradient.logits![Symbol.dispose]();
      policyLossSync(batch, grpo(), { results: "device" })[Symbol.dispose]();
      (await tokenLogProbs(batch.student, batch.tokenIds!, { results: "device" }))[Symbol.dispose]();
      await policyLoss(wrong, grpo()).catch(() => undefined);
    };
    const free = () => backendInfo().cuda.devices?.[0]?.freeBytes ?? Number.NaN;
    for (let i = 0; i < 3; i++) await once();
    const before = free();
    for (let i = 0; i < 10; i++) await once();
    print(before - free());
  },

  /** The process lives until its queued calls are done. */
  natural() {
    const batch = makeBatch();
    writeFileSync(gate, "");
    void policyLoss(batch, grpo()).then(({ stats }) => print(stats.tokens));
    setImmediate(() => rmSync(gate));
  },

  async terminate() {
    const expected = policyLossSync(makeBatch(), grpo()).loss;
    const free: unknown[] = [];
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: "in-worker", argv: ["in-worker"] });
      await new Promise((resolve) => worker.once("message", resolve));
      const ended = worker.terminate();
      rmSync(gate);
      await ended;
      free.push(backendInfo().cuda.devices?.[0]?.freeBytes);
    }
    print([free[1] === free[2], (await policyLoss(makeBatch(), grpo())).loss === expected]);
  },

  "in-worker"() {
    leavePending();
    parentPort!.postMessage("pending");
  },

  /** Kernels that have not passed on a GPU, without leave to use them. */
  async refused() {
    const batch = makeBatch();
    const say = ({ code, message }: { code: string; message: string }) => `${code} ${message}`;
    const free = backendInfo().cuda.devices?.[0]?.freeBytes;
    const answers = [
      await policyLoss(batch, grpo()).catch(say),
      await policyLoss(batch, grpo(), { results: "device" }).catch(say),
      await tokenLogProbs(batch.student, batch.tokenIds!).catch(say),
    ];
    print([...answers, (backendInfo().cuda.devices?.[0]?.freeBytes ?? 0) >= (free ?? 0) - 65536]);
  },
};

await cases[isMainThread ? process.argv[2]! : (workerData as string)]!();
