import { isDeepStrictEqual } from "node:util";
import { Fields } from "./config-fields.js";
import { encodeLora, type LoraConfig } from "./lora.js";
import type { RopeConfig } from "./rope.js";
import { parseWindow, type SlidingWindow, windowFields } from "./window.js";

export type ModelType = "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3";

/** Shape of a decoder. */
export interface ModelConfig {
  readonly modelType: ModelType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Divides numHeads: each key and value head serves numHeads / numKvHeads queries. */
  readonly numKvHeads: number;
  /** Even, at most 256. */
  readonly headDim: number;
  /** Longest sequence, prompt and completion together. */
  readonly maxLength: number;
  readonly normEps: number;
  /** The head is the embedding. */
  readonly tieEmbeddings: boolean;
  /** On q, k and v. */
  readonly qkvBias: boolean;
  /** On attention's output. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** RMSNorm on each head's queries and keys. */
  readonly qkNorm: boolean;
  readonly rope: RopeConfig;
  /** smollm3: every so manieth layer has no rotary positions (NoPE). Absent: all have. */
  readonly noRopeInterval?: number | undefined;
  /** Absent: every layer sees all tokens before its own. */
  readonly slidingWindow?: SlidingWindow | undefined;
  /** Ids that end a completion. */
  readonly endTokenIds: readonly number[];
}

const MODEL_TYPES: readonly string[] = ["llama", "mistral", "qwen2", "qwen3", "smollm3"];

function parseScaledRope(f: Fields, theta: number, type: unknown, maxLength: number): RopeConfig {
  f.only("partial_rotary_factor", 1);
  if (type === "default") return { type, theta };
  const factor = f.number("factor");
  if (factor <= 0) throw f.fail(`expected a factor above 0 but found ${factor}`);
  if (type === "linear") return { type, theta, factor };
  if (type !== "llama3") {
    throw f.fail(`rope type ${JSON.stringify(type)} is not supported: expected "default", "linear" or "llama3"`);
  }
  return {
    type,
    theta,
    factor,
    lowFreqFactor: f.number("low_freq_factor"),
    highFreqFactor: f.number("high_freq_factor"),
    originalMaxLength: f.size("original_max_position_embeddings", maxLength),
  };
}

const ropeOf = (scaling: Fields, theta: number, maxLength: number): RopeConfig =>
  parseScaledRope(scaling, theta, scaling.get("rope_type") ?? scaling.get("type") ?? "default", maxLength);

/** Layers whose number from 1 on the interval divides have 0, the others 1. */
const ropeLayers = (interval: number, layers: number): number[] =>
  Array.from({ length: layers }, (_, i) => Number((i + 1) % interval !== 0));

/** `no_rope_layers` (0: no positions), else by `no_rope_layer_interval`. Undefined: every layer has positions. */
function parseNoRope(f: Fields, layers: number): number | undefined {
  const interval = f.size("no_rope_layer_interval", 4);
  const listed = f.get("no_rope_layers");
  if (listed === undefined) return interval <= layers ? interval : undefined;
  if (!Array.isArray(listed) || listed.length < layers || listed.some((flag) => flag !== 0 && flag !== 1)) {
    throw f.fail(`expected ${layers} numbers 0 or 1 for no_rope_layers but found ${JSON.stringify(listed)}`);
  }
  const own = listed.slice(0, layers);
  const first = own.indexOf(0);
  if (first < 0) return undefined;
  if (isDeepStrictEqual(own, ropeLayers(first + 1, layers))) return first + 1;
  throw f.fail(`no_rope_layers ${JSON.stringify(listed)} is not supported: expected a 0 for every n-th layer alone`);
}

/** `rope_parameters` (newer files), or `rope_theta` and `rope_scaling` at the top level (older ones). */
function parseRope(f: Fields, maxLength: number, usual: number): RopeConfig {
  const outer = f.object("rope_parameters");
  const newer = outer?.object("full_attention") ?? outer;
  const older = f.object("rope_scaling");
  const theta = newer?.get("rope_theta") === undefined ? f.number("rope_theta", usual) : newer.number("rope_theta");
  if (theta <= 0) throw f.fail(`expected a rope_theta above 0 but found ${theta}`);
  const scaling = newer ?? older;
  if (scaling === undefined) return { type: "default", theta };
  const rope = ropeOf(scaling, theta, maxLength);
  // Readers differ in which of the two they follow: a model must not depend on that.
  if (newer !== undefined && older !== undefined && !isDeepStrictEqual(ropeOf(older, theta, maxLength), rope)) {
    throw f.fail("rope_parameters and rope_scaling say different things: expected one of them, or both alike");
  }
  return rope;
}

/** Far beyond any model: each layer has a list of its own before its weights are known to fit. */
const MOST_LAYERS = 65536;

function layerCount(f: Fields): number {
  const layers = f.size("num_hidden_layers");
  if (layers <= MOST_LAYERS) return layers;
  throw f.fail(`num_hidden_layers ${layers} is not supported: expected at most ${MOST_LAYERS}`);
}

/** A number, a list of them, or nothing. */
function endTokens(f: Fields, vocabSize: number): number[] {
  const value = f.get("eos_token_id") ?? [];
  const ids: readonly unknown[] = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= vocabSize) {
      throw f.fail(`expected eos_token_id in 0 ... ${vocabSize - 1} but found ${JSON.stringify(id)}`);
    }
  }
  return ids as number[];
}

function refuseUnsupported(f: Fields): void {
  f.only("hidden_act", "silu");
  f.only("attention_dropout", 0);
  f.only("quantization_config");
  f.only("partial_rotary_factor", 1);
}

function checkShape(f: Fields, c: ModelConfig): void {
  if (c.numHeads % c.numKvHeads !== 0 || c.numHeads / c.numKvHeads > 64) {
    throw f.fail(
      `expected num_attention_heads (${c.numHeads}) to be 1 to 64 times num_key_value_heads (${c.numKvHeads})`,
    );
  }
  if (c.headDim % 2 !== 0 || c.headDim > 256) {
    throw f.fail(`head_dim ${c.headDim} is not supported: expected an even number of at most 256`);
  }
  if (c.normEps <= 0) throw f.fail(`expected rms_norm_eps above 0 but found ${c.normEps}`);
}

const hasMlpBias = (type: ModelType): boolean => type === "llama" || type === "smollm3";

/**
 * A decoder's shape from the contents of config.json, in its newer or older form. Whatever this engine does not
 * compute is refused by name (ERR_RLSD_UNSUPPORTED_MODEL).
 *
 * @param generation contents of generation_config.json, whose end tokens win
 * @param file what errors call it
 */
export function parseConfig(
  json: Readonly<Record<string, unknown>>,
  generation: Readonly<Record<string, unknown>> = {},
  file = "config.json",
): ModelConfig {
  const f = new Fields(json, file);
  const type = f.get("model_type");
  if (typeof type !== "string" || !MODEL_TYPES.includes(type)) {
    throw f.fail(`model_type ${JSON.stringify(type)} is not supported: expected one of ${MODEL_TYPES.join(", ")}`);
  }
  const modelType = type as ModelType;
  refuseUnsupported(f);
  const mayHaveBiases = modelType === "llama" || modelType === "qwen3" || modelType === "smollm3";
  const attentionBias = mayHaveBiases && f.boolean("attention_bias", false);
  const numLayers = layerCount(f);
  const numHeads = f.size("num_attention_heads");
  const hiddenSize = f.size("hidden_size");
  const vocabSize = f.size("vocab_size");
  const maxLength = f.size("max_position_embeddings");
  const noRopeInterval = modelType === "smollm3" ? parseNoRope(f, numLayers) : undefined;
  const slidingWindow = parseWindow(f, modelType, numLayers, noRopeInterval);
  const config: ModelConfig = {
    modelType,
    vocabSize,
    hiddenSize,
    intermediateSize: f.size("intermediate_size"),
    numLayers,
    numHeads,
    numKvHeads: f.size("num_key_value_heads", numHeads),
    headDim: f.size("head_dim", modelType === "qwen3" ? 128 : Math.floor(hiddenSize / numHeads)),
    maxLength,
    normEps: f.number("rms_norm_eps", 1e-6),
    tieEmbeddings: f.boolean("tie_word_embeddings", modelType === "smollm3"),
    qkvBias: modelType === "qwen2" || attentionBias,
    outputBias: attentionBias,
    mlpBias: hasMlpBias(modelType) && f.boolean("mlp_bias", false),
    qkNorm: modelType === "qwen3",
    rope: parseRope(f, maxLength, modelType === "smollm3" ? 2e6 : 1e4),
    ...(modelType === "smollm3" && { noRopeInterval }),
    ...(slidingWindow !== undefined && { slidingWindow }),
    endTokenIds: endTokens(generation.eos_token_id === undefined ? f : new Fields(generation, file), vocabSize),
  };
  checkShape(f, config);
  return config;
}

const ARCHITECTURES: Readonly<Record<ModelType, string>> = {
  llama: "LlamaForCausalLM",
  mistral: "MistralForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
  smollm3: "SmolLM3ForCausalLM",
};

function ropeParameters(rope: RopeConfig): Record<string, unknown> {
  const base = { rope_theta: rope.theta, rope_type: rope.type };
  if (rope.type === "default") return base;
  if (rope.type === "linear") return { ...base, factor: rope.factor };
  return {
    ...base,
    factor: rope.factor,
    low_freq_factor: rope.lowFreqFactor,
    high_freq_factor: rope.highFreqFactor,
    original_max_position_embeddings: rope.originalMaxLength,
  };
}

/** config.json of a model that was made here, in the newer form with the older form's names beside it. */
export function writeConfig(c: ModelConfig): Record<string, unknown> {
  const rope = ropeParameters(c.rope);
  return {
    architectures: [ARCHITECTURES[c.modelType]],
    attention_bias: c.modelType === "qwen2" ? undefined : c.outputBias,
    attention_dropout: 0,
    eos_token_id: c.endTokenIds.length === 1 ? c.endTokenIds[0] : [...c.endTokenIds],
    head_dim: c.headDim,
    hidden_act: "silu",
    hidden_size: c.hiddenSize,
    intermediate_size: c.intermediateSize,
    max_position_embeddings: c.maxLength,
    mlp_bias: hasMlpBias(c.modelType) ? c.mlpBias : undefined,
    model_type: c.modelType,
    num_attention_heads: c.numHeads,
    num_hidden_layers: c.numLayers,
    num_key_value_heads: c.numKvHeads,
    ...windowFields(c),
    no_rope_layers:
      c.modelType === "smollm3" ? ropeLayers(c.noRopeInterval ?? c.numLayers + 1, c.numLayers) : undefined,
    rms_norm_eps: c.normEps,
    rope_parameters: rope,
    rope_scaling: c.rope.type === "default" ? null : rope,
    rope_theta: c.rope.theta,
    tie_word_embeddings: c.tieEmbeddings,
    vocab_size: c.vocabSize,
  };
}

/** The numbers that csrc/napi/engine.cc reads, in its order. */
export function encodeConfig(c: ModelConfig, lora?: LoraConfig): Float64Array {
  return Float64Array.of(
    c.vocabSize,
    c.hiddenSize,
    c.intermediateSize,
    c.numLayers,
    c.numHeads,
    c.numKvHeads,
    c.headDim,
    c.maxLength,
    c.normEps,
    1,
    Number(c.tieEmbeddings),
    Number(c.qkvBias),
    Number(c.outputBias),
    Number(c.mlpBias),
    Number(c.qkNorm),
    c.noRopeInterval ?? 0,
    ...encodeLora(lora),
    c.slidingWindow?.size ?? 0,
    ...(c.slidingWindow?.layers ?? []).map(Number),
  );
}
