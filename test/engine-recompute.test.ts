import { createPolicy, type EnginePolicy, grpo, loadPolicy, type NewModelConfig, rlsd } from "../lib/index.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { train } from "../lib/trainer/train.js";
import { adapted, allOf } from "./support/lora.js";
import { GEMMA, GRANITE, OLMO2, OLMO3, PHI3, sixRequests, TINY, temporaryFolder } from "./support/small-policy.js";

const sequences = sixRequests();
const advantages = Float32Array.of(1, -1, 0.5, 2, -0.25, 0);
const teacherLogProbs = new Float32Array(26).fill(-2);
const batch = { sequences, advantages, teacherLogProbs };
const deep = { ...TINY, numLayers: 5 };

const make = (recompute: boolean, config: Partial<NewModelConfig> = {}, batchTokens?: number): Promise<EnginePolicy> =>
  createPolicy({ ...deep, ...config }, { seed: 11, deviation: 0.4, recompute, batchTokens });

/** Three updates: gradients and weights, every bit. */
async function trained(policy: EnginePolicy): Promise<number[]> {
  const seen: number[] = [];
  const add = async (what: "weights" | "gradient") => {
    for (const part of await allOf(policy, what)) seen.push(...part);
  };
  for (let step = 0; step < 3; step++) {
    const { loss, logProbs } = await policy.accumulate(batch, rlsd());
    seen.push(loss, ...logProbs);
    await add("gradient");
    await policy.step({ learningRate: 1e-2 });
  }
  await add("weights");
  return seen;
}

test.each<[string, Partial<NewModelConfig>, number | undefined]>([
  ["llama", {}, undefined],
  ["biases everywhere", { attentionBias: true, mlpBias: true }, undefined],
  ["qwen3, norms on queries and keys, a tied head", { modelType: "qwen3", tieEmbeddings: true }, undefined],
  ["smollm3, layers without positions", { modelType: "smollm3", noRopeInterval: 2 }, undefined],
  ["mistral, a window", { modelType: "mistral", slidingWindow: { size: 3 } }, undefined],
  ["gemma3, norms after each part too", { ...GEMMA, slidingWindow: { size: 3 } }, undefined],
  ["olmo2, no norms before each part", { ...OLMO2, attentionBias: true }, undefined],
  ["olmo3, positions of their own for layers that slide", { ...OLMO3, slidingWindow: { size: 3 } }, undefined],
  ["granite, parts that are scaled", GRANITE, undefined],
  ["phi3, fused matrices", { ...PHI3, slidingWindow: { size: 3 } }, undefined],
  ["one layer", { numLayers: 1 }, undefined],
  ["several passes", {}, 20],
])("layers that are computed again give the same bits: %s", async (_, config, batchTokens) => {
  await using kept = await make(false, config, batchTokens);
  await using again = await make(true, config, batchTokens);
  expect(await trained(again)).toEqual(await trained(kept));
});

test("and so do completions that share their prompt", async () => {
  const prompt = Int32Array.from({ length: 30 }, (_, i) => (5 * i) % 37);
  const shared = [1, 2, 3].map((n) => ({
    prompt,
    completion: Int32Array.from({ length: 4 + n }, (_, i) => (n * i) % 37),
  }));
  const gradients: Float32Array[][] = [];
  for (const recompute of [false, true]) {
    await using policy = await make(recompute);
    await policy.accumulate({ sequences: shared, advantages: Float32Array.of(1, -1, 0.5) }, grpo());
    gradients.push(await allOf(policy, "gradient"));
  }
  expect(gradients[1]).toEqual(gradients[0]);
});

test("so do those under adapters, which take the option from their model, and a distillation", async () => {
  await using teacher = await make(false, { numLayers: 1 });
  const both: number[][] = [];
  for (const recompute of [false, true]) {
    await using base = await make(recompute);
    await using policy = await adapted(base, { rank: 3 });
    const seen = await trained(policy);
    await policy.distill({ sequences, teacher, teacherSequences: sequences }, { divergence: "jsd" });
    both.push([...seen, ...(await allOf(policy, "gradient")).flatMap((part) => [...part])]);
    expect(policy.activationBytes(100, true)).toBe(base.activationBytes(100, true) + 2 * 4 * 304);
  }
  expect(both[1]).toEqual(both[0]);
});

test("only inputs of layers are kept: more tokens fit at once, and memory says so", async () => {
  const shape = { vocabSize: 40, hiddenSize: 64, numLayers: 24, numHeads: 4, maxLength: 4096 };
  const folder = temporaryFolder();
  await using kept = await createPolicy(shape);
  await kept.save(folder);
  await using again = await loadPolicy(folder, { recompute: true });
  const [most, least] = [kept.activationBytes(1000, true), again.activationBytes(1000, true)];
  expect(again.activationBytes(1000, false)).toBe(kept.activationBytes(1000, false));
  // 24 inputs of 64 floats and one layer's memory, in the place of 24 layers'.
  expect(least).toBeLessThan(most / 5);
  const prompt = Int32Array.from({ length: 2000 }, (_, i) => i % 40);
  const long = { sequences: [{ prompt, completion: Int32Array.of(1, 2) }], advantages: Float32Array.of(1) };
  for (const policy of [kept, again]) await policy.accumulate(long, grpo());
  expect(await again.memoryBytes()).toBeLessThan((await kept.memoryBytes()) / 4);
  await using copy = await again.snapshot();
  expect(copy.activationBytes(1000, true)).toBe(least);
});

test("a run with it is the same run, and its plan takes less memory", async () => {
  const lines: MetricsLine[][] = [];
  for (const recompute of [false, true]) {
    const settings = { ...exampleSettings(), steps: 2, update: { recompute }, output: temporaryFolder() };
    const seen: MetricsLine[] = [];
    await train({ ...settings, eval: { atStart: false, every: 0, limit: 20 } }, { onStep: (line) => seen.push(line) });
    lines.push(seen.map(({ time: _, ...line }) => line as MetricsLine));
  }
  expect(lines[1]).toEqual(lines[0]);
  const plan = async (recompute: boolean) => (await dryRun({ ...exampleSettings(), update: { recompute } })).memory;
  expect((await plan(true)).activations).toBeLessThan((await plan(false)).activations ?? 0);
  const hook = train({ ...exampleSettings(), update: { recompute: true } }, { loadPolicy });
  await expect(hook).rejects.toThrow('"update.recompute" is of the built-in engine');
});

test("what a policy holds at once follows from it, and a wrong option is refused", async () => {
  const large = { vocabSize: 64, hiddenSize: 64, numLayers: 300, numHeads: 4, maxLength: 64 };
  await using kept = await createPolicy(large);
  await using again = await createPolicy(large, { recompute: true });
  expect(kept.batchTokens).toBeLessThan(4000);
  expect(again.batchTokens).toBeGreaterThan(2 * kept.batchTokens);
  const wrong = createPolicy(TINY, { recompute: 1 as never });
  await expect(wrong).rejects.toThrow("Expected a boolean for recompute but received 1");
});
