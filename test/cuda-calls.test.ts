import {
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
  toHost,
  toHostAsync,
  tokenLogProbs,
  tokenLogProbsSync,
} from "../lib/index.js";
import {
  batchOn,
  close,
  codeOf,
  down,
  hostVectors,
  N,
  named,
  objective,
  same,
  scores,
  small,
  suite,
  tokenIds,
  up,
  V,
  values,
  vector,
  wave,
} from "./support/device-batch.js";
import { emulated, withEmulatedCuda } from "./support/emulated-cuda.js";

suite("calls on a device", () => {
  withEmulatedCuda({ RLSD_EMULATION_DEVICES: "2" });

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
      expect(codeOf(() => tokenLogProbsSync({ logProbs: vector(wave(1)) } as never, ids))).toBe(
        "ERR_RLSD_INVALID_ARGUMENT",
      );
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

    const refusal = (batch: PolicyBatch, call: object = {}): string => {
      try {
        policyLossSync(batch, objective, call);
        return "nothing";
      } catch (error) {
        return (error as Error).message;
      }
    };

    emulated.it("names what lies on another device", () => {
      const contrast = scores(3, (t) => toDevice(t, "cuda:1"));
      const where = "on cuda:0, where the call runs";
      expect(refusal({ ...batchOn(up), contrast })).toMatch(`${where}, for contrast.logits`);
      expect(refusal({ ...batchOn(up), samplerLogProbs: empty([N], "f32", "cuda:1") })).toMatch(where);
      expect(refusal(batchOn(up), { stream: createStream("cuda:1") })).toMatch(/stream of cuda:0.*one of cuda:1/);
    });

    it("names a disposed tensor, a stream of elsewhere, results and memory that do not fit", () => {
      const batch = batchOn(up);
      const refused = (call: object): string => refusal(batch, call);
      expect(refused({ stream: { device: "cuda:0" } })).toMatch(/stream of cuda:0.*something else/);
      expect(refused({ results: "elsewhere" })).toMatch(/"host" or "device"/);
      expect(refused({ out: { logProbs: empty([N], "f32", "cuda:0") } })).toMatch(/Float32Array of 6 for out.logProbs/);
      expect(refused({ results: "device", out: { logProbs: new Float32Array(N) } })).toMatch(/tensor on cuda:0/);
      expect(refused({ results: "device", out: { logProbs: empty([N + 1], "f32", "cuda:0") } })).toMatch(/6 elements/);
      expect(refused({ out: { logits: empty([N + 2, V], "f32") } })).toMatch(/on cuda:0.*out.logits/);
      expect(refused({ out: { logits: empty([N, V], "f32", "cuda:0") } })).toMatch(/shape \[8, 37\]/);
      expect(refused({ inPlace: true, out: { logits: empty([N + 2, V], "f32", "cuda:0") } })).toMatch(/both/);
      expect(refused({ inPlace: 1 })).toMatch(/boolean/);
      expect(refused({ accumulate: true })).toMatch(/false, as only gradients of a head are added to, for accumulate/);
      expect(refused({ frozenHead: true })).toMatch(/false, as the student has no head, for frozenHead/);
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
});
