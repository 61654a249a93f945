import { ACTIVATIONS, ARCHITECTURES, type Architecture, MODEL_TYPES, type ModelType } from "./architecture.js";
import { Fields } from "./config-fields.js";
import { encodeLora, type LoraConfig } from "./lora.js";
import { type PlainRope, type RopeConfig, rotaryFactor } from "./rope.js";
import { parseLocalRope, parseNoRope, parseRope, parseRotaryDim, ropeFields } from "./rope-fields.js";
import { parseWindow, type SlidingWindow, windowFields } from "./window.js";

/** Numbers that the files of a granite have. */
export interface Multipliers {
  /** Multiplies what enters the first layer. */
  readonly embedding: number;
  /** Multiplies attention's scores. */
  readonly attention: number;
  /** Multiplies what attention and the feed-forward part add to the stream. */
  readonly residual: number;
  /** Divides the logits. */
  readonly logitsScaling: number;
}

/** Shape of a decoder. */
export interface ModelConfig {
  /** `model_type` of config.json. */
  readonly modelType: ModelType;
  /** V: rows of the embedding and of the head. */
  readonly vocabSize: number;
  /** H: numbers that stand for a token between layers. */
  readonly hiddenSize: number;
  /** Width of the feed-forward part. */
  readonly intermediateSize: number;
  readonly numLayers: number;
  /** Query heads of a layer. */
  readonly numHeads: number;
  /** Divides numHeads: each key and value head serves numHeads / numKvHeads queries. */
  readonly numKvHeads: number;
  /** Even, at most 256. */
  readonly headDim: number;
  /** Longest sequence, prompt and completion together. With "longrope" it decides by which factors positions are scaled. */
  readonly maxLength: number;
  /** Added to the mean square under the root of an RMSNorm. */
  readonly normEps: number;
  /** The head is the embedding. */
  readonly tieEmbeddings: boolean;
  /** On q, k and v. */
  readonly qkvBias: boolean;
  /** On attention's output. */
  readonly outputBias: boolean;
  /** On the three matrices of the feed-forward part. */
  readonly mlpBias: boolean;
  /** RMSNorm on queries and keys: on each head, in an olmo2 on all heads together. */
  readonly qkNorm: boolean;
  /** Rotary positions (arXiv 2104.09864). */
  readonly rope: RopeConfig;
  /** gemma3_text and olmo3: of the layers that slide. Absent: `rope`. */
  readonly localRope?: RopeConfig | undefined;
  /** gemma3_text: attention's scores are divided by its square root. Absent: headDim. */
  readonly queryScalar?: number | undefined;
  /** phi3: numbers of each head that are rotated, its first ones. Absent: headDim. */
  readonly rotaryDim?: number | undefined;
  /** granite alone. */
  readonly multipliers?: Multipliers | undefined;
  /** smollm3: every so manieth layer has no rotary positions (NoPE). Absent: all have. */
  readonly noRopeInterval?: number | undefined;
  /** Absent: every layer sees all tokens before its own. */
  readonly slidingWindow?: SlidingWindow | undefined;
  /** Ids that end a completion. */
  readonly endTokenIds: readonly number[];
}

/** Of a model that is made here. */
export interface NewConfig extends ModelConfig {
  readonly rope: PlainRope;
  readonly localRope?: PlainRope | undefined;
}

/** Far beyond any model: each layer has a list of its own before its weights are known to fit. */
export const MOST_LAYERS = 65536;

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

function refuseUnsupported(f: Fields, { activation: [field, name], refused, dropout }: Architecture): void {
  f.only(field, name);
  for (const feature of refused) f.only(feature, false);
  for (const rate of dropout) f.only(rate, 0);
  f.only("quantization_config");
}

const parseMultipliers = (f: Fields): Multipliers => ({
  embedding: f.positive("embedding_multiplier", 1),
  attention: f.positive("attention_multiplier", 1),
  residual: f.positive("residual_multiplier", 1),
  logitsScaling: f.positive("logits_scaling", 1),
});

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

export function modelTypeOf(f: Fields): ModelType {
  const type = f.get("model_type");
  const known = MODEL_TYPES.find((name) => name === type);
  if (known !== undefined) return known;
  const mend =
    f.get("text_config") === undefined ? "" : "; a model that sees images is not one, its language model alone is";
  const expected = `expected one of ${MODEL_TYPES.join(", ")}${mend}`;
  throw f.fail(`model_type ${JSON.stringify(type)} is not supported: ${expected}`);
}

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
  const generationFile = file.replace(/config\.json$/, "generation_config.json");
  const modelType = modelTypeOf(f);
  const architecture = ARCHITECTURES[modelType];
  refuseUnsupported(f, architecture);
  const attentionBias = architecture.attentionBias === "optional" && f.boolean("attention_bias", false);
  const numLayers = layerCount(f);
  const numHeads = f.size("num_attention_heads");
  const hiddenSize = f.size("hidden_size");
  const vocabSize = f.size("vocab_size");
  const noRopeInterval = modelType === "smollm3" ? parseNoRope(f, numLayers) : undefined;
  const slidingWindow = parseWindow(f, modelType, numLayers, noRopeInterval);
  const headDim = f.size("head_dim", architecture.headDim ?? Math.floor(hiddenSize / numHeads));
  const rotaryDim = parseRotaryDim(f, headDim, architecture);
  const shape = { architecture, rotaryDim, maxLength: f.size("max_position_embeddings") };
  const rope = parseRope(f, shape);
  const localRope = parseLocalRope(f, shape);
  const { queryScalar } = architecture;
  const config: ModelConfig = {
    modelType,
    vocabSize,
    hiddenSize,
    intermediateSize: f.size("intermediate_size"),
    numLayers,
    numHeads,
    numKvHeads: f.size("num_key_value_heads", architecture.numKvHeads ?? numHeads),
    headDim,
    maxLength: rope.type === "longrope" ? Math.min(shape.maxLength, rope.originalMaxLength) : shape.maxLength,
    normEps: f.number("rms_norm_eps", architecture.normEps),
    tieEmbeddings: f.boolean("tie_word_embeddings", architecture.tied),
    qkvBias: architecture.attentionBias === "always" || attentionBias,
    outputBias: attentionBias,
    mlpBias: architecture.mlpBias && f.boolean("mlp_bias", false),
    qkNorm: architecture.qkNorm !== "none",
    rope,
    ...(localRope !== undefined && { localRope }),
    ...(queryScalar !== undefined && { queryScalar: f.size("query_pre_attn_scalar", queryScalar) }),
    ...(architecture.partialRotary && { rotaryDim }),
    ...(architecture.multipliers && { multipliers: parseMultipliers(f) }),
    ...(modelType === "smollm3" && { noRopeInterval }),
    ...(slidingWindow !== undefined && { slidingWindow }),
    endTokenIds: endTokens(
      generation.eos_token_id === undefined ? f : new Fields(generation, generationFile),
      vocabSize,
    ),
  };
  checkShape(f, config);
  return config;
}

/** Readers multiply and cut to a whole number. */
function rotaryShare(rotaryDim: number, headDim: number): number {
  const share = rotaryDim / headDim;
  return Math.trunc(headDim * share) === rotaryDim ? share : (rotaryDim + 0.5) / headDim;
}

/** config.json of a model that was made here, in the newer form with the older form's names beside it. */
export function writeConfig(c: NewConfig): Record<string, unknown> {
  const architecture = ARCHITECTURES[c.modelType];
  const [activation, name] = architecture.activation;
  return {
    architectures: [architecture.className],
    attention_bias: architecture.attentionBias === "always" ? undefined : c.outputBias,
    attention_dropout: 0,
    attention_multiplier: c.multipliers?.attention,
    bos_token_id: null, // readers would take those of the published models, which a small vocabulary has not
    pad_token_id: null,
    embedding_multiplier: c.multipliers?.embedding,
    eos_token_id: c.endTokenIds.length === 1 ? c.endTokenIds[0] : [...c.endTokenIds],
    head_dim: c.headDim,
    [activation]: name,
    hidden_size: c.hiddenSize,
    intermediate_size: c.intermediateSize,
    logits_scaling: c.multipliers?.logitsScaling,
    max_position_embeddings: c.maxLength,
    mlp_bias: architecture.mlpBias ? c.mlpBias : undefined,
    model_type: c.modelType,
    num_attention_heads: c.numHeads,
    num_hidden_layers: c.numLayers,
    num_key_value_heads: c.numKvHeads,
    partial_rotary_factor: c.rotaryDim && rotaryShare(c.rotaryDim, c.headDim),
    query_pre_attn_scalar: c.queryScalar,
    residual_multiplier: c.multipliers?.residual,
    rms_norm_eps: c.normEps,
    ...ropeFields(c),
    ...windowFields(c),
    tie_word_embeddings: c.tieEmbeddings,
    vocab_size: c.vocabSize,
  };
}

/** The numbers that csrc/napi/engine_config.cc reads, in its order. */
export function encodeConfig(c: ModelConfig, lora?: LoraConfig): Float64Array {
  const { normOffset, norms, qkNorm, scaledEmbedding, activation, fused } = ARCHITECTURES[c.modelType];
  const { embedding, attention, residual = 1, logitsScaling = 1 } = c.multipliers ?? {};
  return Float64Array.of(
    c.vocabSize,
    c.hiddenSize,
    c.intermediateSize,
    c.numLayers,
    c.numHeads,
    c.numKvHeads,
    c.headDim,
    c.normEps,
    rotaryFactor(c.rope),
    Number(c.tieEmbeddings),
    Number(c.qkvBias),
    Number(c.outputBias),
    Number(c.mlpBias),
    Number(c.qkNorm),
    c.noRopeInterval ?? 0,
    ...encodeLora(lora),
    c.slidingWindow?.size ?? 0,
    normOffset,
    Number(norms !== "before"),
    ACTIVATIONS.indexOf(activation[1]),
    embedding ?? (scaledEmbedding ? Math.sqrt(c.hiddenSize) : 1),
    attention ?? 1 / Math.sqrt(c.queryScalar ?? c.headDim),
    Number(c.localRope !== undefined),
    rotaryFactor(c.localRope ?? c.rope),
    Number(norms !== "behind"),
    Number(qkNorm === "whole"),
    residual,
    1 / logitsScaling,
    c.rotaryDim ?? c.headDim,
    Number(fused),
    ...(c.slidingWindow?.layers ?? []).map(Number),
  );
}
