import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EnginePolicy, loadPolicy, type NewModelConfig } from "../lib/index.js";
import { fixtureWithTokenizer, modelWithTokenizer } from "./support/gguf.js";
import { sameBits } from "./support/safetensors.js";
import { GEMMA, GRANITE } from "./support/small-policy.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-gguf-read-"));
const models = join(__dirname, "fixtures/models");
const bpe = join(models, "tokenizer-bpe");
const ids = Int32Array.from({ length: 30 }, (_, i) => (7 * i + 3) % 37);

const prepared = (name: string): string => fixtureWithTokenizer(name, folder);

let count = 0;
/** The same model, read from a file that it was written to. */
async function readBack(policy: EnginePolicy, dtype?: "bf16" | "f16" | "q8_0"): Promise<EnginePolicy> {
  const file = join(folder, `read-${count++}.gguf`);
  await policy.saveGguf(file, { dtype });
  return loadPolicy(file);
}

const made = modelWithTokenizer;

async function differing(a: EnginePolicy, b: EnginePolicy): Promise<string[]> {
  expect(b.parameterNames).toEqual(a.parameterNames);
  const out: string[] = [];
  for (const name of a.parameterNames) {
    if (!sameBits(await a.readParameter(name), await b.readParameter(name))) out.push(name);
  }
  return out;
}

test.each(["llama-gqa", "qwen2-bias", "qwen3-tied", "qwen3-tied-bf16", "granite-tied"])(
  "%s comes back to the bit, and computes the same bits",
  async (name) => {
    await using policy = await loadPolicy(prepared(name));
    await using again = await readBack(policy);
    expect(await differing(policy, again)).toEqual([]);
    expect({ ...again.config, maxLength: 0 }).toEqual({ ...policy.config, maxLength: 0 });
    expect(sameBits(await again.logits(ids), await policy.logits(ids))).toBe(true);
  },
);

const yarn = { type: "yarn", theta: 1e4, factor: 4, originalMaxLength: 16, attentionFactor: 1.4 } as const;
const llama3 = {
  type: "llama3",
  theta: 1e4,
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalMaxLength: 48,
} as const;

test.each<[string, Partial<NewModelConfig>]>([
  ["a llama with biases and a head of its own", { attentionBias: true, mlpBias: true, tieEmbeddings: false }],
  ["a llama with Llama 3's scaling", { rope: llama3, headDim: 16 }],
  ["a llama with linear scaling", { rope: { type: "linear", theta: 1e4, factor: 3 } }],
  ["a qwen3 with YaRN", { modelType: "qwen3", rope: yarn, headDim: 32 }],
  ["a smollm3", { modelType: "smollm3", numLayers: 4, noRopeInterval: 4 }],
  ["an olmo2", { modelType: "olmo2", tieEmbeddings: false }],
  [
    "an olmo3",
    {
      modelType: "olmo3",
      tieEmbeddings: false,
      rope: yarn,
      localRope: { type: "default", theta: 1e4 },
      slidingWindow: { size: 5, layers: [true, false] },
    },
  ],
  ["a granite", GRANITE],
  ["a phi3 that is rotated in part", { modelType: "phi3", headDim: 6, rotaryDim: 4 }],
])("%s comes back to the bit, with its positions", async (_, config) => {
  await using policy = await made(config);
  for (const name of policy.parameterNames.filter((one) => one.includes("norm"))) {
    const weights = await policy.readParameter(name);
    await policy.writeParameter(
      name,
      weights.map((w, i) => w + Math.sin(i + name.length) / 4),
    );
  }
  await using again = await readBack(policy);
  expect(await differing(policy, again)).toEqual([]);
  expect(again.config.modelType).toBe(policy.config.modelType);
  expect(sameBits(await again.logits(ids), await policy.logits(ids))).toBe(true);
});

test("a gemma3 comes back with norms whose sum with 1 has the same bits, and so computes the same", async () => {
  await using policy = await made({
    ...GEMMA,
    headDim: 10,
    queryScalar: 10,
    rope: { type: "linear", theta: 1e6, factor: 8 },
  });
  const name = "model.layers.1.post_feedforward_layernorm.weight";
  await policy.writeParameter(
    name,
    (await policy.readParameter(name)).map((_, i) => Math.sin(i) / 3),
  );
  await using again = await readBack(policy);
  expect((await differing(policy, again)).filter((one) => !one.includes("norm"))).toEqual([]);
  expect([...(await again.readParameter(name)).map((w) => 1 + w)]).toEqual([
    ...(await policy.readParameter(name)).map((w) => 1 + w),
  ]);
  expect(again.config).toEqual(policy.config);
  expect(sameBits(await again.logits(ids), await policy.logits(ids))).toBe(true);
});

test("a phi3 with LongRoPE comes back with the factors of both lengths", async () => {
  await using policy = await loadPolicy(prepared("phi3-longrope"));
  await using again = await readBack(policy);
  expect(await differing(policy, again)).toEqual([]);
  const { attentionFactor: own, ...rope } = policy.config.rope as { attentionFactor: number };
  const { attentionFactor: read, ...others } = again.config.rope as { attentionFactor: number };
  expect([Math.fround(read), { ...others, scaledMaxLength: 0 }]).toEqual([
    Math.fround(own),
    { ...rope, scaledMaxLength: 0 },
  ]);
});

test.each(["bf16", "f16"] as const)(
  "matrices in %s are held in it where it has norms and biases too",
  async (dtype) => {
    await using policy = await loadPolicy(prepared("qwen2-bias"));
    await policy.save(join(folder, `plain-${dtype}`), { dtype });
    await using plain = await loadPolicy(join(folder, `plain-${dtype}`));
    await using again = await readBack(plain, dtype);
    expect([await again.heldType(), await differing(plain, again)]).toEqual([dtype, []]);
    await using finer = await readBack(policy, dtype);
    expect(await finer.heldType()).toBe("f32");
    const different = await differing(policy, finer);
    expect(different.filter((name) => /norm|bias/.test(name))).toEqual([]);
    expect((await differing(plain, finer)).filter((name) => !/norm|bias/.test(name))).toEqual([]);
  },
);

test("tokenizer, chat template and end tokens come back", async () => {
  await using policy = await made({});
  await using again = await readBack(policy, "q8_0");
  const { texts } = JSON.parse(readFileSync(join(bpe, "expected.json"), "utf8"));
  expect(again.endTokenIds).toEqual([2]);
  for (const { text } of texts) expect(again.tokenizer!.encode(text)).toEqual(policy.tokenizer!.encode(text));
  expect(texts.length).toBeGreaterThan(3);
});
