// What must happen in a process of its own, on an emulated device: device-child.ts CASE. Prints one line of JSON.
import { spawn } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import {
  backendInfo,
  createStream,
  type DistributionScores,
  empty,
  grpo,
  type PolicyBatch,
  policyLoss,
  policyLossSync,
  type Tensor,
  tensor,
  toDevice,
  toDeviceAsync,
  toHost,
  toHostAsync,
  tokenLogProbs,
} from "../../lib/index.js";

const V = 64;
const gate = process.env.RLSD_EMULATION_GATE ?? "";
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

function makeBatch(): PolicyBatch & { readonly student: DistributionScores } {
  const values = Float32Array.from({ length: 4 * V }, (_, i) => ((i * 37) % 101) / 25);
  return {
    student: { logits: toDevice(tensor(values, [4, V]), "cuda:0") },
    tokenIds: Int32Array.of(1, 2, 3, 4),
    cuSeqlens: Int32Array.of(0, 4),
    advantages: Float32Array.of(-1),
  };
}

/** Opens the gate while this thread waits. */
function openLater(): void {
  spawn("sh", ["-c", `sleep 0.3; rm ${gate}`], { stdio: "ignore" });
}

const freeBytes = () => (backendInfo().cuda.devices ?? []).map((device) => device.freeBytes ?? null);

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

  uncaught() {
    leavePending();
    print("pending");
    throw new Error("nobody catches this");
  },

  /** Device memory that nobody holds any more, while the device still writes it. */
  async collected() {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const batch = makeBatch();
    writeFileSync(gate, "");
    policyLossSync(batch, grpo(), { results: "device" });
    for (let i = 0; i < 3; i++) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    print("collected");
    process.exit(0);
  },

  /** Disposing what the device still writes waits for it. */
  dispose() {
    const batch = makeBatch();
    writeFileSync(gate, "");
    const kept = policyLossSync(batch, grpo(), { results: "device" });
    openLater();
    kept[Symbol.dispose]();
    print(existsSync(gate));
  },

  /** What asking and working tell of the devices that this process uses: free bytes are of those alone. */
  contexts() {
    const before = freeBytes();
    using first = empty([1 << 10], "f32", "cuda:1");
    const after = freeBytes();
    using _second = empty([1], "f32", "cuda:0");
    print([before, after, freeBytes().map((bytes) => typeof bytes), first.device]);
  },

  /** A call of which the device took a part before a launch failed. */
  async partly() {
    const batch = makeBatch();
    const { logits } = batch.student as { logits: Tensor };
    using stream = createStream("cuda:0");
    writeFileSync(gate, "made");
    const failing = policyLoss(batch, grpo(), { inPlace: true, stream });
    const failure = await failing.catch((error: Error) => error.message);
    openLater();
    toHost(logits);
    print([failure, existsSync(gate)]);
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
    for (let i = 0; i < 3; i++) await once();
    const before = freeBytes();
    for (let i = 0; i < 10; i++) await once();
    print(before[0]! - freeBytes()[0]!);
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
      free.push(freeBytes()[0]);
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
    const [free] = freeBytes();
    const answers = [
      await policyLoss(batch, grpo()).catch(say),
      await policyLoss(batch, grpo(), { results: "device" }).catch(say),
      await tokenLogProbs(batch.student, batch.tokenIds!).catch(say),
    ];
    print([...answers, freeBytes()[0]! >= free! - 65536]);
  },
};

await cases[isMainThread ? process.argv[2]! : (workerData as string)]!();
