import {
  type CreateOptions,
  createPolicy,
  type EnginePolicy,
  grpo,
  type NewModelConfig,
  rlsd,
  rowCoefficient,
  type ScoreRequest,
} from "../lib/index.js";
import { randomStream } from "../lib/trainer/random.js";
import { adapted } from "./support/lora.js";
import { relativeError } from "./support/safetensors.js";
import { GEMMA, GRANITE, gradientOf, KINDS, OLMO2, OLMO3, PHI3, WINDOWED } from "./support/small-policy.js";

const random = randomStream(5);
const ids = (n: number) => Int32Array.from({ length: n }, () => Math.floor(random() * 40));
const [long, short, twin] = [ids(20), ids(3), ids(9)];
const requests: ScoreRequest[] = [
  { prompt: long, completion: ids(7) },
  { prompt: long, completion: ids(1) },
  // The same completion twice, and one that goes on from another: every row, and some rows, shared.
  { prompt: long, completion: twin },
  { prompt: long, completion: twin },
  { prompt: long, completion: Int32Array.of(...twin, ...ids(4)) },
  { prompt: long, completion: new Int32Array(0) },
  { prompt: short, completion: ids(5) },
  { prompt: Int32Array.of(...short, 7), completion: ids(5) },
];
const N = requests.reduce((n, { completion }) => n + completion.length, 0);
const advantages = Float32Array.of(1, -1, 0.5, 2, -0.25, 0, 1.5, -2);
const completionMask = Uint8Array.from({ length: N }, (_, i) => Number(i % 6 !== 4));

const tiny = (config: Partial<NewModelConfig> = {}, options: CreateOptions = {}): Promise<EnginePolicy> =>
  createPolicy(
    { vocabSize: 40, hiddenSize: 32, numLayers: 2, numHeads: 4, numKvHeads: 2, maxLength: 64, ...config },
    { seed: 4, deviation: 0.3, ...options },
  );

/** The gradient of every sequence by itself, added up: nothing is shared. */
async function oneByOne(policy: EnginePolicy): Promise<Float32Array> {
  let at = 0;
  for (const [i, request] of requests.entries()) {
    const part = { sequences: [request], advantages: advantages.slice(i, i + 1) };
    const mask = completionMask.slice(at, at + request.completion.length);
    await policy.accumulate({ ...part, completionMask: mask }, grpo({ reduction: "token-sum", klCoef: 0 }));
    at += request.completion.length;
  }
  return gradientOf(policy);
}

const together = async (policy: EnginePolicy): Promise<Float32Array> => {
  const batch = { sequences: requests, advantages, completionMask };
  await policy.accumulate(batch, grpo({ reduction: "token-sum", klCoef: 0 }));
  return gradientOf(policy);
};

test.each(KINDS)(
  "scores of completions that share a prompt are, bit for bit, those of each one alone: %s",
  async (_, c) => {
    await using policy = await tiny(c);
    const all = await policy.score(requests, { temperature: 0.7 });
    for (const [i, request] of requests.entries()) {
      const [alone] = await policy.score([request], { temperature: 0.7 });
      expect([i, ...all[i]!]).toEqual([i, ...alone!]);
    }
  },
);

test.each<[string, Partial<NewModelConfig>]>([
  ["llama", {}],
  ["qwen3, norms on queries and keys, a tied head", { modelType: "qwen3", headDim: 12 }],
  ["biases everywhere", { attentionBias: true, mlpBias: true }],
  ["a window shorter than what is shared", WINDOWED],
  ["gemma3", GEMMA],
  ["olmo2", OLMO2],
  ["olmo3", OLMO3],
  ["granite", GRANITE],
  ["phi3", PHI3],
])("the gradient of completions that share a prompt is the sum of each one's: %s", async (_, config) => {
  await using alone = await tiny(config);
  await using shared = await tiny(config);
  expect(relativeError(await together(shared), await oneByOne(alone))).toBeLessThan(5e-6);
});

test("and so is that of adapters", async () => {
  await using base = await tiny();
  await using alone = await adapted(base, { rank: 3 });
  await using shared = await alone.snapshot();
  expect(relativeError(await together(shared), await oneByOne(alone))).toBeLessThan(5e-6);
});

test.each(KINDS)(
  "log-probs of the loss are those of scoring, and gradients have the same bits on any number of threads: %s",
  async (_, config) => {
    await using one = await tiny(config, { threads: 1 });
    await using more = await tiny(config, { threads: 3 });
    const batch = { sequences: requests, advantages, teacherLogProbs: new Float32Array(N).fill(-2) };
    const result = await one.accumulate(batch, rlsd());
    expect([...result.logProbs]).toEqual((await one.score(requests)).flatMap((row) => [...row]));
    await more.accumulate(batch, rlsd());
    expect(await gradientOf(more)).toEqual(await gradientOf(one));
  },
);

test("what is shared counts once in batchTokens: an entropy bonus, which needs one pass, fits", async () => {
  const sequences = Array.from({ length: 6 }, (_, i) => ({
    prompt: long,
    completion: requests[0]!.completion.map((t) => (t + i) % 40),
  }));
  const batch = { sequences, advantages: Float32Array.of(1, -1, 1, -1, 1, -1) };
  const bonus = grpo({ entropyCoef: 0.01 });
  await using exact = await tiny({}, { batchTokens: 20 + 6 * 6 });
  await exact.accumulate(batch, bonus);
  await using small = await tiny({}, { batchTokens: 20 + 6 * 6 - 1 });
  await expect(small.accumulate(batch, bonus)).rejects.toMatchObject({ code: "ERR_RLSD_UNSUPPORTED" });
  // In several passes each shares what it holds.
  const nll = rowCoefficient({ reduction: "token-sum" });
  await exact.step({ learningRate: 0 });
  for (const policy of [exact, small]) {
    await policy.accumulate({ sequences, advantages: new Float32Array(6 * 7).fill(-1) }, nll);
  }
  expect(relativeError(await gradientOf(small), await gradientOf(exact))).toBeLessThan(5e-6);
});

test("activations are those of the distinct rows", async () => {
  await using policy = await tiny({ maxLength: 2048 });
  const prompt = Int32Array.from({ length: 1000 }, (_, i) => i % 40);
  const sequences = Array.from({ length: 16 }, (_, i) => ({ prompt, completion: Int32Array.of(i, i + 1) }));
  await policy.accumulate({ sequences, advantages: new Float32Array(16).fill(1) }, grpo());
  expect(policy.batchTokens).toBe(8192);
  expect(await policy.memoryBytes()).toBeLessThan(policy.activationBytes(4 * 1000, true));
});

test("a distillation shares the rows of both sides", async () => {
  await using teacher = await tiny({}, { seed: 9 });
  await using alone = await tiny();
  await using shared = await tiny();
  const options = { divergence: "jsd", reduction: "token-sum", normalizer: 1 } as const;
  const hinted = requests.map(({ prompt, completion }) => ({ prompt: Int32Array.of(...prompt, 3, 9), completion }));
  const all = await shared.distill({ sequences: requests, teacher, teacherSequences: hinted }, options);
  const parts: number[] = [];
  for (const [i, request] of requests.entries()) {
    const one = { sequences: [request], teacher, teacherSequences: [hinted[i]!] };
    parts.push(...(await alone.distill(one, options)).tokenLosses);
  }
  expect(relativeError(all.tokenLosses, Float32Array.from(parts))).toBeLessThan(1e-6);
  expect(relativeError(await gradientOf(shared), await gradientOf(alone))).toBeLessThan(5e-6);
});
