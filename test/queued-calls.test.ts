import { execFile } from "node:child_process";
import { getEventListeners } from "node:events";
import { promisify } from "node:util";
import { MessageChannel } from "node:worker_threads";
import {
  empty,
  type PolicyBatch,
  policyLoss,
  policyLossSync,
  rlsd,
  type Tensor,
  tensor,
  tokenLogProbs,
} from "../lib/index.js";
import { program } from "./support/child.js";
import { randomLogits } from "./support/logits.js";
import { kept } from "./support/queueable.js";

const V = 20_000;
const values = Float32Array.from(randomLogits(4 * V, 2, 1));

function batchOf(logits: Tensor, rows = logits.shape[0]!): PolicyBatch {
  return {
    student: { logits },
    tokenIds: new Int32Array(rows).fill(7),
    cuSeqlens: Int32Array.of(0, rows),
    advantages: Float32Array.of(-1),
  };
}

const fresh = (): Tensor => kept(tensor(values.slice(), [4, V]));
/** Long enough that what is queued behind it has not started when this thread goes on. */
const longTensor = empty([1000, V], "f32");
const longCall = (signal?: AbortSignal) =>
  policyLoss(batchOf(longTensor), rlsd(), { inPlace: true, threads: 1, ...(signal && { signal }) });
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (error) => error.code ?? error.message,
  );

describe("the memory under a tensor", () => {
  it("cannot be resized", () => {
    const limit = { maxByteLength: 64 };
    const resizable = new Float32Array(Reflect.construct(ArrayBuffer, [16, limit]) as ArrayBuffer);
    expect(() => tensor(resizable, [4])).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
    const growable = new Float32Array(Reflect.construct(SharedArrayBuffer, [16, limit]) as SharedArrayBuffer);
    expect(() => tensor(growable, [4])).toThrow(expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }));
  });

  it.each([
    ["given", () => tensor(new Float32Array(4), [4])],
    ["allocated", () => empty([4], "f32")],
    ["of a result", () => policyLossSync(batchOf(fresh()), rlsd()).gradient.logits!],
  ])("cannot be transferred away: %s", (_, make) => {
    const { buffer } = make().data;
    const { port1 } = new MessageChannel();
    // Node 20 copies a marked buffer, later ones throw.
    const sends = [
      () => structuredClone(buffer, { transfer: [buffer as ArrayBuffer] }),
      () => port1.postMessage(buffer, [buffer as ArrayBuffer]),
    ];
    for (const send of sends) {
      try {
        send();
      } catch (error) {
        expect((error as Error).name).toBe("DataCloneError");
      }
    }
    port1.close();
    expect(buffer.byteLength).toBeGreaterThan(0);
  });
});

describe("a queued call", () => {
  it("gives the bits of the synchronous one", async () => {
    const sync = policyLossSync(batchOf(fresh()), rlsd());
    const queued = await policyLoss(batchOf(fresh()), rlsd());
    expect(queued.gradient.logits!.data).toEqual(sync.gradient.logits!.data);
    expect({ ...queued, gradient: undefined }).toEqual({ ...sync, gradient: undefined });
    const scored = await tokenLogProbs({ logits: fresh() }, new Int32Array(4).fill(7), { entropy: true });
    expect(scored.logProbs).toEqual(sync.logProbs);
  });

  it("owns its inputs of N and B elements", async () => {
    const expected = policyLossSync(batchOf(fresh()), rlsd());
    const before = longCall();
    const advantages = Float32Array.of(-1);
    const batch = { ...batchOf(fresh()), advantages };
    const pending = policyLoss(batch, rlsd());
    batch.tokenIds!.fill(-1);
    batch.cuSeqlens.fill(9);
    structuredClone(advantages.buffer, { transfer: [advantages.buffer] });
    await before;
    expect((await pending).gradient.logits!.data).toEqual(expected.gradient.logits!.data);
  });

  it("ends after those made before it", async () => {
    const order: number[] = [];
    await Promise.all([
      longCall().then(() => order.push(0)),
      policyLoss(batchOf(fresh()), rlsd()).then(() => order.push(1)),
      tokenLogProbs({ logits: fresh() }, new Int32Array(4)).then(() => order.push(2)),
    ]);
    expect(order).toEqual([0, 1, 2]);
  });

  it("keeps its tensors: who would write them is told so until it ends", async () => {
    const logits = fresh();
    const out = { logits: empty([4, V], "f32") };
    const pending = policyLoss(batchOf(logits), rlsd(), { out });
    const overlapping = tensor(logits.data.subarray(V, 2 * V), [1, V], logits.dtype);
    expect(await codeOf(policyLoss(batchOf(overlapping), rlsd(), { inPlace: true }))).toBe("ERR_RLSD_BUSY");
    expect(() => policyLossSync(batchOf(logits), rlsd(), { inPlace: true })).toThrow(/Await the other call/);
    expect(await codeOf(policyLoss(batchOf(out.logits), rlsd()))).toBe("ERR_RLSD_BUSY");
    expect(await codeOf(tokenLogProbs({ logits: out.logits }, new Int32Array(4)))).toBe("ERR_RLSD_BUSY");
    expect(await codeOf(policyLoss(batchOf(logits), rlsd()))).toBe("resolved"); // both only read it
    await pending;
    expect(await codeOf(policyLoss(batchOf(logits), rlsd(), { inPlace: true }))).toBe("resolved");
  });

  it("writes what its twin writes when rows are not finite", async () => {
    const call = async (run: typeof policyLoss | typeof policyLossSync) => {
      const logits = fresh();
      logits.data[3 * V + 5] = Number.NaN;
      const out = { logProbs: new Float32Array(4).fill(9), gradientLogProbs: new Float32Array(4).fill(9) };
      const { code } = await (async () => run(batchOf(logits), rlsd(), { out }))().catch((error) => error);
      return { code, out };
    };
    const queued = await call(policyLoss);
    expect(queued).toEqual(await call(policyLossSync));
    expect(queued.code).toBe("ERR_RLSD_NON_FINITE");
    expect([...queued.out.gradientLogProbs]).toEqual([0.25, 0.25, 0.25, 0]);
  });

  it("shares a signal with many calls by one listener: Node takes eleven for a leak", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const start = () => Array.from({ length: 12 }, () => policyLoss(batchOf(fresh()), rlsd(), { signal }));
    const calls = start();
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    await Promise.all(calls);
    const settled = Promise.allSettled(start());
    controller.abort(new Error("enough"));
    for (const call of await settled) expect(call).toEqual({ status: "rejected", reason: signal.reason });
  });

  it("gives its tensors back when it fails", async () => {
    const logits = fresh();
    logits.data[3 * V + 5] = Number.NaN;
    const failure = await policyLoss(batchOf(logits), rlsd(), { inPlace: true }).catch((error) => error);
    expect(failure).toMatchObject({ code: "ERR_RLSD_NON_FINITE", index: 3, count: 1 });
    expect(await codeOf(policyLoss(batchOf(logits), rlsd(), { inPlace: true }))).toBe("resolved");
    const wrong = { ...batchOf(logits), tokenIds: new Int32Array(4).fill(V) };
    expect(await codeOf(policyLoss(wrong, rlsd()))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    expect(await codeOf(policyLoss(batchOf(logits), rlsd(), { inPlace: true }))).toBe("resolved");
  });

  it("goes on when its tensor is disposed", async () => {
    const expected = policyLossSync(batchOf(fresh()), rlsd());
    const before = longCall();
    const logits = fresh();
    const pending = policyLoss(batchOf(logits), rlsd());
    logits[Symbol.dispose]();
    expect(() => logits.data).toThrow(expect.objectContaining({ code: "ERR_RLSD_DISPOSED" }));
    expect(await codeOf(policyLoss(batchOf(logits), rlsd()))).toBe("ERR_RLSD_DISPOSED");
    await before;
    expect((await pending).gradient.logits!.data).toEqual(expected.gradient.logits!.data);
  });
});

describe("an aborted call", () => {
  it("writes nothing when the signal was aborted before", async () => {
    const logits = fresh();
    const reason = new Error("no more");
    const signal = AbortSignal.abort(reason);
    await expect(policyLoss(batchOf(logits), rlsd(), { inPlace: true, signal })).rejects.toBe(reason);
    await expect(tokenLogProbs({ logits }, new Int32Array(4), { signal })).rejects.toBe(reason);
    expect(() => policyLossSync(batchOf(logits), rlsd(), { inPlace: true, signal })).toThrow(reason);
    expect(logits.data).toEqual(values);
  });

  it("writes nothing and rejects at once when it had not started", async () => {
    const before = longCall();
    let beforeIsDone = false;
    void before.then(() => {
      beforeIsDone = true;
    });
    const logits = fresh();
    const controller = new AbortController();
    const pending = policyLoss(batchOf(logits), rlsd(), { inPlace: true, signal: controller.signal });
    controller.abort("changed my mind");
    await expect(pending).rejects.toBe("changed my mind");
    expect(beforeIsDone).toBe(false);
    // The lease is over: this call is queued behind the dropped one.
    const next = policyLoss(batchOf(logits), rlsd());
    await before;
    expect((await next).stats.tokens).toBe(4);
    expect(logits.data).toEqual(values);
  });

  it("stops within 10 ms when it runs", async () => {
    let shortest = Number.POSITIVE_INFINITY;
    // The best of some tries: a busy machine may run this thread late.
    for (let attempt = 0; attempt < 100 && shortest >= 10; attempt++) {
      const controller = new AbortController();
      const pending = longCall(controller.signal);
      await new Promise((resolve) => setTimeout(resolve, 3));
      const begin = performance.now();
      controller.abort();
      const ended = await pending.then(() => "resolved", String);
      // One that was over before this thread was run again says nothing.
      if (ended === "resolved") continue;
      expect(ended).toContain("aborted");
      shortest = Math.min(shortest, performance.now() - begin);
    }
    expect(shortest).toBeLessThan(10);
    expect(await codeOf(longCall())).toBe("resolved");
  });
});

describe("an aborted call with an LM head", () => {
  // A wide head whose gradient is bf16 and new: writing what is left of it, without computing it, would take long.
  const [rows, vocab, width] = [64, 30_000, 2048];
  const filled = (shape: [number, number]) => {
    const made = empty(shape, "bf16");
    made.data.fill(0x3c20);
    return made;
  };
  const batch: PolicyBatch = {
    student: { hidden: filled([rows, width]), head: filled([vocab, width]) },
    tokenIds: new Int32Array(rows),
    cuSeqlens: Int32Array.of(0, rows),
    advantages: Float32Array.of(1),
  };

  it("stops within 10 ms wherever it is: scores, gradients, what is left of them", async () => {
    let whole = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 3; i++) {
      const begin = performance.now();
      await policyLoss(batch, rlsd());
      whole = Math.min(whole, performance.now() - begin);
    }
    for (const part of [0.1, 0.3, 0.5, 0.6, 0.7, 0.8]) {
      let wait = whole * part;
      let shortest = Number.POSITIVE_INFINITY;
      // The best of some tries, as above.
      for (let attempt = 0; attempt < 30 && shortest >= 10; attempt++) {
        const controller = new AbortController();
        const pending = policyLoss(batch, rlsd(), { signal: controller.signal });
        await new Promise((resolve) => setTimeout(resolve, wait));
        const asked = performance.now();
        controller.abort();
        if ((await codeOf(pending)) !== "resolved") shortest = Math.min(shortest, performance.now() - asked);
        // It was done before it was asked to stop: this machine has become faster, or this thread woke up late.
        else wait *= 0.8;
      }
      expect([part, shortest < 10]).toEqual([part, true]);
    }
  }, 60_000);
});

describe("a process with queued calls", () => {
  async function child(name: string, ...flags: string[]): Promise<unknown> {
    const args = [...flags, program("queued-child.ts"), name];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    return JSON.parse(stdout);
  }

  it("collects no memory that a call uses", async () => {
    expect(await child("collected", "--expose-gc")).toBe(true);
  });

  it("may exit while calls are pending", async () => {
    expect(await child("exit")).toBe("pending");
  });

  it("lives until they are done", async () => {
    expect(await child("natural")).toBe("done");
  });

  it("survives workers that are terminated in the middle of a call", async () => {
    expect(await child("terminate")).toEqual(expect.any(Number));
  });

  it("keeps memory in its place, whatever a subclass or a property says of it", async () => {
    expect(await child("forged")).toEqual([expect.closeTo(1, 5), expect.closeTo(1, 5)]);
  });

  it("refuses to queue memory that this Node lets others take", async () => {
    const code = "ArrayBuffer.prototype.transfer = function () { return this.slice(); }";
    const preload = `data:text/javascript,${encodeURIComponent(code)}`;
    expect(await child("unprotected", "--import", preload)).toEqual(["ERR_RLSD_UNSUPPORTED", 1, 1, 1]);
  });
});
