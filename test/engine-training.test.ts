import {
  dapo,
  type EnginePolicy,
  grpo,
  type NewModelConfig,
  rlsd,
  rowCoefficient,
  type ScoreRequest,
  type TrainBatch,
} from "../lib/index.js";
import { policyLossSync } from "../lib/ops/policy-loss.js";
import { relativeError } from "./support/safetensors.js";
import {
  GEMMA,
  GRANITE,
  gradientOf,
  ids,
  OLMO2,
  OLMO3,
  PHI3,
  sixRequests,
  tinyPolicy,
  WINDOWED,
} from "./support/small-policy.js";

const sequences = sixRequests();
const N = 26;
const wave = (phase: number, size: number): Float32Array =>
  Float32Array.from({ length: N }, (_, i) => size * Math.sin(phase + 1.7 * i));
const advantages = Float32Array.of(1, -1, 0.5, 2, -0.25, 0);
const nll = rowCoefficient({ reduction: "token-sum" });

const add = (a: Float32Array, b: Float32Array): Float32Array => a.map((x, i) => x + b[i]!);

describe("accumulate", () => {
  let policy: EnginePolicy;
  let logProbs: Float32Array;
  beforeAll(async () => {
    policy = await tinyPolicy();
    logProbs = Float32Array.from((await policy.score(sequences)).flatMap((s) => [...s]));
  });
  afterAll(() => policy.dispose());
  afterEach(() => policy.step({ learningRate: 0 }));

  const batch = (): TrainBatch => ({
    sequences,
    advantages,
    completionMask: Uint8Array.from({ length: N }, (_, i) => Number(i % 7 !== 3)),
    teacherLogProbs: add(logProbs, wave(1, 0.4)),
    oldLogProbs: add(logProbs, wave(2, 0.2)),
    refLogProbs: add(logProbs, wave(3, 0.3)),
  });

  test.each([
    ["rlsd", rlsd({ creditMix: 0.7, klCoef: 0.05 })],
    ["dapo", dapo({ clipHigh: 0.1 })],
    ["grpo", grpo({ klCoef: 0.1 })],
  ])("gives what policyLoss gives for the scored log-probs: %s", async (_, objective) => {
    const b = batch();
    const result = await policy.accumulate(b, objective, { lossScale: 3 });
    const cuSeqlens = ids(0, 5, 6, 15, 15, 19, 26);
    const { sequences: __, teacherLogProbs, ...rest } = b;
    const teacher = { logProbs: teacherLogProbs! };
    const wanted = policyLossSync({ ...rest, student: { logProbs }, teacher, cuSeqlens }, objective, { lossScale: 3 });
    expect(relativeError(result.gradient.logProbs, wanted.gradient.logProbs)).toBeLessThan(2e-5);
    expect(relativeError(result.tokenAdvantages, wanted.tokenAdvantages)).toBeLessThan(2e-5);
    expect(relativeError(result.evidenceWeights!, wanted.evidenceWeights!)).toBeLessThan(2e-5);
    expect(result.loss).toBeCloseTo(wanted.loss, 5);
    const { entropyMean, ...stats } = result.stats;
    expect(Object.keys(stats)).toEqual(Object.keys(wanted.stats));
    expect(entropyMean).toBeGreaterThan(0.1);
    expect(entropyMean).toBeLessThan(Math.log(37));
  });

  test("log-probs are those of scoring, bit for bit, and 0 where masked", async () => {
    const { logProbs: actual } = await policy.accumulate(batch(), grpo());
    expect(actual).toEqual(logProbs.map((p, i) => (i % 7 === 3 ? 0 : p)));
  });

  test("a batch larger than one pass gives the same loss and gradient from several", async () => {
    const small = await tinyPolicy({}, { batchTokens: 16 });
    const objective = rlsd({ creditMix: 0.7, klCoef: 0.05, reduction: "token-mean" });
    const one = await policy.accumulate(batch(), objective);
    const several = await small.accumulate(batch(), objective);
    expect(several.logProbs).toEqual(one.logProbs);
    expect(several.gradient.logProbs).toEqual(one.gradient.logProbs);
    for (const [name, value] of Object.entries(one.stats)) {
      expect([name, several.stats[name as keyof typeof one.stats]]).toEqual([name, expect.closeTo(value, 6)]);
    }
    expect(relativeError(await gradientOf(small), await gradientOf(policy))).toBeLessThan(2e-5);
    await small.dispose();
  });

  test("an entropy bonus in a batch larger than one pass is refused, with the way out", async () => {
    const small = await tinyPolicy({}, { batchTokens: 16 });
    await expect(small.accumulate(batch(), grpo({ entropyCoef: 0.01, klCoef: 0 }))).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED",
      message: expect.stringContaining("raise batchTokens"),
    });
    await small.dispose();
  });

  test("parts with the whole batch's normalizer add up to the whole", async () => {
    const { teacherLogProbs: _, refLogProbs: __, ...b } = batch();
    await policy.accumulate(b, grpo({ reduction: "token-mean" }));
    const whole = await gradientOf(policy);
    await policy.step({ learningRate: 0 });
    const tokens = b.completionMask!.reduce((total, m) => total + m, 0);
    const shared = grpo({ reduction: "token-mean", normalizer: tokens });
    for (const [from, to, first, last] of [
      [0, 2, 0, 6],
      [2, 6, 6, 26],
    ] as const) {
      const part = {
        sequences: sequences.slice(from, to),
        advantages: advantages.slice(from, to),
        completionMask: b.completionMask!.slice(first, last),
        oldLogProbs: b.oldLogProbs!.slice(first, last),
      };
      await policy.accumulate(part, shared);
    }
    expect(relativeError(await gradientOf(policy), whole)).toBeLessThan(2e-5);
  });

  test("the bits of a gradient do not depend on the threads", async () => {
    const wanted: Float32Array[] = [];
    for (const threads of [1, 2, 5]) {
      const other = await tinyPolicy({}, { threads });
      await other.accumulate(batch(), rlsd({ creditMix: 0.5 }));
      wanted.push(await gradientOf(other));
      await other.dispose();
    }
    expect(wanted[1]).toEqual(wanted[0]);
    expect(wanted[2]).toEqual(wanted[0]);
  });

  test("what the caller changes after the call does not reach it", async () => {
    const b = { ...batch(), advantages: advantages.slice() };
    const calm = await policy.accumulate(b, grpo());
    const promise = policy.accumulate(b, grpo());
    b.oldLogProbs!.fill(0);
    b.advantages.fill(9);
    expect((await promise).gradient.logProbs).toEqual(calm.gradient.logProbs);
  });

  test("a batch without tokens or sequences has loss 0 and no gradient", async () => {
    const none = await policy.accumulate({ sequences: [], advantages: new Float32Array(0) }, grpo());
    expect([none.loss, none.stats.tokens]).toEqual([0, 0]);
    const empty = { sequences: [sequences[3]!], advantages: Float32Array.of(1) };
    expect((await policy.accumulate(empty, grpo())).loss).toBe(0);
    expect((await gradientOf(policy)).every((g) => g === 0)).toBe(true);
  });

  test("a failed call clears the accumulated gradient and says what failed", async () => {
    await policy.accumulate(batch(), grpo());
    const bad = { ...batch(), oldLogProbs: wave(0, 1).fill(Number.NaN, 4, 5) };
    await expect(policy.accumulate(bad, grpo())).rejects.toMatchObject({ code: "ERR_RLSD_NON_FINITE", index: 4 });
    expect((await gradientOf(policy)).every((g) => g === 0)).toBe(true);
  });

  test("an abort rejects with the signal's reason and clears the accumulated gradient", async () => {
    const reason = new Error("changed my mind");
    const many = Array.from({ length: 4000 }, (_, i) => sequences[i % 3]!);
    let outcome: unknown;
    // A busy machine may let the call end before this thread gets to abort it.
    for (let attempt = 0; attempt < 20 && outcome === undefined; attempt++) {
      const controller = new AbortController();
      const call = policy.accumulate({ sequences: many, advantages: new Float32Array(4000).fill(1) }, grpo(), {
        signal: controller.signal,
      });
      setTimeout(() => controller.abort(reason), 5);
      outcome = await call.then(
        () => undefined,
        (error) => error,
      );
    }
    expect(outcome).toBe(reason);
    expect((await gradientOf(policy)).every((g) => g === 0)).toBe(true);
  });

  test.each([
    [{ advantages: new Float32Array(5) }, /Float32Array of 6 or 26 for batch.advantages/],
    [{ oldLogProbs: new Float32Array(3) }, /batch.oldLogProbs/],
    [{ spanMask: new Float32Array(26) }, /Uint8Array of 26 for batch.spanMask/],
    [{ contrastLogProbs: new Float32Array(26), teacherLogProbs: undefined }, /teacherLogProbs/],
    [{ teacherLogprobs: new Float32Array(26) }, /Did you mean teacherLogProbs\?/],
  ])("a malformed batch is refused by name: %#", async (change, message) => {
    const call = policy.accumulate({ ...batch(), ...change } as TrainBatch, grpo());
    await expect(call).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringMatching(message),
    });
  });

  test("a KL term without reference log-probs is refused", async () => {
    const { refLogProbs: _, ...rest } = batch();
    await expect(policy.accumulate(rest, grpo({ klCoef: 0.1 }))).rejects.toThrow(/refLogProbs/);
  });
});

/** Central differences of sum over tokens of c log P, one random direction a parameter. */
describe.each<[string, Partial<NewModelConfig>]>([
  ["llama with biases everywhere", { attentionBias: true, mlpBias: true }],
  [
    "llama 3 rotary scaling, tied head",
    {
      tieEmbeddings: true,
      rope: { type: "llama3", theta: 500, factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxLength: 16 },
    },
  ],
  ["qwen3 with a head width of its own", { modelType: "qwen3", headDim: 10, numHeads: 3, numKvHeads: 1 }],
  ["a window in one layer of two", { ...WINDOWED, slidingWindow: { size: 20, layers: [true, false] } }],
  ["olmo2 with biases", { ...OLMO2, attentionBias: true }],
  ["olmo3", { ...OLMO3, slidingWindow: { size: 20, layers: [true, false] } }],
  ["granite with biases everywhere", { ...GRANITE, attentionBias: true, mlpBias: true }],
  ["phi3", { ...PHI3, slidingWindow: { size: 20 } }],
  ["yarn", { rope: { type: "yarn", theta: 100, factor: 4, originalMaxLength: 40 } }],
  ["gemma3", { ...GEMMA, slidingWindow: { size: 20, layers: [true, false] } }],
  [
    "one query head a key head, linear rotary scaling",
    { numKvHeads: 4, rope: { type: "linear", theta: 100, factor: 2 } },
  ],
])("the gradient of each parameter agrees with finite differences: %s", (_, config) => {
  test("in a random direction", async () => {
    const policy = await tinyPolicy({ maxLength: 160, ...config }, { deviation: 0.3 });
    const long: ScoreRequest[] = [
      { prompt: ids(1, 2), completion: Int32Array.from({ length: 90 }, (_v, i) => (i * i + 3) % 37) },
      ...sequences,
    ];
    const c = Float32Array.from({ length: 116 }, (_v, i) => Math.cos(i) / 20);
    await policy.accumulate({ sequences: long, advantages: c }, nll);
    const value = async (): Promise<number> =>
      (await policy.score(long)).flatMap((s) => [...s]).reduce((total, p, i) => total + p * c[i]!, 0);
    for (const [k, name] of policy.parameterNames.entries()) {
      const gradient = await policy.readParameter(name, "gradient");
      const weights = await policy.readParameter(name);
      const direction = weights.map((_w, i) => Math.sin(3.1 * i + k) + 0.3);
      const norm = Math.sqrt(direction.reduce((a, b) => a + b * b, 0));
      const h = 3e-3;
      const shifted = async (sign: number): Promise<number> => {
        await policy.writeParameter(
          name,
          weights.map((w, i) => w + (sign * h * direction[i]!) / norm),
        );
        return value();
      };
      const difference = ((await shifted(1)) - (await shifted(-1))) / (2 * h);
      await policy.writeParameter(name, weights);
      const directional = gradient.reduce((total, g, i) => total + g * direction[i]!, 0) / norm;
      const scale = Math.sqrt(gradient.reduce((a, g) => a + g * g, 0));
      expect({ name, error: Math.abs(difference - directional) / (scale + 1e-3) < 1e-2 }).toEqual({
        name,
        error: true,
      });
    }
    await policy.dispose();
  });
});

describe("step", () => {
  test("is AdamW with decoupled decay on matrices alone, clipped by the global norm", async () => {
    const policy = await tinyPolicy();
    const names = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.input_layernorm.weight"];
    const weights = await Promise.all(names.map((name) => policy.readParameter(name)));
    const state = names.map((_, i) => ({ w: Array.from(weights[i]!), m: [] as number[], v: [] as number[] }));
    for (let t = 1; t <= 3; t++) {
      await policy.accumulate({ sequences, advantages: wave(t, 1) }, nll);
      const g = await Promise.all(names.map((name) => policy.readParameter(name, "gradient")));
      const all = await gradientOf(policy);
      const norm = Math.sqrt(all.reduce((a, x) => a + x * x, 0));
      const o = { learningRate: 0.01, weightDecay: 0.1, betas: [0.9, 0.95] as const, eps: 1e-8, maxGradientNorm: 0.5 };
      const result = await policy.step(o);
      expect(result.skipped).toBe(false);
      expect(result.gradientNorm / norm).toBeCloseTo(1, 5);
      const scale = Math.min(1, 0.5 / (norm + 1e-6));
      for (const [k, s] of state.entries()) {
        for (let i = 0; i < s.w.length; i++) {
          const gi = g[k]![i]! * scale;
          s.m[i] = 0.9 * (s.m[i] ?? 0) + 0.1 * gi;
          s.v[i] = 0.95 * (s.v[i] ?? 0) + 0.05 * gi * gi;
          const decay = k === 0 ? 0.1 : 0;
          const update = s.m[i]! / (1 - 0.9 ** t) / (Math.sqrt(s.v[i]! / (1 - 0.95 ** t)) + 1e-8);
          s.w[i] = s.w[i]! * (1 - 0.01 * decay) - 0.01 * update;
        }
        expect(relativeError(await policy.readParameter(names[k]!), s.w)).toBeLessThan(1e-5);
      }
    }
    await policy.dispose();
  });

  test("a norm that is not finite changes no weight and is reported", async () => {
    const policy = await tinyPolicy();
    const name = "lm_head.weight";
    const before = await policy.readParameter(name);
    await policy.accumulate({ sequences, advantages: wave(1, 1) }, nll, { lossScale: 3e38 });
    await policy.accumulate({ sequences, advantages: wave(1, 1) }, nll, { lossScale: 3e38 });
    const result = await policy.step({ learningRate: 0.1 });
    expect([result.skipped, Number.isFinite(result.gradientNorm)]).toEqual([true, false]);
    expect(await policy.readParameter(name)).toEqual(before);
    expect((await gradientOf(policy)).every((g) => g === 0)).toBe(true);
    await policy.dispose();
  });

  test("a small model learns a sequence by heart", async () => {
    const policy = await tinyPolicy({}, { deviation: 0.1 });
    const text = { prompt: ids(1), completion: Int32Array.from({ length: 30 }, (_, i) => (i * i) % 31) };
    const batch = { sequences: [text], advantages: new Float32Array(30).fill(-1 / 30) };
    for (let i = 0; i < 120; i++) {
      await policy.accumulate(batch, nll);
      await policy.step({ learningRate: 0.02 });
    }
    const [[c]] = (await policy.generate([text.prompt], { maxTokens: 30, temperature: 0, seed: 0 })) as never as [
      [{ tokenIds: Int32Array }],
    ];
    expect(c.tokenIds).toEqual(text.completion);
    await policy.dispose();
  });
});
