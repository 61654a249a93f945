import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadPolicy } from "../lib/index.js";
import { parseConfig } from "../lib/policy/config.js";
import { inverseFrequencies } from "../lib/policy/rope.js";
import { ids, temporaryFolder } from "./support/small-policy.js";

const models = join(__dirname, "fixtures/models");
type Json = Record<string, unknown>;
/** What google/gemma-3-1b-it says. */
const GEMMA_1B: Json = {
  architectures: ["Gemma3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0,
  attn_logit_softcapping: null,
  bos_token_id: 2,
  cache_implementation: "hybrid",
  eos_token_id: [1, 106],
  final_logit_softcapping: null,
  head_dim: 256,
  hidden_activation: "gelu_pytorch_tanh",
  hidden_size: 1152,
  initializer_range: 0.02,
  intermediate_size: 6912,
  max_position_embeddings: 32768,
  model_type: "gemma3_text",
  num_attention_heads: 4,
  num_hidden_layers: 26,
  num_key_value_heads: 1,
  pad_token_id: 0,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_local_base_freq: 10000,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: 512,
  sliding_window_pattern: 6,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 262144,
};
const FULL = ["full_attention", "full_attention"];
const configOf = (name: string): Json => JSON.parse(readFileSync(join(models, name, "config.json"), "utf8")) as Json;

/** A fixture's config.json as transformers 4 wrote it. */
function older({ rope_parameters: rope, dtype, ...rest }: Json): Json {
  const { rope_theta, rope_type, ...scaling } = rope as Json;
  return {
    ...rest,
    rope_theta,
    rope_scaling: rope_type === "default" ? null : { type: rope_type, ...scaling },
    torch_dtype: dtype,
    transformers_version: "4.51.0",
  };
}

async function logitsOf(directory: string): Promise<Float32Array> {
  const policy = await loadPolicy(directory);
  const logits = await policy.logits(ids(3, 14, 15, 92, 65));
  await policy.dispose();
  return logits;
}

test.each(["llama-gqa", "qwen2-bias", "qwen3-tied"])(
  "%s loads from the older form too, to the same bits",
  async (name) => {
    const directory = join(temporaryFolder(), "m");
    cpSync(join(models, name), directory, { recursive: true });
    const wanted = await logitsOf(directory);
    writeFileSync(join(directory, "config.json"), JSON.stringify(older(configOf(name))));
    expect(await logitsOf(directory)).toEqual(wanted);
  },
);

test("what older files leave out has the value that transformers gives it", () => {
  const {
    head_dim: _,
    num_key_value_heads: __,
    tie_word_embeddings: ___,
    rope_parameters: ____,
    ...bare
  } = configOf("llama-gqa");
  expect(parseConfig(bare)).toMatchObject({
    headDim: 8,
    numKvHeads: 9,
    tieEmbeddings: false,
    rope: { type: "default", theta: 10000 },
    endTokenIds: [2],
  });
});

test("a mistral without a window is a llama", () => {
  const mistral = parseConfig({
    ...configOf("llama-gqa"),
    model_type: "mistral",
    sliding_window: null,
    head_dim: null,
  });
  expect({ ...mistral, modelType: "llama" }).toEqual(parseConfig(configOf("llama-gqa")));
});

test("generation_config.json's end tokens win, one or many", () => {
  expect(parseConfig(configOf("llama-gqa"), { eos_token_id: [5, 7] }).endTokenIds).toEqual([5, 7]);
  expect(() => parseConfig(configOf("llama-gqa"), { eos_token_id: "x" }, "m/config.json")).toThrow(
    /^m\/generation_config\.json: expected eos_token_id in 0 .* but found "x"$/,
  );
  expect(parseConfig(configOf("llama-gqa"), {}).endTokenIds).toEqual([2]);
});

test("llama 3 scaling: short waves kept, long ones slowed, the rest blended", () => {
  const scaling = {
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const newer = parseConfig({ ...configOf("llama-gqa"), rope_parameters: { rope_theta: 500000, ...scaling } });
  const old = parseConfig({
    ...configOf("llama-gqa"),
    rope_parameters: null,
    rope_theta: 500000,
    rope_scaling: scaling,
  });
  expect(old.rope).toEqual(newer.rope);
  const plain = inverseFrequencies({ type: "default", theta: 500000 }, 128, 64);
  const scaled = inverseFrequencies(newer.rope, 128, 64);
  const ratio = Array.from(scaled, (f, i) => f / plain[i]!);
  const wavelength = Array.from(plain, (f) => (2 * Math.PI) / f);
  for (const [i, w] of wavelength.entries()) {
    if (w < 2048) expect(ratio[i]).toBe(1);
    else if (w > 8192) expect(ratio[i]).toBeCloseTo(1 / 8, 6);
    else {
      const blend = (8192 / w - 1) / 3;
      expect(ratio[i]).toBeCloseTo((1 - blend) / 8 + blend, 6);
    }
  }
  expect(ratio.some((r) => r > 0.13 && r < 0.99)).toBe(true);
});

describe("windows", () => {
  const windowOf = (change: Json): unknown => parseConfig({ ...configOf("llama-gqa"), ...change }).slidingWindow;
  const all = [true, true, true];

  test("of a mistral are in all layers, and 4096 tokens long where nothing is said", () => {
    expect(windowOf({ model_type: "mistral", sliding_window: 512 })).toEqual({ size: 512, layers: all });
    expect(windowOf({ model_type: "mistral" })).toEqual({ size: 4096, layers: all });
    expect(windowOf({ model_type: "mistral", sliding_window: null, layer_types: [...FULL, FULL[0]] })).toBeUndefined();
  });

  test.each(["qwen2", "qwen3"])(
    "of a %s are in the layers that the file names, else above the first so many",
    (type) => {
      const used = { model_type: type, use_sliding_window: true, sliding_window: 9 };
      expect(windowOf({ ...used, use_sliding_window: false, max_window_layers: 0 })).toBeUndefined();
      expect(windowOf({ ...used, sliding_window: null, max_window_layers: 0 })).toBeUndefined();
      expect(windowOf(used)).toBeUndefined(); // 28 layers are below
      expect(windowOf({ ...used, max_window_layers: 1 })).toEqual({ size: 9, layers: [false, true, true] });
      const listed = ["sliding_attention", "full_attention", "sliding_attention"];
      expect(windowOf({ ...used, max_window_layers: 2, layer_types: listed })).toEqual({
        size: 9,
        layers: [true, false, true],
      });
    },
  );

  test("of a smollm3 are in its layers without positions", () => {
    const used = { model_type: "smollm3", use_sliding_window: true, no_rope_layer_interval: 2 };
    expect(windowOf({ ...used, sliding_window: 9 })).toEqual({ size: 9, layers: [false, true, false] });
    expect(windowOf(used)).toBeUndefined();
  });

  test("of a gemma3_text are in five layers of six, or as its pattern or its list says", () => {
    const gemma = { ...GEMMA_1B, num_hidden_layers: 4 };
    const layers = (change: Json) => parseConfig({ ...gemma, ...change }).slidingWindow;
    expect(parseConfig(GEMMA_1B).slidingWindow?.layers.map(Number).join("")).toBe("11111011111011111011111011");
    expect(layers({ sliding_window_pattern: 2 })).toEqual({ size: 512, layers: [true, false, true, false] });
    expect(layers({ sliding_window_pattern: undefined })?.layers).toEqual([true, true, true, true]);
    expect(layers({ sliding_window: undefined })?.size).toBe(4096);
    expect(layers({ sliding_window_pattern: 1 })).toBeUndefined();
    const listed = ["full_attention", "sliding_attention", "full_attention", "full_attention"];
    expect(layers({ layer_types: listed })?.layers).toEqual([false, true, false, false]);
  });

  test("no model has one whose file says nothing", () => {
    for (const name of ["llama-gqa", "qwen2-bias", "qwen3-tied", "smollm3-nope"]) {
      expect(parseConfig(configOf(name))).not.toHaveProperty("slidingWindow");
    }
  });
});

describe("a gemma3_text", () => {
  test("as published is understood", () => {
    expect(parseConfig(GEMMA_1B)).toMatchObject({
      modelType: "gemma3_text",
      headDim: 256,
      tieEmbeddings: true,
      qkNorm: true,
      queryScalar: 256,
      rope: { type: "default", theta: 1e6 },
      localRope: { type: "default", theta: 1e4 },
      endTokenIds: [1, 106],
    });
  });

  test("has the values that transformers gives to what its file leaves out", () => {
    const kept = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"];
    const rest = ["vocab_size", "max_position_embeddings", "sliding_window"];
    const bare = Object.fromEntries([...kept, ...rest].map((name) => [name, GEMMA_1B[name]]));
    expect(parseConfig(bare)).toEqual({ ...parseConfig(GEMMA_1B), numKvHeads: 4, endTokenIds: [] });
  });

  test("says its positions in the newer form or the older, which scales those of layers that see all", () => {
    const newer = parseConfig(configOf("gemma3-window"));
    const { rope_parameters: _, ...rest } = configOf("gemma3-window");
    const scaling = { rope_scaling: { factor: 8, rope_type: "linear" }, rope_theta: 1e6, rope_local_base_freq: 100 };
    expect(parseConfig({ ...rest, ...scaling })).toEqual(newer);
    expect([newer.rope, newer.localRope]).toEqual([
      { type: "linear", theta: 1e6, factor: 8 },
      { type: "default", theta: 100 },
    ]);
  });

  test.each<[Json, RegExp]>([
    [{ attn_logit_softcapping: 50 }, /attn_logit_softcapping 50 is not supported/],
    [{ final_logit_softcapping: 30 }, /final_logit_softcapping 30 is not supported/],
    [{ use_bidirectional_attention: true }, /use_bidirectional_attention true is not supported/],
    [{ hidden_activation: "gelu" }, /hidden_activation "gelu" is not supported: expected "gelu_pytorch_tanh"/],
    [{ query_pre_attn_scalar: 0 }, /query_pre_attn_scalar but found 0/],
    [{ rope_local_base_freq: -1 }, /expected a number above 0 for rope_local_base_freq but found -1/],
    [{ rope_parameters: { rope_type: "default", rope_theta: 1e4 } }, /rope_type "default" is not supported/],
    [
      { rope_parameters: { sliding_attention: { rope_type: "dynamic", factor: 4 } } },
      /rope_parameters: sliding_attention: rope type "dynamic" is not supported/,
    ],
    [
      { model_type: "gemma3", text_config: {} },
      /model_type "gemma3" is not supported: .*gemma3_text; a model that sees images is not one/,
    ],
  ])("with %j is refused by name", (change, message) => {
    expect(() => parseConfig({ ...GEMMA_1B, ...change })).toThrow(
      expect.objectContaining({
        code: "ERR_RLSD_UNSUPPORTED_MODEL",
        message: expect.stringMatching(message),
      }),
    );
  });
});

describe("refused by name", () => {
  const base = configOf("llama-gqa");
  test.each<[string, Json, RegExp]>([
    [
      "two descriptions of the positions that differ",
      { rope_parameters: { rope_type: "default", rope_theta: 10000 }, rope_scaling: { type: "linear", factor: 2 } },
      /rope_parameters and rope_scaling say different things/,
    ],
    [
      "a scaling beside plain positions",
      { rope_parameters: { rope_type: "default", rope_theta: 10000 }, rope_scaling: { type: "dynamic", factor: 2 } },
      /rope type "dynamic" is not supported/,
    ],
    [
      "another architecture",
      { model_type: "gpt_neox" },
      /model_type "gpt_neox" is not supported: expected one of llama/,
    ],
    ["experts", { model_type: "qwen3_moe" }, /qwen3_moe/],
    ["no model_type", { model_type: undefined }, /model_type/],
    ["another activation", { hidden_act: "gelu" }, /hidden_act "gelu" is not supported: expected "silu"/],
    [
      "frequencies that follow the sequence's length",
      { rope_parameters: { rope_type: "dynamic", rope_theta: 1e4, factor: 4 } },
      /rope type "dynamic" is not supported/,
    ],
    [
      "the older form of that",
      { rope_parameters: null, rope_scaling: { type: "dynamic", factor: 4 } },
      /type "dynamic"/,
    ],
    [
      "positions of their own for a llama's sliding layers",
      { rope_parameters: { full_attention: {}, sliding_attention: { rope_type: "default" } } },
      /sliding_attention .* is not supported: expected nothing/,
    ],
    ["partial rotation", { partial_rotary_factor: 0.5 }, /partial_rotary_factor 0.5/],
    ["quantized weights", { quantization_config: { bits: 4 } }, /quantization_config/],
    ["attention dropout", { attention_dropout: 0.1 }, /attention_dropout 0.1/],
    ["a window in a llama", { use_sliding_window: true }, /use_sliding_window true/],
    [
      "a llama's sliding layers",
      { layer_types: [...FULL, "sliding_attention"] },
      /"sliding_attention" is not supported in/,
    ],
    [
      "layers of a kind it does not know",
      { layer_types: [...FULL, "chunked_attention"] },
      /layer_types "chunked_attention"/,
    ],
    ["too few kinds of layers", { layer_types: FULL }, /expected a list of 3 for layer_types/],
    [
      "a mistral whose layers differ",
      { model_type: "mistral", sliding_window: 8, layer_types: [...FULL, "sliding_attention"] },
      /layer_types and sliding_window say different things/,
    ],
    [
      "sliding layers without a window",
      { model_type: "qwen2", sliding_window: 8, layer_types: [...FULL, "sliding_attention"] },
      /layer_types has "sliding_attention": expected use_sliding_window true and a sliding_window/,
    ],
    [
      "a window of no token",
      { model_type: "mistral", sliding_window: 0 },
      /a whole number from 1 to .* for sliding_window but found 0/,
    ],
    [
      "layers without positions that follow no rule",
      { model_type: "smollm3", no_rope_layers: [1, 0, 0] },
      /no_rope_layers \[1,0,0\] is not supported: expected a 0 for every n-th layer alone/,
    ],
    ["too short a list of layers", { model_type: "smollm3", no_rope_layers: [1, 0] }, /expected 3 numbers 0 or 1/],
    ["odd heads", { head_dim: 9 }, /head_dim 9 is not supported: expected an even number/],
    // 2^30 layers ended the process: their lists did not fit.
    ["more layers than any model has", { num_hidden_layers: 2 ** 30 }, /num_hidden_layers 1073741824 is not supported/],
    ["huge heads", { head_dim: 512 }, /head_dim 512/],
    [
      "uneven groups",
      { num_key_value_heads: 2 },
      /num_attention_heads \(9\) to be 1 to 64 times num_key_value_heads \(2\)/,
    ],
    ["a missing size", { hidden_size: undefined }, /a number for hidden_size but found undefined/],
    ["a fractional size", { vocab_size: 19.5 }, /a whole number from 1 to .* for vocab_size but found 19.5/],
    ["a text for a flag", { tie_word_embeddings: "yes" }, /true or false for tie_word_embeddings/],
    ["an end token outside", { eos_token_id: 199 }, /eos_token_id in 0 ... 198 but found 199/],
  ])("%s", (_, change, message) => {
    expect(() => parseConfig({ ...base, ...change }, {}, "somewhere/config.json")).toThrow(
      expect.objectContaining({
        code: "ERR_RLSD_UNSUPPORTED_MODEL",
        message: expect.stringMatching(message),
      }),
    );
  });

  test("errors begin with the file", () => {
    expect(() => parseConfig({}, {}, "somewhere/config.json")).toThrow(/^somewhere\/config\.json: /);
  });
});

test("a smollm3's layers without positions are those of its list, else of its interval", () => {
  const base = { ...configOf("smollm3-nope"), no_rope_layers: undefined };
  const interval = (change: Json) => parseConfig({ ...base, ...change }).noRopeInterval;
  expect(interval({})).toBe(2);
  expect(interval({ no_rope_layer_interval: undefined })).toBe(4);
  expect(interval({ no_rope_layer_interval: 5 })).toBeUndefined();
  expect(interval({ no_rope_layers: [1, 1, 0, 1] })).toBe(3);
  expect(interval({ no_rope_layers: [0, 0, 0, 0, 1] })).toBe(1);
  expect(interval({ no_rope_layers: [1, 1, 1, 1] })).toBeUndefined();
  const bare = { ...base, rope_parameters: undefined, tie_word_embeddings: undefined };
  expect(parseConfig(bare)).toMatchObject({ rope: { type: "default", theta: 2e6 }, tieEmbeddings: true });
  expect(parseConfig(configOf("llama-gqa"))).not.toHaveProperty("noRopeInterval");
});
