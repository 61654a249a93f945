import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  backendInfo,
  createStream,
  distillLoss,
  empty,
  grpo,
  type PolicyBatch,
  policyLoss,
  policyLossSync,
  rlsd,
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
import { compiler } from "./support/cpu-library.js";
import { Gate, setNativeEnv, useEmulatedCuda } from "./support/emulated-cuda.js";
import { randomLogits } from "./support/logits.js";

const suite = compiler() === undefined ? describe.skip : describe;
if (compiler() === undefined) process.stdout.write("not run: calls on an emulated device (no C++ compiler)\n");

const N = 6;
const V = 37;
const tokenIds = Int32Array.from({ length: N }, (_, i) => (7 * i) % V);
const wave = (scale: number) => Float32Array.from({ length: N }, (_, i) => -1.5 + scale * Math.sin(3 * i));
const values = (seed: number): Float32Array => Float32Array.from(randomLogits((N + 2) * V, 2, seed));
/** Every row but 1 and 4, backwards. */
const rows = Int32Array.of(7, 6, 5, 3, 2, 0);

const up = (t: Tensor): Tensor => toDevice(t, "cuda:0");
const vector = (numbers: Float32Array): Tensor => up(tensor(numbers, [numbers.length]));
const down = (t: Tensor): Float32Array => toHost(t).data as Float32Array;

const small = {
  tokenIds,
  cuSeqlens: Int32Array.of(0, 2, 2, N),
  completionMask: Uint8Array.of(1, 1, 0, 1, 1, 1),
  spanMask: Uint8Array.of(1, 1, 1, 1, 0, 1),
  advantages: Float32Array.of(1.5, 0, -0.7),
};
const hostVectors = { oldLogProbs: wave(0.3), refLogProbs: wave(0.5), samplerLogProbs: wave(0.2) };
const objective = rlsd({ klCoef: 0.1, importanceCorrection: "token-truncate" }, grpo());

/** Logits of N + 2 rows, the last two columns padding. */
const scores = (seed: number, place: (t: Tensor) => Tensor) => ({
  logits: place(tensor(values(seed), [N + 2, V])),
  rows,
  vocabSize: V - 2,
});
const same = (t: Tensor): Tensor => t;
function batchOn(place: (t: Tensor) => Tensor): PolicyBatch {
  const views = { student: scores(1, place), teacher: scores(2, place), contrast: scores(3, place) };
  return { ...views, ...small, ...hostVectors, tokenIds: tokenIds.map((id) => id % (V - 2)) };
}

/** The rows that the tokens name: the others stay as they were where the gradient goes over the logits. */
const named = (numbers: ArrayLike<number>): number[] =>
  [...rows].flatMap((row) => Array.from({ length: V }, (_, column) => numbers[row * V + column]!));

const codeOf = (call: () => unknown): string => {
  try {
    call();
    return "nothing";
  } catch (error) {
    return (error as { code: string }).code;
  }
};

function close(got: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(got.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(got[i]).toBeCloseTo(expected[i]!, 5);
}

suite("calls on a device", () => {
  const gate = new Gate();
  let library = "";
  beforeAll(async () => {
    library = await useEmulatedCuda();
    await setNativeEnv({ RLSD_EMULATION_GATE: gate.path });
  }, 600_000);
  afterEach(() => gate.open());
  afterAll(() => gate[Symbol.dispose]());

  describe("policyLoss of logits", () => {
    it("serves rows, padding, contrast, masks and every per-token input as the CPU does", () => {
      const expected = policyLossSync(batchOn(same), objective, { lossScale: 3 });
      const got = policyLossSync(batchOn(up), objective, { lossScale: 3 });
      for (const name of ["logProbs", "teacherLogProbs", "tokenAdvantages", "evidenceWeights"] as const) {
        close(got[name]!, expected[name]!);
      }
      close(got.gradient.logProbs, expected.gradient.logProbs);
      close(down(got.gradient.logits!), expected.gradient.logits!.data);
      expect(Object.keys(got.stats)).toEqual(Object.keys(expected.stats));
      close(Object.values(got.stats), Object.values(expected.stats));
    });

    it("writes into the caller's memory, and leaves rows that no token names", () => {
      const batch = batchOn(up);
      const fresh = policyLossSync(batch, objective);
      const logits = up(tensor(new Float32Array((N + 2) * V).fill(9), [N + 2, V]));
      const out = { logits, logProbs: new Float32Array(N), gradientLogProbs: new Float32Array(N) };
      const got = policyLossSync(batch, objective, { out });
      expect(got.gradient.logits).toBe(logits);
      expect([got.logProbs, got.gradient.logProbs]).toEqual([out.logProbs, out.gradientLogProbs]);
      expect(got.logProbs).toEqual(fresh.logProbs);
      const [written, expected] = [down(logits), down(fresh.gradient.logits!)];
      expect(named(written)).toEqual(named(expected));
      expect(new Set(written.slice(V, 2 * V))).toEqual(new Set([9]));
    });

    it("takes each per-token input from either side, with the same bits", async () => {
      const expected = policyLossSync(batchOn(up), objective);
      const deep = { ...batchOn(up), advantages: vector(small.advantages) };
      const names = ["oldLogProbs", "refLogProbs", "samplerLogProbs"] as const;
      for (const name of names) {
        const got = policyLossSync({ ...deep, [name]: vector(hostVectors[name]) }, objective);
        expect(got.gradient.logProbs).toEqual(expected.gradient.logProbs);
      }
      const cpuTensor = { oldLogProbs: tensor(hostVectors.oldLogProbs, [2, N / 2]) };
      expect((await policyLoss({ ...deep, ...cpuTensor }, objective)).stats).toEqual(expected.stats);
      const scored = tokenLogProbsSync(
        scores(2, same),
        tokenIds.map((id) => id % (V - 2)),
        {
          completionMask: small.completionMask,
        },
      );
      const teacher = { logProbs: scored.logProbs };
      close(policyLossSync({ ...batchOn(up), teacher }, objective).evidenceWeights!, expected.evidenceWeights!);
    });

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
  });

  describe("policyLoss of log-probs", () => {
    const host = { ...small, ...hostVectors, student: { logProbs: wave(0.4) }, teacher: { logProbs: wave(0.8) } };
    const there = (): PolicyBatch => ({
      ...host,
      student: { logProbs: vector(wave(0.4)) },
      teacher: { logProbs: vector(wave(0.8)) },
    });

    it("agrees with the CPU, results on either side", async () => {
      const expected = policyLossSync(host, objective);
      const got = await policyLoss(there(), objective);
      close(got.gradient.logProbs, expected.gradient.logProbs);
      expect(got.evidenceWeights).toEqual(expected.evidenceWeights);
      close(Object.values(got.stats), Object.values(expected.stats));
      const out = { gradientLogProbs: empty([N], "f32", "cuda:0"), logProbs: empty([N], "f32", "cuda:0") };
      const kept = policyLossSync(there(), objective, { results: "device", out });
      expect(kept.gradient.logProbs).toBe(out.gradientLogProbs);
      expect(down(out.gradientLogProbs)).toEqual(got.gradient.logProbs);
      expect(down(out.logProbs)).toEqual(got.logProbs);
      expect(down(kept.tokenAdvantages)).toEqual(got.tokenAdvantages);
    });

    it("is the same without a teacher, without tokens and with one advantage a token", () => {
      const { teacher: _, ...alone } = there();
      expect(policyLossSync(alone, grpo()).teacherLogProbs).toBeUndefined();
      expect(policyLossSync(alone, grpo(), { results: "device" }).teacherLogProbs).toBeUndefined();
      const none = { student: { logProbs: vector(new Float32Array(0)) }, cuSeqlens: Int32Array.of(0) };
      expect(policyLossSync({ ...none, advantages: new Float32Array(0) }, grpo()).loss).toBe(0);
      const advantages = wave(1);
      const expected = policyLossSync({ ...host, advantages }, objective);
      close(policyLossSync({ ...there(), advantages }, objective).tokenAdvantages, expected.tokenAdvantages);
    });
  });

  describe("tokenLogProbs", () => {
    const ids = tokenIds.map((id) => id % (V - 2));
    const options = { entropy: true, temperature: 0.7, logitSoftcap: 5, completionMask: small.completionMask };

    it("agrees with the CPU, results on either side", async () => {
      const expected = tokenLogProbsSync(scores(1, same), ids, options);
      const got = await tokenLogProbs(scores(1, up), ids, options);
      close(got.logProbs, expected.logProbs);
      close(got.entropy!, expected.entropy!);
      expect(tokenLogProbsSync(scores(1, up), ids, options)).toEqual(got);
      using kept = tokenLogProbsSync(scores(1, up), ids, { ...options, results: "device" });
      await kept.check();
      expect([down(kept.logProbs), down(kept.entropy!)]).toEqual([got.logProbs, got.entropy]);
      expect((await tokenLogProbs(scores(1, up), ids, { results: "device" })).entropy).toBeUndefined();
      expect(tokenLogProbsSync({ logits: empty([0, V], "f32", "cuda:0") }, new Int32Array(0)).logProbs).toHaveLength(0);
    });

    it("says what is wrong, at once or to who reads its results", async () => {
      const wrong = ids.slice().fill(V, 5);
      const failure = { code: "ERR_RLSD_INVALID_ARGUMENT", index: 5 };
      await expect(tokenLogProbs(scores(1, up), wrong)).rejects.toMatchObject(failure);
      expect(() => tokenLogProbsSync(scores(1, up), wrong)).toThrow(expect.objectContaining(failure));
      const kept = tokenLogProbsSync(scores(1, up), wrong, { results: "device" });
      await expect(kept.check()).rejects.toMatchObject(failure);
      expect(() => toHost(kept.logProbs)).toThrow(expect.objectContaining(failure));
      await expect(toHostAsync(kept.logProbs)).rejects.toMatchObject(failure);
      expect(codeOf(() => tokenLogProbsSync({ logProbs: vector(wave(1)) }, ids))).toBe("ERR_RLSD_INVALID_ARGUMENT");
    });
  });

  describe("what a device finds wrong", () => {
    it("leaves the caller's memory as it was and names the token", async () => {
      const batch = { ...batchOn(up), tokenIds: tokenIds.slice().fill(V, 3, 4) };
      const { logits } = batch.student as { logits: Tensor };
      const before = down(logits);
      const failure = { code: "ERR_RLSD_INVALID_ARGUMENT", index: 3, message: expect.stringContaining("tokenIds[3]") };
      await expect(policyLoss(batch, objective, { inPlace: true })).rejects.toMatchObject(failure);
      const kept = policyLossSync(batch, objective, { inPlace: true, results: "device" });
      await expect(kept.stats()).rejects.toMatchObject(failure);
      expect(() => toHost(kept.loss)).toThrow(expect.objectContaining(failure));
      expect(down(logits)).toEqual(before);
    });

    it("counts rows that are not finite, or leaves them out when told to", async () => {
      const logits = values(1);
      logits[5 * V + 3] = Number.NaN;
      const student = { ...scores(1, up), logits: up(tensor(logits, [N + 2, V])) };
      const batch = { ...batchOn(up), student, completionMask: new Uint8Array(N).fill(1) };
      await expect(policyLoss(batch, objective)).rejects.toMatchObject({
        code: "ERR_RLSD_NON_FINITE",
        index: 2,
        count: 1,
      });
      const kept = await policyLoss(batch, objective, { results: "device" });
      await expect(kept.stats()).rejects.toMatchObject({ code: "ERR_RLSD_NON_FINITE", index: 2, count: 1 });
      await expect(toHostAsync(kept.gradient.logits!)).rejects.toMatchObject({ code: "ERR_RLSD_NON_FINITE" });
      const skipping = rlsd({ nonFinite: "skip" }, grpo());
      expect((await policyLoss(batch, skipping)).stats.nonFiniteRows).toBe(1);
    });
  });

  describe("a call that cannot be made", () => {
    const invalidArgument = "ERR_RLSD_INVALID_ARGUMENT";
    it.each<[string, string, RegExp, () => PolicyBatch]>([
      [
        "logits of the CPU beside those of a device",
        invalidArgument,
        /on cuda:0, where the call runs.*teacher\.logits/,
        () => ({ ...batchOn(up), teacher: scores(2, same) }),
      ],
      [
        "a per-token input of another dtype",
        invalidArgument,
        /f32 tensor of 6 for oldLogProbs.*bf16/,
        () => ({ ...batchOn(up), oldLogProbs: empty([N], "bf16", "cuda:0") }),
      ],
      [
        "a per-token input of another length",
        invalidArgument,
        /of 6 for refLogProbs/,
        () => ({ ...batchOn(up), refLogProbs: empty([N + 1], "f32", "cuda:0") }),
      ],
      [
        "hidden states",
        "ERR_RLSD_UNSUPPORTED",
        /policyLoss on cuda:0 of hidden states \(student\)/,
        () => ({ ...small, student: { hidden: empty([N, 4], "f32", "cuda:0"), head: empty([V, 4], "f32", "cuda:0") } }),
      ],
      [
        "an unknown field",
        invalidArgument,
        /Did you mean oldLogProbs/,
        () => ({ ...batchOn(up), oldLogprobs: wave(1) }) as PolicyBatch,
      ],
      ["no ids", invalidArgument, /token ids/, () => ({ ...batchOn(up), tokenIds: undefined })],
      ["no reference under a KL term", invalidArgument, /klCoef/, () => ({ ...batchOn(up), refLogProbs: undefined })],
      [
        "log-probs of 16 bits",
        invalidArgument,
        /f32 tensor/,
        () => ({ ...small, student: { logProbs: empty([N], "f16", "cuda:0") } }),
      ],
      ["a contrast without a teacher", invalidArgument, /teacher/, () => ({ ...batchOn(up), teacher: undefined })],
    ])("names %s", async (_, code, words, make) => {
      const batch = make();
      await expect(policyLoss(batch, objective)).rejects.toMatchObject({ code, message: expect.stringMatching(words) });
      expect(codeOf(() => policyLossSync(batch, objective, { results: "device" }))).toBe(code);
    });

    it("names a disposed tensor, a stream of elsewhere, results and memory that do not fit", () => {
      const batch = batchOn(up);
      const refused = (call: object): string => {
        try {
          policyLossSync(batch, objective, call);
          return "nothing";
        } catch (error) {
          return (error as Error).message;
        }
      };
      expect(refused({ stream: { device: "cuda:0" } })).toMatch(/stream of cuda:0/);
      expect(refused({ results: "elsewhere" })).toMatch(/"host" or "device"/);
      expect(refused({ out: { logProbs: empty([N], "f32", "cuda:0") } })).toMatch(/Float32Array of 6 for out.logProbs/);
      expect(refused({ results: "device", out: { logProbs: new Float32Array(N) } })).toMatch(/tensor on cuda:0/);
      expect(refused({ results: "device", out: { logProbs: empty([N + 1], "f32", "cuda:0") } })).toMatch(/6 elements/);
      expect(refused({ out: { logits: empty([N + 2, V], "f32") } })).toMatch(/on cuda:0.*out.logits/);
      expect(refused({ out: { logits: empty([N, V], "f32", "cuda:0") } })).toMatch(/shape \[8, 37\]/);
      expect(refused({ inPlace: true, out: { logits: empty([N + 2, V], "f32", "cuda:0") } })).toMatch(/both/);
      expect(refused({ inPlace: 1 })).toMatch(/boolean/);
      const { logits } = batch.teacher as { logits: Tensor };
      expect(refused({ out: { logits } })).toMatch(/memory of its own for out.logits/);
      logits[Symbol.dispose]();
      expect(codeOf(() => policyLossSync(batch, objective))).toBe("ERR_RLSD_DISPOSED");
    });

    it("names distillLoss and hidden states in tokenLogProbs, which the device does not serve", async () => {
      const view = { logits: empty([N, V], "f32", "cuda:0") };
      const batch = { student: view, teacher: view, cuSeqlens: Int32Array.of(0, N) };
      await expect(
        distillLoss(batch, { divergence: "forward-kl", reduction: "token-mean", temperature: 1 }),
      ).rejects.toMatchObject({ code: "ERR_RLSD_UNSUPPORTED", message: expect.stringMatching(/distillLoss.*cuda:0/) });
      const hidden = { hidden: empty([N, 4], "f32", "cuda:0"), head: empty([V, 4], "f32", "cuda:0") };
      expect(codeOf(() => tokenLogProbsSync(hidden, tokenIds))).toBe("ERR_RLSD_UNSUPPORTED");
    });
  });

  describe("work in time", () => {
    it("is enqueued when the call is made, and nobody waits who did not ask to", async () => {
      using stream = createStream("cuda:0");
      const batch = batchOn(up);
      const { logits } = batch.student as { logits: Tensor };
      const expected = policyLossSync(batch, objective);
      gate.close();
      const kept = policyLossSync(batch, objective, { results: "device", inPlace: true, stream });
      const after = tokenLogProbs(batch.student, batch.tokenIds!, { stream });
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
      expect(codeOf(() => policyLossSync(batch, objective, { inPlace: true }))).toBe("nothing");
    });
  });

  describe("copies that do not wait", () => {
    it.each([
      ["f32", new Float32Array(5_000_000).map((_, i) => i)],
      ["bf16", new Uint16Array(3).map((_, i) => i)],
      ["f16", new Uint16Array(0)],
    ] as const)("carry %s there and back, in more than one piece where it is long", async (dtype, data) => {
      using there = await toDeviceAsync(tensor(data, [data.length], dtype), "cuda:0");
      const back = await toHostAsync(there);
      expect([back.dtype, back.shape, back.device]).toEqual([dtype, [data.length], "cpu"]);
      expect(Buffer.compare(Buffer.from(back.data.buffer), Buffer.from(data.buffer))).toBe(0);
    });

    it("leave the thread free, and the source must stay until they are done", async () => {
      const source = tensor(values(1), [1, (N + 2) * V]);
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

    it("do not lose memory, call after call", async () => {
      const batch = batchOn(up);
      const free = () => backendInfo().cuda.devices?.[0]?.freeBytes;
      const once = async () => {
        policyLossSync(batch, objective).gradient.logits![Symbol.dispose]();
        (await policyLoss(batch, objective)).gradient.logits![Symbol.dispose]();
        policyLossSync(batch, objective, { results: "device" })[Symbol.dispose]();
        tokenLogProbsSync(batch.student, batch.tokenIds!, { results: "device" })[Symbol.dispose]();
        expect(codeOf(() => policyLossSync({ ...batch, tokenIds: tokenIds.slice().fill(V) }, objective))).not.toBe(
          "nothing",
        );
      };
      for (let i = 0; i < 3; i++) await once();
      const before = free();
      for (let i = 0; i < 10; i++) await once();
      expect(free()).toBe(before);
    });
  });

  describe("a process with work on a device", () => {
    const root = join(__dirname, "..");
    async function child(
      name: string,
      env: Record<string, string> = { RLSD_CUDA_EXPERIMENTAL: "1" },
    ): Promise<unknown> {
      using held = new Gate();
      const args = [
        "--import",
        join(root, "scripts/ts-register.mjs"),
        join(root, "test/support/device-child.ts"),
        name,
      ];
      const { RLSD_CUDA_EXPERIMENTAL: _, ...outer } = process.env;
      const options = { env: { ...outer, ...env, RLSD_CUDA_LIBRARY: library, RLSD_EMULATION_GATE: held.path } };
      const { stdout } = await promisify(execFile)(process.execPath, args, options);
      return JSON.parse(stdout);
    }

    it("may exit in the middle of calls and copies, without waiting for the device", async () => {
      expect(await child("exit")).toBe("pending");
    });

    it("lives until its queued calls are done", async () => {
      expect(await child("natural")).toBe(4);
    });

    it("goes on when a worker is terminated in the middle, whose memory it gets back", async () => {
      expect(await child("terminate")).toEqual([true, true]);
    });

    it("is refused kernels that have not passed on a GPU, unless told otherwise", async () => {
      const refusal = (kernel: string) =>
        expect.stringMatching(`^ERR_RLSD_UNSUPPORTED .*${kernel}.*RLSD_CUDA_EXPERIMENTAL`);
      const answers = [refusal("policy-tokens"), refusal("policy-tokens"), refusal("rows-plain"), true];
      expect(await child("refused", {})).toEqual(answers);
    });
  });
});
