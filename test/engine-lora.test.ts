import { type EnginePolicy, type NewModelConfig, rlsd, rowCoefficient, type TrainBatch } from "../lib/index.js";
import { type LoraOptions, targetsOf } from "../lib/policy/lora.js";
import { adapted, allOf, biasedPolicy, chainRule } from "./support/lora.js";
import { relativeError } from "./support/safetensors.js";
import {
  GEMMA,
  GRANITE,
  ids,
  OLMO2,
  OLMO3,
  PHI3,
  prompts,
  sixRequests,
  tinyPolicy,
  WINDOWED,
} from "./support/small-policy.js";

const sequences = sixRequests();
const N = 26;
const batch: TrainBatch = { sequences, advantages: Float32Array.from({ length: N }, (_, i) => Math.sin(1 + 1.7 * i)) };
const nll = rowCoefficient({ reduction: "token-sum" });
const sampling = { maxTokens: 9, seed: 5, count: 3 };
const prompt = ids(3, 14, 15, 9, 26);

const flat = (parts: readonly Float32Array[]): number[] => parts.flatMap((part) => [...part]);
const gradients = async (policy: EnginePolicy): Promise<number[]> => flat(await allOf(policy, "gradient"));

async function disposed(...policies: readonly EnginePolicy[]): Promise<void> {
  for (const policy of policies) await policy.dispose();
}

const KINDS: [string, Partial<NewModelConfig>, LoraOptions, number][] = [
  ["llama, all matrices", {}, { rank: 3, alpha: 4 }, 4 / 3],
  ["llama with biases everywhere", { attentionBias: true, mlpBias: true }, { rank: 1 }, 2],
  [
    "qwen2 with biases, rank-stabilised",
    { modelType: "qwen2" },
    { rank: 4, alpha: 3, rankStabilized: true, targets: ["v_proj", "gate_proj", "k_proj"] },
    1.5,
  ],
  [
    "qwen3, tied, with a head width of its own",
    { modelType: "qwen3", headDim: 10, numHeads: 3, numKvHeads: 1, tieEmbeddings: true },
    { rank: 5, targets: ["q_proj", "o_proj", "up_proj", "down_proj"] },
    2,
  ],
  ["a window in one layer of two", WINDOWED, { rank: 2 }, 2],
  ["gemma3", GEMMA, { rank: 3 }, 2],
  ["olmo2", OLMO2, { rank: 2 }, 2],
  ["olmo3", OLMO3, { rank: 2 }, 2],
  ["granite", GRANITE, { rank: 2 }, 2],
  ["phi3", PHI3, { rank: 2 }, 2],
  ["phi3, some of its matrices", PHI3, { rank: 3, targets: ["gate_up_proj", "o_proj"] }, 2],
];

describe.each(KINDS)("%s", (_, config, options, scale) => {
  let base: EnginePolicy;
  let policy: EnginePolicy;
  let merged: EnginePolicy;
  beforeAll(async () => {
    base = await biasedPolicy(config);
    policy = await adapted(base, options);
    merged = await policy.merge();
  });
  afterEach(() => policy.step({ learningRate: 0 }));
  afterAll(() => disposed(policy, merged, base));

  test("new adapters change no bit", async () => {
    const fresh = await base.withLora(options);
    expect(await fresh.logits(prompt)).toEqual(await base.logits(prompt));
    expect(await fresh.score(sequences)).toEqual(await base.score(sequences));
    expect(await fresh.generate(prompts(3), sampling)).toEqual(await base.generate(prompts(3), sampling));
    await fresh.dispose();
  });

  test("adapters compute what their sum with the weights computes", async () => {
    const logits = await policy.logits(prompt);
    expect(relativeError(logits, await merged.logits(prompt))).toBeLessThan(2e-5);
    expect(relativeError(logits, await base.logits(prompt))).toBeGreaterThan(1e-2);
  });

  test("what sampling reports is what scoring finds, bit for bit, with and without shared prompts", async () => {
    const completions = await policy.generate(prompts(4), sampling);
    const shared = completions.flatMap((group, i) =>
      group.map(({ tokenIds }) => ({ prompt: prompts(4)[i]!, completion: tokenIds })),
    );
    const reported = completions.flat().map(({ logProbs }) => logProbs);
    expect(await policy.score(shared)).toEqual(reported);
    for (const [i, request] of shared.entries()) expect(await policy.score([request])).toEqual([reported[i]]);
    const { logProbs } = await policy.accumulate({ sequences: shared, advantages: new Float32Array(108) }, nll);
    expect([...logProbs]).toEqual(flat(reported));
  });

  test("gradients follow from those of the merged weights by the chain rule", async () => {
    await policy.accumulate(batch, nll);
    await merged.accumulate(batch, nll);
    const rank = options.rank as number;
    const targets = options.targets ?? targetsOf(config.modelType === "phi3");
    expect(policy.parameterNames.length).toBe(2 * 2 * targets.length);
    const errors: Record<string, number> = {};
    for (const name of policy.parameterNames.filter((n) => n.includes(".lora_A."))) {
      const [weight, other] = [name.slice("base_model.model.".length), name.replace("lora_A", "lora_B")];
      const dW = await merged.readParameter(weight.replace(".lora_A", ""), "gradient");
      const [a, b] = [await policy.readParameter(name), await policy.readParameter(other)];
      const { dA, dB } = chainRule(dW, a, b, rank, scale);
      errors[name] = relativeError(await policy.readParameter(name, "gradient"), dA);
      errors[other] = relativeError(await policy.readParameter(other, "gradient"), dB);
    }
    expect(Object.entries(errors).filter(([, error]) => !(error < 5e-5))).toEqual([]);
  });

  test("several passes give the gradient of one", async () => {
    const cut = await biasedPolicy(config, 16);
    const small = await adapted(cut, options);
    const objective = rlsd({ creditMix: 0, klCoef: 0 });
    const one = await policy.accumulate(batch, objective);
    const several = await small.accumulate(batch, objective);
    expect(several.logProbs).toEqual(one.logProbs);
    expect(relativeError(await gradients(small), await gradients(policy))).toBeLessThan(2e-5);
    await disposed(small, cut);
  });
});

describe("training", () => {
  const train = async (policy: EnginePolicy, steps: number): Promise<void> => {
    for (let i = 0; i < steps; i++) {
      await policy.accumulate(batch, nll);
      await policy.step({ learningRate: 0.01, weightDecay: 0.1 });
    }
  };

  test("changes the adapters alone, and what is trained has PEFT's names", async () => {
    const base = await tinyPolicy();
    const before = [await base.logits(prompt), ...(await allOf(base))];
    const policy = await base.withLora({ rank: 2, targets: ["up_proj", "q_proj"] });
    const start = await allOf(policy);
    await train(policy, 2);
    for (const [i, now] of (await allOf(policy)).entries()) expect(now).not.toEqual(start[i]);
    expect([await base.logits(prompt), ...(await allOf(base))]).toEqual(before);
    expect(policy.parameterNames).toEqual(
      [0, 1].flatMap((layer) =>
        ["self_attn.q_proj", "mlp.up_proj"].flatMap((matrix) =>
          ["A", "B"].map((side) => `base_model.model.model.layers.${layer}.${matrix}.lora_${side}.weight`),
        ),
      ),
    );
    const trained = 2 * 2 * (24 + 24 + 24 + 40);
    expect(policy.trainedParameterCount).toBe(trained);
    expect(policy.parameterCount).toBe(base.parameterCount + trained);
    expect([base.trainedParameterCount, base.lora]).toEqual([base.parameterCount, undefined]);
    expect(policy.lora).toEqual({ rank: 2, alpha: 4, rankStabilized: false, targets: ["q_proj", "up_proj"] });
    await disposed(base, policy);
  });

  test("its bits depend neither on the threads nor on adapters that are trained beside", async () => {
    const trained = async (threads: number): Promise<number[]> => {
      const base = await tinyPolicy({}, { threads });
      const policy = await adapted(base, { rank: 3 });
      await train(policy, 2);
      const weights = flat(await allOf(policy));
      await disposed(base, policy);
      return weights;
    };
    const alone = await trained(1);
    expect(await trained(2)).toEqual(alone);
    const base = await tinyPolicy();
    const both = [await adapted(base, { rank: 3 }), await adapted(base, { rank: 4, alpha: 1 })];
    await Promise.all(both.map((policy) => train(policy, 2)));
    expect(flat(await allOf(both[0]!))).toEqual(alone);
    await disposed(base, ...both);
  });

  test("towards the model without them gives gradients by the chain rule, and none to that model", async () => {
    const base = await tinyPolicy();
    const policy = await adapted(base, { rank: 3, alpha: 3 });
    const [teacher, merged] = [await policy.base(), await policy.merge()];
    const o = { divergence: "reverse-kl" } as const;
    const pair = { sequences, teacher, teacherSequences: sequences };
    const { loss } = await policy.distill(pair, o);
    expect(loss).toBeGreaterThan(0.01);
    expect((await merged.distill(pair, o)).loss / loss).toBeCloseTo(1, 4);
    expect((await gradients(teacher)).every((g) => g === 0)).toBe(true);
    const matrix = "model.layers.0.self_attn.v_proj";
    const [a, b] = [`base_model.model.${matrix}.lora_A.weight`, `base_model.model.${matrix}.lora_B.weight`];
    const dW = await merged.readParameter(`${matrix}.weight`, "gradient");
    const { dA, dB } = chainRule(dW, await policy.readParameter(a), await policy.readParameter(b), 3, 1);
    expect(relativeError(await policy.readParameter(a, "gradient"), dA)).toBeLessThan(1e-4);
    expect(relativeError(await policy.readParameter(b, "gradient"), dB)).toBeLessThan(1e-4);
    await disposed(base, policy, teacher, merged);
  });
});

describe("new adapters", () => {
  let base: EnginePolicy;
  beforeAll(async () => {
    base = await tinyPolicy();
  });
  afterAll(() => base.dispose());

  test("are a function of the seed: A even in +-1 / sqrt(inputs), B 0", async () => {
    const weights: Float32Array[][] = [];
    for (const seed of [7, 7, 8, 7 + 2 ** 40]) {
      const policy = await base.withLora({ seed });
      weights.push(await allOf(policy));
      await policy.dispose();
    }
    const [first, again, ...others] = weights as [Float32Array[], Float32Array[], ...Float32Array[][]];
    expect(again).toEqual(first);
    for (const other of others) expect(other[0]).not.toEqual(first[0]);
    for (let i = 0; i < first.length; i += 2) {
      const [a, b] = [first[i]!, first[i + 1]!];
      const bound = 1 / Math.sqrt(a.length / 16);
      const largest = a.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      const square = a.reduce((sum, x) => sum + x * x, 0) / a.length;
      expect(largest).toBeLessThanOrEqual(Math.fround(bound));
      expect(largest).toBeGreaterThan(0.97 * bound);
      // Five standard errors of the mean square of so many uniform numbers.
      expect(Math.abs(square / (bound ** 2 / 3) - 1)).toBeLessThan(5 * Math.sqrt(0.8 / a.length));
      expect(b.every((x) => x === 0)).toBe(true);
    }
    expect(new Set(first.map((a) => a[0])).size).toBe(first.length / 2 + 1); // no two A alike, and 0 of all B
  });

  test.each<[unknown, RegExp]>([
    [{ rank: 0 }, /whole number of at least 1 and at most 65536 for rank but received 0/],
    [{ rank: 1.5 }, /for rank but received 1\.5/],
    [{ rank: 65537 }, /for rank but received 65537/],
    [{ rank: "8" }, /for rank but received "8"/],
    [{ alpha: 0 }, /number above 0 for alpha but received 0/],
    [{ alpha: Number.NaN }, /for alpha but received NaN/],
    [{ alpha: Number.POSITIVE_INFINITY }, /for alpha but received Infinity/],
    [
      { alpha: 1e300 },
      /alpha 1e\+300 with rank 16 scales the adapters by Infinity in float32: expected a scale above 0/,
    ],
    [{ alpha: 1e-50, rankStabilized: true }, /scales the adapters by 0 in float32/],
    [{ targets: [] }, /a list of q_proj, .* for targets/],
    [{ targets: ["q_proj", "lm_head"] }, /a list of q_proj, .* for targets/],
    [{ targets: "q_proj" }, /for targets but received "q_proj"/],
    [{ rankStabilized: 1 }, /for rankStabilized but received 1/],
    [{ seed: -1 }, /for seed but received -1/],
    [{ ranks: 4 }, /Unknown field options\.ranks\. Did you mean rank\?/],
    [null, /an object for options/],
  ])("%j is refused by name", async (options, message) => {
    await expect(base.withLora(options as LoraOptions)).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
      message: expect.stringMatching(message),
    });
  });

  test("are refused on adapters, and without any there is no base and nothing to merge", async () => {
    const policy = await base.withLora();
    await expect(policy.withLora()).rejects.toThrow(/has adapters already: train those, or call merge\(\)/);
    await expect(base.base()).rejects.toThrow(/has no adapters: it is its own base/);
    await expect(base.merge()).rejects.toThrow(/has no adapters/);
    await policy.dispose();
  });
});
