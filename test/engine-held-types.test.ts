import { cpSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  type EnginePolicy,
  grpo,
  loadPolicy,
  type NewModelConfig,
  type Objective,
  RlsdError,
  type TrainBatch,
} from "../lib/index.js";
import { allOf } from "./support/lora.js";
import { type HostTensor, readTensors, sameBits, writeTensors } from "./support/safetensors.js";
import { GEMMA, GRANITE, OLMO2, PHI3, prompts, TINY, temporaryFolder, tinyPolicy } from "./support/small-policy.js";

const WIDE: Partial<NewModelConfig> = { hiddenSize: 48, intermediateSize: 96, vocabSize: 301 };
const STEP = { learningRate: 1e-2, weightDecay: 0.1 };

/** A model in a 16-bit type, and the same weights as float32: folders. */
async function twins(dtype: "bf16" | "f16", config: Partial<NewModelConfig> = WIDE) {
  const narrow = join(temporaryFolder(), dtype);
  await using policy = await tinyPolicy(config);
  await policy.save(narrow, { dtype });
  const wide = join(temporaryFolder(), "f32");
  await using read = await loadPolicy(narrow);
  await read.save(wide);
  return { narrow, wide };
}

const vocab = WIDE.vocabSize as number;
const sequences = prompts(5, vocab).map((prompt, i) => ({ prompt, completion: Int32Array.of(i, 7, 9, 2 * i) }));
const batch = { sequences, advantages: Float32Array.of(1, -1, 0.5, -0.5, 2) };

/** Everything that a policy computes from its weights, and what training makes of them. */
async function everything(policy: EnginePolicy): Promise<Float32Array[]> {
  const logits = await policy.logits(Int32Array.of(1, 2, 3, 4, 5));
  const scores = await policy.score(sequences);
  const drawn = await policy.generate(prompts(3, vocab), { maxTokens: 6, count: 2, seed: 3 });
  const tokens = drawn.flat().map(({ tokenIds }) => Float32Array.from(tokenIds));
  const drawnLogProbs = drawn.flat().map(({ logProbs }) => logProbs);
  await policy.accumulate(batch, grpo());
  const gradients = await allOf(policy, "gradient");
  await policy.step(STEP);
  return [logits, ...scores, ...tokens, ...drawnLogProbs, ...gradients, ...(await policy.score(sequences))];
}

const alike = (a: readonly Float32Array[], b: readonly Float32Array[]): boolean =>
  a.length === b.length && a.every((values, i) => sameBits(values, b[i] as Float32Array));

/** Bytes of the weights alone: nothing was computed yet. */
async function weightBytes(directory: string): Promise<number> {
  await using policy = await loadPolicy(directory);
  return policy.memoryBytes();
}

describe.each([
  ["bf16", "llama", WIDE],
  ["f16", "llama", WIDE],
  ["bf16", "gemma3", { ...WIDE, ...GEMMA }],
  ["bf16", "olmo2", { ...WIDE, ...OLMO2 }],
  ["f16", "granite", { ...WIDE, ...GRANITE }],
  ["bf16", "phi3", { ...WIDE, ...PHI3 }],
] as const)("a checkpoint in %s: %s", (dtype, _, config) => {
  let folders: { narrow: string; wide: string };
  beforeAll(async () => {
    folders = await twins(dtype, config);
  });
  const load = () => Promise.all([loadPolicy(folders.narrow), loadPolicy(folders.wide)]);

  test("is held in half the memory, and computes and learns the same bits", async () => {
    const [narrow, wide] = await load();
    expect([await narrow.heldType(), await wide.heldType()]).toEqual([dtype, "f32"]);
    const [less, more] = [await narrow.memoryBytes(), await wide.memoryBytes()];
    expect(less / more).toBeGreaterThan(0.49);
    expect(less / more).toBeLessThan(0.52);
    expect(alike(await everything(narrow), await everything(wide))).toBe(true);
    expect((await narrow.memoryBytes()) / (await wide.memoryBytes())).toBeCloseTo(1, 3);
    expect(await narrow.heldType()).toBe("f32");
    await Promise.all([narrow.dispose(), wide.dispose()]);
  });

  test("is saved as it was, to the byte, and in every other type as from float32", async () => {
    const [narrow, wide] = await load();
    for (const type of ["f32", "bf16", "f16"] as const) {
      const [a, b] = [join(temporaryFolder(), "a"), join(temporaryFolder(), "b")];
      await narrow.save(a, { dtype: type });
      await wide.save(b, { dtype: type });
      const bytes = (folder: string) => readFileSync(join(folder, "model.safetensors"));
      expect(bytes(a).equals(bytes(b))).toBe(true);
      if (type === dtype) expect(bytes(a).equals(bytes(folders.narrow))).toBe(true);
    }
    await Promise.all([narrow.dispose(), wide.dispose()]);
  });

  test("stays so under adapters, which learn the same bits, and merges to the same weights", async () => {
    const results = await Promise.all(
      (await load()).map(async (model) => {
        const policy = await model.withLora({ rank: 3, seed: 5 });
        await model.dispose();
        const before = await policy.memoryBytes();
        const learned = await everything(policy);
        await using base = await policy.base();
        await using merged = await policy.merge();
        const outputs = [...learned, ...(await base.score(sequences)), ...(await merged.score(sequences))];
        await policy.dispose();
        return { before, outputs };
      }),
    );
    expect(alike(results[0]!.outputs, results[1]!.outputs)).toBe(true);
    expect(results[0]!.before).toBeLessThan(0.65 * results[1]!.before);
  });

  test("is copied as it is held; an average or a written parameter makes it float32", async () => {
    const [narrow, wide] = await load();
    const held = await narrow.memoryBytes();
    const [copy, wideCopy] = [await narrow.snapshot(), await wide.snapshot()];
    expect(await copy.memoryBytes()).toBeLessThan(1.01 * held);
    const moved = await tinyPolicy(config, { seed: 12 });
    for (const policy of [copy, wideCopy]) await policy.copyFrom(moved, 0.25);
    expect(alike(await copy.score(sequences), await wideCopy.score(sequences))).toBe(true);
    await copy.copyFrom(narrow, 0.5);
    await wideCopy.copyFrom(wide, 0.5);
    expect(alike(await copy.score(sequences), await wideCopy.score(sequences))).toBe(true);
    await copy.copyFrom(narrow);
    expect(alike(await copy.score(sequences), await narrow.score(sequences))).toBe(true);
    const name = "model.norm.weight"; // held as float32, but no longer what the files' type has
    const values = (await narrow.readParameter(name)).map((value) => value + 1e-7);
    for (const policy of [narrow, wide]) await policy.writeParameter(name, values);
    expect(sameBits(await narrow.readParameter(name), values)).toBe(true);
    expect(await narrow.heldType()).toBe("f32");
    expect(alike(await narrow.score(sequences), await wide.score(sequences))).toBe(true);
    await Promise.all([narrow, wide, copy, wideCopy, moved].map((policy) => policy.dispose()));
  });

  test("teaches by its whole distributions as the float32 one does", async () => {
    const gradients = await Promise.all(
      (await load()).map(async (teacher) => {
        await using student = await tinyPolicy(WIDE, { seed: 12 });
        await student.distill({ sequences, teacher, teacherSequences: sequences }, { divergence: "forward-kl" });
        await teacher.dispose();
        return await allOf(student, "gradient");
      }),
    );
    expect(gradients[0]!.some((values) => values.some((value) => value !== 0))).toBe(true);
    expect(alike(gradients[0]!, gradients[1]!)).toBe(true);
  });
});

/** The same numbers as bfloat16, which they must be. */
const bfloat16 = ({ shape, data }: HostTensor): HostTensor => {
  const bits = new Uint32Array(Float32Array.from(data).buffer);
  return { dtype: "BF16", shape, data: Uint16Array.from(bits, (word) => word >>> 16) } as unknown as HostTensor;
};

test("tensors of several types are held as float32: nothing is rounded", async () => {
  const { wide } = await twins("bf16", { ...WIDE, attentionBias: true });
  const mixed = join(temporaryFolder(), "mixed");
  cpSync(wide, mixed, { recursive: true });
  const tensors = readTensors(join(wide, "model.safetensors"));
  const retyped = [...tensors].map(([name, t]) => [name, t.shape.length > 1 ? bfloat16(t) : t] as const);
  writeTensors(join(mixed, "model.safetensors"), new Map(retyped));
  await using own = await loadPolicy(mixed);
  await using other = await loadPolicy(wide);
  expect(await own.heldType()).toBe("f32");
  expect(alike(await everything(own), await everything(other))).toBe(true);
});

test.each([
  ["f16", 70_000, '"bf16" or "f32"'],
  ["bf16", 3.4e38, '"f32"'],
] as const)("a weight that %s would make infinite is no save: %d", async (dtype, value, mend) => {
  const name = "model.layers.1.mlp.up_proj.weight";
  await using policy = await tinyPolicy();
  const weights = await policy.readParameter(name);
  const folder = join(temporaryFolder(), "saved");
  // What is infinite already loses nothing.
  await policy.writeParameter(name, Float32Array.from(weights).fill(Number.NEGATIVE_INFINITY, 3, 4));
  await policy.save(folder, { dtype });
  const before = readFileSync(join(folder, "model.safetensors"));
  await policy.writeParameter(name, Float32Array.from(weights).fill(-value, 7, 8));
  await expect(policy.save(folder, { dtype })).rejects.toMatchObject({
    code: "ERR_RLSD_SAVE",
    message: `tensor "${name}" holds ${Math.fround(-value)}, which is beyond the largest number of ${dtype} and would be saved as infinity: expected ${mend} for dtype.`,
  });
  expect(readFileSync(join(folder, "model.safetensors")).equals(before)).toBe(true);
  expect(readdirSync(dirname(folder))).toEqual(["saved"]);
});

test("where the float32 weights do not fit, training is refused and the policy goes on", async () => {
  const { narrow } = await twins("bf16", { ...TINY, hiddenSize: 128, intermediateSize: 1024, vocabSize: 8000 });
  const held = await weightBytes(narrow);
  await using policy = await loadPolicy(narrow, { memoryLimit: Math.round(2.5 * held) });
  const sequence = { prompt: Int32Array.of(1), completion: Int32Array.of(2) };
  const training = policy.accumulate({ sequences: [sequence], advantages: Float32Array.of(1) }, grpo());
  await expect(training).rejects.toMatchObject({
    code: "ERR_RLSD_OUT_OF_MEMORY",
    message: expect.stringContaining("float32"),
  });
  expect(await policy.memoryBytes()).toBeLessThan(1.5 * held);
  expect((await policy.score([sequence]))[0]!.length).toBe(1);
});

test.each<[string, Partial<TrainBatch>, Objective, number]>([
  ["an advantage", { advantages: Float32Array.of(1, -1, 0.5, Number.NaN, 2) }, grpo(), 512],
  ["a mask", { completionMask: new Uint8Array(20).fill(2, 4, 5) }, grpo(), 512],
  ["an entropy bonus in two passes", {}, grpo({ entropyCoef: 0.1 }), 16],
])("%s that is refused changes neither how the weights are held nor what memory they take", async (...row) => {
  const [, change, objective, batchTokens] = row;
  const { narrow } = await twins("bf16");
  await using policy = await loadPolicy(narrow, { batchTokens });
  const held = await policy.memoryBytes();
  await expect(policy.accumulate({ ...batch, ...change }, objective)).rejects.toThrow(RlsdError);
  expect(await policy.heldType()).toBe("bf16");
  expect(await policy.memoryBytes()).toBeLessThan(1.1 * held);
  // What is accepted afterwards is what it would have been.
  await using other = await loadPolicy(narrow, { batchTokens });
  const results = [await policy.accumulate(batch, grpo()), await other.accumulate(batch, grpo())];
  expect(results[0]).toEqual(results[1]);
  expect(alike(await allOf(policy, "gradient"), await allOf(other, "gradient"))).toBe(true);
});

test("weights that fit as float32 without their gradient stay as they are held", async () => {
  const { narrow } = await twins("bf16", { ...TINY, hiddenSize: 128, intermediateSize: 1024, vocabSize: 8000 });
  const held = await weightBytes(narrow);
  await using policy = await loadPolicy(narrow, { memoryLimit: Math.round(3.6 * held) });
  const sequence = { prompt: Int32Array.of(1), completion: Int32Array.of(2) };
  const training = policy.accumulate({ sequences: [sequence], advantages: Float32Array.of(1) }, grpo());
  await expect(training).rejects.toMatchObject({
    code: "ERR_RLSD_OUT_OF_MEMORY",
    message: expect.stringMatching(/^The weights as float32, .* and their gradient need \d+ bytes; \d+ may be used/),
  });
  expect(await policy.heldType()).toBe("bf16");
});
