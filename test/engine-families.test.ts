import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../lib/policy/config.js";
import { inverseFrequencies, rotaryFactor } from "../lib/policy/rope.js";

type Json = Record<string, unknown>;
const fixture = (name: string): Json =>
  JSON.parse(readFileSync(join(__dirname, "fixtures/models", name, "config.json"), "utf8")) as Json;

/** What allenai/OLMo-2-0425-1B says. */
const OLMO_2_1B: Json = {
  architectures: ["Olmo2ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  eos_token_id: 100257,
  hidden_act: "silu",
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 8192,
  max_position_embeddings: 4096,
  model_type: "olmo2",
  num_attention_heads: 16,
  num_hidden_layers: 16,
  num_key_value_heads: 16,
  pad_token_id: 100277,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 500000,
  tie_word_embeddings: false,
  torch_dtype: "float32",
  use_cache: false,
  vocab_size: 100352,
};
/** What ibm-granite/granite-3.3-2b-instruct says. */
const GRANITE_2B: Json = {
  architectures: ["GraniteForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  attention_multiplier: 0.015625,
  bos_token_id: 0,
  embedding_multiplier: 12.0,
  eos_token_id: 0,
  hidden_act: "silu",
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 8192,
  logits_scaling: 8.0,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: "granite",
  num_attention_heads: 32,
  num_hidden_layers: 40,
  num_key_value_heads: 8,
  pad_token_id: 0,
  residual_multiplier: 0.22,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000000.0,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 49159,
};

/** What microsoft/Phi-4-mini-instruct says, with its long factors made up. */
const PHI_4_MINI: Json = {
  architectures: ["Phi3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 199999,
  embd_pdrop: 0.0,
  eos_token_id: 199999,
  full_attn_mod: 1,
  hidden_act: "silu",
  hidden_size: 3072,
  initializer_range: 0.02,
  intermediate_size: 8192,
  interpolate_factor: 1,
  lm_head_bias: false,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: "phi3",
  num_attention_heads: 24,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  original_max_position_embeddings: 4096,
  pad_token_id: 199999,
  partial_rotary_factor: 0.75,
  resid_pdrop: 0.0,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    long_factor: Array.from({ length: 48 }, (_, i) => 1 + i),
    short_factor: new Array<number>(48).fill(1),
    type: "longrope",
  },
  rope_theta: 10000.0,
  sliding_window: 262144,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 200064,
};

const refused = (json: Json, message: RegExp): void =>
  expect(() => parseConfig(json)).toThrow(
    expect.objectContaining({ code: "ERR_RLSD_UNSUPPORTED_MODEL", message: expect.stringMatching(message) }),
  );

describe("an olmo2", () => {
  test("as published is understood", () => {
    expect(parseConfig(OLMO_2_1B)).toMatchObject({
      modelType: "olmo2",
      headDim: 128,
      numKvHeads: 16,
      qkNorm: true,
      qkvBias: false,
      tieEmbeddings: false,
      normEps: 1e-6,
      rope: { type: "default", theta: 5e5 },
      endTokenIds: [100257],
    });
  });

  test("has the values that transformers gives to what its file leaves out", () => {
    const { num_key_value_heads: _, rms_norm_eps: __, tie_word_embeddings: ___, rope_theta: ____, ...bare } = OLMO_2_1B;
    expect(parseConfig(bare)).toEqual({
      ...parseConfig(OLMO_2_1B),
      normEps: 1e-5,
      rope: { type: "default", theta: 1e4 },
    });
  });

  test.each<[Json, RegExp]>([
    [{ hidden_act: "gelu" }, /hidden_act "gelu" is not supported/],
    [{ attention_dropout: 0.1 }, /attention_dropout 0.1 is not supported/],
    [
      { layer_types: new Array<string>(16).fill("sliding_attention") },
      /"sliding_attention" is not supported in models of type olmo2/,
    ],
  ])("with %j is refused by name", (change, message) => refused({ ...OLMO_2_1B, ...change }, message));
});

describe("an olmo3", () => {
  /** What allenai/Olmo-3-7B-Think says, but for the list of its layers. */
  const OLMO_3_7B: Json = {
    ...OLMO_2_1B,
    architectures: ["Olmo3ForCausalLM"],
    hidden_size: 4096,
    intermediate_size: 11008,
    max_position_embeddings: 65536,
    model_type: "olmo3",
    num_attention_heads: 32,
    num_hidden_layers: 32,
    num_key_value_heads: 32,
    rope_scaling: {
      attention_factor: 1.2079441541679836,
      beta_fast: 32,
      beta_slow: 1,
      factor: 8.0,
      original_max_position_embeddings: 8192,
      rope_type: "yarn",
    },
    sliding_window: 4096,
  };

  test("as published is understood: three layers of four slide, and those are not scaled", () => {
    const config = parseConfig(OLMO_3_7B);
    expect(config).toMatchObject({
      maxLength: 65536,
      qkNorm: true,
      rope: { type: "yarn", theta: 5e5, factor: 8, originalMaxLength: 8192, attentionFactor: 1.2079441541679836 },
      localRope: { type: "default", theta: 5e5 },
    });
    expect(config.slidingWindow).toEqual({ size: 4096, layers: Array.from({ length: 32 }, (_, i) => i % 4 !== 3) });
  });

  test("says its positions in the newer form or the older, and leaves out what transformers knows", () => {
    const wanted = parseConfig(OLMO_3_7B);
    const { rope_scaling, rope_theta, sliding_window: _, ...rest } = OLMO_3_7B;
    expect(parseConfig({ ...rest, rope_scaling })).toEqual(wanted);
    const rope_parameters = {
      full_attention: { ...(rope_scaling as Json), rope_theta },
      sliding_attention: { rope_type: "default", rope_theta },
    };
    expect(parseConfig({ ...rest, rope_parameters })).toEqual(wanted);
  });

  test.each<[Json, RegExp]>([
    [
      { rope_theta: 1e6 },
      /rope_theta 1000000 may or may not be meant for layers that slide: expected both in rope_par/,
    ],
    [{ sliding_window: 0 }, /for sliding_window but found 0/],
    [{ rope_parameters: { rope_type: "default", rope_theta: 5e5 } }, /rope_type "default" is not supported/],
  ])("with %j is refused by name", (change, message) => refused({ ...OLMO_3_7B, ...change }, message));
});

describe("a granite", () => {
  test("as published is understood, and dropout is left out", () => {
    const config = parseConfig(GRANITE_2B);
    expect(config).toMatchObject({
      modelType: "granite",
      headDim: 64,
      tieEmbeddings: true,
      multipliers: { embedding: 12, attention: 0.015625, residual: 0.22, logitsScaling: 8 },
    });
    expect(parseConfig({ ...GRANITE_2B, attention_dropout: 0.1 })).toEqual(config);
  });

  test("has the values that transformers gives to what its file leaves out", () => {
    const names = ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"];
    const bare = Object.fromEntries(Object.entries(GRANITE_2B).filter(([name]) => !names.includes(name)));
    expect(parseConfig(bare).multipliers).toEqual({ embedding: 1, attention: 1, residual: 1, logitsScaling: 1 });
  });

  test("no other model has multipliers", () => {
    expect(parseConfig({ ...fixture("llama-gqa"), residual_multiplier: 0.2 })).not.toHaveProperty("multipliers");
  });

  test.each<[Json, RegExp]>([
    [{ logits_scaling: 0 }, /a number above 0 for logits_scaling but found 0/],
    [{ residual_multiplier: "1" }, /a number for residual_multiplier but found "1"/],
    [{ model_type: "granitemoe" }, /model_type "granitemoe" is not supported/],
    [{ model_type: "granitemoehybrid" }, /model_type "granitemoehybrid" is not supported/],
  ])("with %j is refused by name", (change, message) => refused({ ...GRANITE_2B, ...change }, message));
});

describe("a phi3", () => {
  test("as published is understood, and reads what it read before its positions were scaled", () => {
    const { rope, ...rest } = parseConfig(PHI_4_MINI);
    expect(rest).toMatchObject({ headDim: 128, rotaryDim: 96, maxLength: 4096, tieEmbeddings: true, qkvBias: false });
    expect(rest.slidingWindow?.size).toBe(262144);
    expect(rope).toMatchObject({ type: "longrope", theta: 1e4, originalMaxLength: 4096, scaledMaxLength: 131072 });
    // As transformers: the root of 1 + ln(131072 / 4096) / ln(4096).
    expect(rotaryFactor(rope)).toBeCloseTo(Math.sqrt(1 + 5 / 12), 12);
  });

  test("says its positions in the newer form or the older, by three names", () => {
    const wanted = parseConfig(PHI_4_MINI);
    const { rope_scaling, rope_theta, partial_rotary_factor, ...rest } = PHI_4_MINI;
    for (const type of ["longrope", "su", "yarn"]) {
      const scaling = { ...(rope_scaling as Json), type: undefined, rope_type: type };
      expect(parseConfig({ ...PHI_4_MINI, rope_scaling: scaling })).toEqual(wanted);
      const newer = { ...scaling, rope_theta, partial_rotary_factor };
      expect(parseConfig({ ...rest, rope_parameters: newer })).toEqual(wanted);
    }
  });

  test("turns by one list or the other, by the longest sequence alone", () => {
    const { rope } = parseConfig(PHI_4_MINI);
    const plain = inverseFrequencies({ type: "default", theta: 1e4 }, 96, 1);
    expect(inverseFrequencies(rope, 96, 4096)).toEqual(plain);
    const long = inverseFrequencies(rope, 96, 4097);
    expect([...long]).toEqual([...plain].map((frequency, i) => Math.fround(frequency / (1 + i))));
  });

  test("without scaling reads all that its file says", () => {
    const plain = parseConfig({ ...PHI_4_MINI, rope_scaling: null, sliding_window: null });
    expect(plain).toMatchObject({ maxLength: 131072, rope: { type: "default", theta: 1e4 } });
    expect(plain.slidingWindow).toBeUndefined();
  });

  const scaled = (change: Json): Json => ({ rope_scaling: { ...(PHI_4_MINI.rope_scaling as Json), ...change } });
  test.each<[Json, RegExp]>([
    [{ resid_pdrop: 0.1 }, /resid_pdrop 0.1 is not supported: expected 0/],
    [{ embd_pdrop: 0.1 }, /embd_pdrop 0.1 is not supported/],
    [{ partial_rotary_factor: 0.51 }, /partial_rotary_factor 0.51 of head_dim 128 is not supported: expected an even/],
    [scaled({ partial_rotary_factor: 0.5 }), /partial_rotary_factor is said to be 0.5 and 0.75/],
    [
      scaled({ type: "linear", factor: 2 }),
      /rope type "linear" is not supported: expected "default", "longrope", "su" or/,
    ],
    [scaled({ short_factor: [1, 2] }), /expected 48 numbers above 0 for short_factor but found \[1,2\]/],
    [scaled({ long_factor: new Array<number>(48).fill(0) }), /expected 48 numbers above 0 for long_factor/],
    [scaled({ original_max_position_embeddings: 8192 }), /8192 here and 4096 beside it/],
    [{ model_type: "phi4mm" }, /model_type "phi4mm" is not supported/],
  ])("with %j is refused by name", (change, message) => refused({ ...PHI_4_MINI, ...change }, message));
});
