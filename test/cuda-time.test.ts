import {
  createStream,
  type DistributionScores,
  empty,
  grpo,
  policyLoss,
  policyLossSync,
  type Tensor,
  tensor,
  toDevice,
  toDeviceAsync,
  toHost,
  toHostAsync,
  tokenLogProbs,
  tokenLogProbsSync,
} from "../lib/index.js";
import { fromPointer, pointerOf } from "../lib/interop.js";
import {
  batchOn,
  close,
  codeOf,
  down,
  N,
  named,
  objective,
  same,
  small,
  up,
  V,
  values,
} from "./support/device-batch.js";
import { emulated, Gate, withEmulatedCuda } from "./support/emulated-cuda.js";
import { kept } from "./support/queueable.js";

emulated.describe("a device in time", () => {
  const gate = new Gate();
  withEmulatedCuda({ RLSD_EMULATION_GATE: gate.path });
  afterEach(() => gate.open());
  afterAll(() => gate[Symbol.dispose]());

  describe("work", () => {
    it("owns its inputs of N and B elements", async () => {
      const expected = policyLossSync(batchOn(up), objective);
      const batch = { ...batchOn(up), advantages: small.advantages.slice(), cuSeqlens: small.cuSeqlens.slice() };
      gate.close();
      const pending = policyLoss(batch, objective);
      batch.tokenIds!.fill(-1);
      batch.cuSeqlens.fill(9);
      structuredClone(batch.advantages.buffer, { transfer: [batch.advantages.buffer] });
      gate.open();
      expect((await pending).gradient.logProbs).toEqual(expected.gradient.logProbs);
    });

    it("is enqueued when the call is made, and nobody waits who did not ask to", async () => {
      using stream = createStream("cuda:0");
      const batch = batchOn(up);
      const { logits } = batch.student as { logits: Tensor };
      const expected = policyLossSync(batch, objective);
      gate.close();
      const kept = policyLossSync(batch, objective, { results: "device", inPlace: true, stream });
      const after = tokenLogProbs(batch.student as DistributionScores, batch.tokenIds!, { stream });
      const read = toHostAsync(kept.loss);
      const stats = kept.stats();
      let settled = 0;
      for (const promise of [after, read, stats]) void promise.then(() => settled++);
      await new Promise((resolve) => setImmediate(resolve));
      expect(settled).toBe(0);
      gate.open();
      expect((await stats).loss).toBe(expected.loss);
      expect((await read).data).toEqual(Float32Array.of(expected.loss));
      // What came after on the stream read the gradient that lies over the logits.
      const gradient = down(expected.gradient.logits!);
      const overGradient = tokenLogProbsSync(
        { ...batch.student, logits: tensor(gradient, [N + 2, V]) } as never,
        batch.tokenIds!,
      );
      close((await after).logProbs, overGradient.logProbs);
      expect(named(down(logits))).toEqual(named(gradient));
    });

    it("reads what our last call wrote, on whatever stream", async () => {
      using a = createStream("cuda:0");
      using b = createStream("cuda:0");
      const first = batchOn(up);
      const expected = policyLossSync(first, objective);
      gate.close();
      const kept = policyLossSync(first, objective, { results: "device", stream: a });
      const batch = { ...batchOn(same), student: { logProbs: kept.logProbs }, teacher: undefined, contrast: undefined };
      const next = policyLoss(batch, objective, { stream: b });
      const read = toHostAsync(kept.gradient.logits!, b);
      gate.open();
      expect((await next).logProbs).toEqual(expected.logProbs);
      expect((await read).data).toEqual(down(expected.gradient.logits!));
    });

    it("writes after our earlier calls have read, on whatever stream", async () => {
      using a = createStream("cuda:0");
      using b = createStream("cuda:0");
      const batch = batchOn(up);
      const expected = policyLossSync(batch, objective);
      gate.close();
      const reads = [1, 2, 3].map(() => policyLossSync(batch, objective, { results: "device", stream: a }));
      const writes = policyLossSync(batch, objective, { results: "device", stream: b, inPlace: true });
      gate.open();
      for (const kept of [...reads, writes]) expect(down(kept.logProbs)).toEqual(expected.logProbs);
    });

    it("keeps tensors from being written on another stream until the call ends", async () => {
      using a = createStream("cuda:0");
      using b = createStream("cuda:0");
      const batch = batchOn(up);
      const over = { inPlace: true, stream: b } as const;
      gate.close();
      const pending = policyLoss(batch, objective, { stream: a });
      await expect(policyLoss(batch, objective, over)).rejects.toMatchObject({ code: "ERR_RLSD_BUSY" });
      expect(codeOf(() => policyLossSync(batch, objective, { ...over, results: "device" }))).toBe("ERR_RLSD_BUSY");
      const { logits } = batch.student as { logits: Tensor };
      const alias = fromPointer(pointerOf(logits) + 4n, { shape: [1, V], dtype: "f32", device: "cuda:0" });
      const other = {
        student: { logits: alias },
        tokenIds: Int32Array.of(0),
        cuSeqlens: Int32Array.of(0, 1),
        advantages: Float32Array.of(1),
      };
      expect(codeOf(() => policyLossSync(other, grpo(), { ...over, results: "device" }))).toBe("ERR_RLSD_BUSY");
      b.waitFor(a);
      const ordered = policyLoss(batch, objective, over);
      gate.open();
      const [first, second] = await Promise.all([pending, ordered]);
      expect(second.gradient.logProbs).toEqual(first.gradient.logProbs);
      expect(named(down(logits))).toEqual(named(down(first.gradient.logits!)));
    });

    it("keeps a tensor from being written while it is copied to the host", async () => {
      const batch = batchOn(up);
      const { logits } = batch.student as { logits: Tensor };
      const before = down(logits);
      gate.close();
      const copy = toHostAsync(logits);
      await expect(policyLoss(batch, objective, { inPlace: true })).rejects.toMatchObject({ code: "ERR_RLSD_BUSY" });
      gate.open();
      expect((await copy).data).toEqual(before);
      await policyLoss(batch, objective, { inPlace: true });
      expect(down(logits)).not.toEqual(before);
    });

    it("goes on when its tensors are disposed", async () => {
      const expected = policyLossSync(batchOn(up), objective);
      using stream = createStream("cuda:0");
      const batch = batchOn(up);
      const { logits } = batch.student as { logits: Tensor };
      gate.close();
      const pending = policyLoss(batch, objective, { stream });
      const copy = toHostAsync((batch.teacher as { logits: Tensor }).logits);
      for (const view of [batch.student, batch.teacher, batch.contrast])
        (view as { logits: Tensor }).logits[Symbol.dispose]();
      expect(codeOf(() => toHost(logits))).toBe("ERR_RLSD_DISPOSED");
      gate.open();
      expect((await pending).logProbs).toEqual(expected.logProbs);
      expect((await copy).data).toEqual(values(2));
    });

    it("is over when an aborted call rejects with its signal's reason", async () => {
      const batch = batchOn(up);
      const { logits } = batch.student as { logits: Tensor };
      const before = down(logits);
      const controller = new AbortController();
      await expect(policyLoss(batch, objective, { inPlace: true, signal: AbortSignal.abort("early") })).rejects.toBe(
        "early",
      );
      expect(down(logits)).toEqual(before);
      gate.close();
      const pending = policyLoss(batch, objective, { inPlace: true, signal: controller.signal });
      let rejected = false;
      const watched = pending.catch((reason) => {
        rejected = true;
        return reason;
      });
      controller.abort("late");
      await new Promise((resolve) => setImmediate(resolve));
      expect(rejected).toBe(false);
      gate.open();
      expect(await watched).toBe("late");
      gate.close();
      const second = new AbortController();
      const wrong = { ...batch, tokenIds: Int32Array.from(batch.tokenIds!).fill(V, 0, 1) };
      const failing = policyLoss(wrong, objective, { signal: second.signal });
      second.abort("before the failure is known");
      gate.open();
      await expect(failing).rejects.toBe("before the failure is known");
      expect(codeOf(() => policyLossSync(batch, objective, { inPlace: true }))).toBe("nothing");
    });
  });

  it("leaves what toDevice was given to its owner, also where the copy has its turn later", () => {
    using stream = createStream("cuda:0");
    const source = values(1);
    gate.close();
    using there = toDevice(tensor(source, [source.length]), "cuda:0", stream);
    source.fill(0);
    gate.open();
    expect(toHost(there, stream).data).toEqual(values(1));
  });

  describe("copies that do not wait", () => {
    it.each([
      ["f32", new Float32Array(5_000_000).map((_, i) => i)],
      ["bf16", new Uint16Array(3).map((_, i) => i)],
      ["f16", new Uint16Array(0)],
    ] as const)("carry %s there and back, in more than one piece where it is long", async (dtype, data) => {
      using there = await toDeviceAsync(kept(tensor(data, [data.length], dtype)), "cuda:0");
      const back = await toHostAsync(there);
      expect([back.dtype, back.shape, back.device]).toEqual([dtype, [data.length], "cpu"]);
      expect(Buffer.compare(Buffer.from(back.data.buffer), Buffer.from(data.buffer))).toBe(0);
      using sent = toDevice(back, "cuda:0");
      expect(Buffer.compare(Buffer.from(toHost(sent).data.buffer), Buffer.from(data.buffer))).toBe(0);
    });

    it("leave the thread free, and the source must stay until they are done", async () => {
      const source = kept(tensor(values(1), [1, (N + 2) * V]));
      gate.close();
      const pending = toDeviceAsync(source, "cuda:0");
      const over = {
        student: { logits: source },
        tokenIds: Int32Array.of(1),
        cuSeqlens: Int32Array.of(0, 1),
        advantages: Float32Array.of(1),
      };
      expect(codeOf(() => policyLossSync(over, grpo(), { inPlace: true }))).toBe("ERR_RLSD_BUSY");
      await new Promise((resolve) => setImmediate(resolve));
      gate.open();
      expect(down(await pending)).toEqual(values(1));
    });

    it("say when a tensor was disposed, when there is no room and when there is no such device", async () => {
      const t = empty([2], "f32", "cuda:0");
      t[Symbol.dispose]();
      await expect(toHostAsync(t)).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
      await expect(toDeviceAsync(empty([1], "f32"), "cuda:7")).rejects.toMatchObject({
        code: "ERR_RLSD_BACKEND_UNAVAILABLE",
      });
      const own = await toHostAsync(tensor(Float32Array.of(1), [1]));
      expect([own.data, (await toDeviceAsync(own, "cpu")).data]).toEqual([Float32Array.of(1), Float32Array.of(1)]);
    });
  });

  describe("results on a device", () => {
    it("go with their disposal, and say so to a later read", async () => {
      const batch = batchOn(up);
      const out = { logProbs: empty([N], "f32", "cuda:0") };
      const kept = policyLossSync(batch, objective, { results: "device", out });
      kept[Symbol.dispose]();
      kept[Symbol.dispose]();
      expect(codeOf(() => toHost(kept.loss))).toBe("ERR_RLSD_DISPOSED");
      await expect(kept.stats()).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
      expect(down(out.logProbs)).toHaveLength(N);
    });
  });
});
