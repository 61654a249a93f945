import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../lib/policy/config.js";

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
