import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EnginePolicy, exportModel, loadPolicy, type NewModelConfig } from "../lib/index.js";
import { runCli } from "./support/cli.js";
import { fixtureWithTokenizer, floatsOf, type GgufFile, modelWithTokenizer, readGguf } from "./support/gguf.js";
import { sameBits } from "./support/safetensors.js";
import { GEMMA, GRANITE, OLMO3 } from "./support/small-policy.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-gguf-"));
const models = join(__dirname, "fixtures/models");

const withTokenizer = (name: string): string => fixtureWithTokenizer(name, folder);

let count = 0;
async function saved(policy: EnginePolicy, dtype?: "q8_0" | "f16" | "bf16"): Promise<GgufFile> {
  const file = join(folder, `saved-${count++}.gguf`);
  await policy.saveGguf(file, { dtype });
  return readGguf(file);
}

const made = modelWithTokenizer;

const tensor = (file: GgufFile, name: string): Float32Array => floatsOf(file.tensors.get(name)!.data);

test("a model without adapters is exported as one GGUF file, and its weights lie there to the bit", async () => {
  const [model, output] = [withTokenizer("qwen3-tied"), join(folder, "whole.gguf")];
  const summary = await exportModel(model, output);
  expect(summary).toMatchObject({ model, folder: output, dtype: "f32", merged: null, notes: [] });
  const file = readGguf(output);
  await using policy = await loadPolicy(model);
  expect(file.tensors.size).toBe(policy.parameterNames.length);
  const names = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.layers.1.self_attn.q_norm.weight": "blk.1.attn_q_norm.weight",
    "model.layers.2.mlp.down_proj.weight": "blk.2.ffn_down.weight",
    "model.layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
  };
  for (const [own, theirs] of Object.entries(names)) {
    expect([own, sameBits(tensor(file, theirs), await policy.readParameter(own))]).toEqual([own, true]);
  }
  expect(Object.fromEntries(file.metadata)).toMatchObject({
    "general.architecture": "qwen3",
    "general.name": "whole",
    "general.file_type": 0,
    "qwen3.block_count": 3,
    "qwen3.context_length": 256,
    "qwen3.attention.head_count": 4,
    "qwen3.attention.head_count_kv": 2,
    "qwen3.attention.key_length": 24,
    "qwen3.rope.freq_base": 1e6,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.add_bos_token": false,
  });
});

test("queries' and keys' rows of a llama lie in pairs that are rotated together", async () => {
  const model = withTokenizer("llama-gqa");
  await using policy = await loadPolicy(model);
  const file = await saved(policy);
  const own = await policy.readParameter("model.layers.1.self_attn.k_proj.weight");
  const theirs = tensor(file, "blk.1.attn_k.weight");
  const [heads, half, columns] = [3, 4, 72];
  for (let head = 0; head < heads; head++) {
    for (let pair = 0; pair < half; pair++) {
      for (const second of [0, 1]) {
        const [from, to] = [head * 8 + second * half + pair, head * 8 + 2 * pair + second];
        expect([...theirs.subarray(to * columns, (to + 1) * columns)]).toEqual([
          ...own.subarray(from * columns, (from + 1) * columns),
        ]);
      }
    }
  }
  expect(
    sameBits(tensor(file, "blk.1.attn_v.weight"), await policy.readParameter("model.layers.1.self_attn.v_proj.weight")),
  ).toBe(true);
});

describe("what each kind of model has of its own", () => {
  test("gemma3: norms with the 1 that they add, queries by the model's divisor, windows", async () => {
    await using policy = await made({ ...GEMMA, headDim: 10, rope: { type: "linear", theta: 1e6, factor: 8 } });
    await policy.writeParameter("model.layers.0.self_attn.q_norm.weight", new Float32Array(10).fill(0.5));
    const file = await saved(policy);
    expect(tensor(file, "blk.0.attn_q_norm.weight")[3]).toBeCloseTo(1.5 * Math.sqrt(10 / 9), 6);
    const weight = await policy.readParameter("model.layers.1.post_feedforward_layernorm.weight");
    expect([...tensor(file, "blk.1.post_ffw_norm.weight")]).toEqual([...weight.map((w) => 1 + w)]);
    expect(Object.fromEntries(file.metadata)).toMatchObject({
      "gemma3.attention.sliding_window": 5,
      "gemma3.attention.sliding_window_pattern": [true, false],
      "gemma3.rope.freq_base_swa": 50,
      "gemma3.rope.scaling.type": "linear",
      "gemma3.rope.scaling.factor": 8,
    });
    expect(file.tensors.has("output.weight")).toBe(false);
  });

  test("olmo2 and olmo3: a head of their own, YaRN where layers do not slide", async () => {
    await using policy = await made({ ...OLMO3, tieEmbeddings: true, localRope: { type: "default", theta: 50 } });
    const file = await saved(policy);
    expect(file.tensors.get("output.weight")!.data.equals(file.tensors.get("token_embd.weight")!.data)).toBe(true);
    expect(Object.fromEntries(file.metadata)).toMatchObject({
      "general.architecture": "olmo2",
      "olmo2.rope.scaling.type": "yarn",
      "olmo2.rope.scaling.original_context_length": 16,
      "olmo2.attention.sliding_window_pattern": [true, false],
    });
    // llama.cpp multiplies by 0.1 ln(factor) + 1 as well.
    expect(file.metadata.get("olmo2.rope.scaling.attn_factor")).toBeCloseTo(1.2 / (1 + 0.1 * Math.log(4)), 6);
  });

  test("granite: its multipliers; llama: Llama 3's scaling as one factor a pair", async () => {
    await using granite = await made(GRANITE);
    const of = (await saved(granite)).metadata;
    expect([of.get("granite.embedding_scale"), of.get("granite.logit_scale")]).toEqual([2, Math.fround(0.7)]);
    const rope = {
      type: "llama3",
      theta: 1e4,
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxLength: 64,
    } as const;
    await using llama = await made({ rope, headDim: 8 });
    const factors = tensor(await saved(llama), "rope_freqs.weight");
    expect([factors[0], factors[3], factors.length]).toEqual([1, 8, 4]);
    expect(factors[1]).toBeGreaterThan(1);
    expect(factors[1]).toBeLessThan(8);
  });

  test("phi3: fused matrices, the factors of both lengths, and no longer a context than its window", async () => {
    const model = withTokenizer("phi3-longrope");
    const { notes } = await exportModel(model, join(folder, "phi.gguf"));
    expect(notes).toEqual([expect.stringMatching(/no sliding window .* 20 tokens, not 512/)]);
    const file = readGguf(join(folder, "phi.gguf"));
    expect([...tensor(file, "rope_factors_long.weight")]).toEqual([2, 5, 9]);
    expect(file.tensors.get("blk.0.attn_qkv.weight")!.shape).toEqual([64, 32]);
    expect(file.tensors.get("blk.0.ffn_up.weight")!.shape).toEqual([48, 32]);
    expect(Object.fromEntries(file.metadata)).toMatchObject({
      "phi3.attention.sliding_window": 20,
      "phi3.context_length": 20,
      "phi3.rope.dimension_count": 6,
      "phi3.rope.scaling.original_context_length": 64,
    });
  });
});

describe("types", () => {
  test("matrices are halved, vectors stay float32", async () => {
    await using policy = await loadPolicy(withTokenizer("qwen2-bias"));
    const file = await saved(policy, "bf16");
    expect(file.metadata.get("general.file_type")).toBe(32);
    for (const [name, { type, shape }] of file.tensors)
      expect([name, type]).toEqual([name, shape.length === 1 ? 0 : 30]);
  });

  test("q8_0 is for rows of whole blocks; other matrices are float16", async () => {
    await using policy = await made({ hiddenSize: 32, intermediateSize: 40, headDim: 8 });
    const file = await saved(policy, "q8_0");
    expect(file.tensors.get("blk.0.ffn_up.weight")!.type).toBe(8);
    expect(file.tensors.get("blk.0.ffn_down.weight")!.type).toBe(1);
    const own = await policy.readParameter("model.layers.0.mlp.up_proj.weight");
    const { data } = file.tensors.get("blk.0.ffn_up.weight")!;
    const most = Math.max(...own.subarray(0, 32).map(Math.abs));
    for (let i = 0; i < 32; i++)
      expect(Math.abs((data.readInt8(2 + i) * most) / 127 - own[i]!)).toBeLessThan(most / 250);
  });

  test("what a type does not have is refused, and nothing is written", async () => {
    await using policy = await made({ hiddenSize: 32, headDim: 8 });
    const name = "model.layers.0.mlp.up_proj.weight";
    const weights = await policy.readParameter(name);
    for (const [value, dtype] of [
      [1e9, "q8_0"],
      [NaN, "q8_0"],
      [1e6, "f16"],
    ] as const) {
      weights[7] = value;
      await policy.writeParameter(name, weights);
      const refused = policy.saveGguf(join(folder, "beyond.gguf"), { dtype });
      await expect(refused).rejects.toMatchObject({
        code: "ERR_RLSD_SAVE",
        message: expect.stringContaining(String(value)),
      });
    }
    expect(readdirSync(folder).filter((file) => file.includes("beyond"))).toEqual([]);
  });
});

describe("what llama.cpp does not compute is refused by name", () => {
  test.each([
    ["qwen3-yarn", /beta_fast 2 and beta_slow 0.5/],
    ["smollm3-nope", /no positions in layer 2/],
    ["olmo2-gqa", /4 heads of 8 beside a hidden size of 16/],
  ])("%s", async (name, message) => {
    const output = join(folder, `refused-${name}.gguf`);
    const refused = exportModel(withTokenizer(name), output);
    await expect(refused).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringMatching(message),
    });
    expect(readdirSync(folder).filter((file) => file.includes(`refused-${name}`))).toEqual([]);
  });

  test.each<[string, Partial<NewModelConfig>, RegExp]>([
    ["biases", { modelType: "qwen3", attentionBias: true }, /attention_bias in a model of type qwen3/],
    [
      "Llama 3's scaling",
      {
        modelType: "qwen3",
        rope: { type: "llama3", theta: 1e4, factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxLength: 64 },
      },
      /"llama3" in a model of type qwen3/,
    ],
    [
      "positions where layers slide",
      { ...GEMMA, localRope: { type: "linear", theta: 50, factor: 2 } },
      /scaled positions \("linear"\) in layers that slide/,
    ],
  ])("%s", async (_, config, message) => {
    await using policy = await made(config);
    await expect(saved(policy)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED_MODEL",
      message: expect.stringMatching(message),
    });
  });
});

describe("rlsd export", () => {
  test("writes a file by its ending, adapters added, and says what is to be known", async () => {
    const model = withTokenizer("mistral-window");
    await using policy = await loadPolicy(model);
    await using adapted = await policy.withLora({ rank: 2, seed: 1 });
    const name = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight";
    await adapted.writeParameter(name, new Float32Array(40).fill(0.25));
    await adapted.save(join(folder, "adapters"));
    await expect(adapted.saveGguf(join(folder, "adapted.gguf"))).rejects.toMatchObject({
      code: "ERR_RLSD_INVALID_ARGUMENT",
    });
    const { status, stdout, stderr } = runCli(["export", "adapters", "merged.gguf"], folder);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(
      /^model .*\nadapters +rank 2 .*\nwritten .*merged.gguf: .* as f32\nnote +llama.cpp computes no sliding window.*\n$/,
    );
    await using whole = await adapted.merge();
    const file = readGguf(join(folder, "merged.gguf"));
    expect(
      sameBits(
        tensor(file, "blk.0.attn_v.weight"),
        await whole.readParameter("model.layers.0.self_attn.v_proj.weight"),
      ),
    ).toBe(true);
  });

  test("leaves a file that is there as it is, and has q8_0 for such files alone", () => {
    const used = join(folder, "used.gguf");
    writeFileSync(used, "mine");
    const refused = runCli(["export", "nothing-there", used], folder);
    expect([refused.status, refused.stderr]).toEqual([
      1,
      expect.stringMatching(/used.gguf is there already: expected a new file/),
    ]);
    expect(readFileSync(used, "utf8")).toBe("mine");
    const plain = runCli(["export", join(models, "qwen3-tied"), "plain", "--dtype", "q8_0"], folder);
    expect(plain.stderr).toMatch(/Expected "f32", "bf16" or "f16" for dtype/);
  });

  test("leaves nothing where it is stopped", async () => {
    const control = new AbortController();
    const reason = new Error("enough");
    const onStage = (stage: string) => void (stage === "writing" && control.abort(reason));
    const output = join(folder, "stopped.gguf");
    await expect(exportModel(withTokenizer("qwen3-tied"), output, { signal: control.signal, onStage })).rejects.toBe(
      reason,
    );
    expect(readdirSync(folder).filter((name) => name.includes("stopped"))).toEqual([]);
  });
});
