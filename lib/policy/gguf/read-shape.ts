import { RlsdError } from "../../errors.js";
import { Metadata, near, shortest } from "../../gguf/metadata.js";
import { type FoundTensor, type GgufHeader, readTensor } from "../../gguf/read.js";
import { endTokens } from "../../gguf/text-files.js";
import { ARCHITECTURES, type ModelType } from "../architecture.js";
import { MOST_LAYERS } from "../config.js";
import { inverseFrequencies, yarnScale } from "../rope.js";
import { GGUF_ARCHITECTURES, gemmaScalar, NO_ROPE_INTERVAL, WINDOW_PATTERNS } from "./architectures.js";
import { LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS } from "./rope-metadata.js";

type Json = Readonly<Record<string, unknown>>;

/** A file's metadata of one architecture. */
interface Shape {
  readonly type: ModelType;
  readonly m: Metadata;
  readonly tensors: GgufHeader["tensors"];
  readonly layers: number;
  readonly headDim: number;
}

const MOST = 2 ** 31 - 1;

const unsupported = (file: string, message: string): RlsdError =>
  new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", `${file}: ${message}`);

/** The type of model that an architecture is; of those that have one name, the first, save an olmo2 with windows. */
function typeOf(m: Metadata): ModelType {
  const name = m.text("general.architecture");
  const types = (Object.keys(GGUF_ARCHITECTURES) as ModelType[]).filter(
    (type) => GGUF_ARCHITECTURES[type].name === name,
  );
  const [type] = types;
  if (type === undefined) {
    const known = [...new Set(Object.values(GGUF_ARCHITECTURES).map((one) => one.name))].join(", ");
    throw unsupported(
      m.file,
      `general.architecture ${JSON.stringify(name)} is not supported: expected one of ${known}`,
    );
  }
  return type === "olmo2" && (m.optional("olmo2.attention.sliding_window") ?? 0) > 0 ? "olmo3" : type;
}

/** Values that change the mathematics and are not computed here. */
function refuseOthers({ m, type }: Shape): void {
  const own = ARCHITECTURES[type].multipliers
    ? []
    : ["attention.scale", "embedding_scale", "residual_scale", "logit_scale"];
  const others = ["expert_count", "attention.clamp_kqv", "attn_logit_softcapping", "final_logit_softcapping", ...own];
  for (const key of others) {
    const value = m.get(key) ?? 0;
    if (value !== 0) {
      throw unsupported(m.file, `${GGUF_ARCHITECTURES[type].name}.${key} ${value} is not supported: expected nothing`);
    }
  }
}

function layerTypes({ m, type, layers }: Shape): string[] | undefined {
  if ((m.optional("attention.sliding_window") ?? 0) <= 0) return undefined;
  const key = "attention.sliding_window_pattern";
  const found = m.get(key);
  const period = typeof found === "number" ? found : (WINDOW_PATTERNS[type] ?? 1);
  const usual = Array.from({ length: layers }, (_, i) => (i + 1) % period !== 0);
  const slides = Array.isArray(found) ? found : usual;
  if (slides.length < layers || slides.some((one) => typeof one !== "boolean")) {
    throw m.fail(key, `${layers} times true or false`);
  }
  return slides.slice(0, layers).map((one) => (one ? "sliding_attention" : "full_attention"));
}

function windowJson(shape: Shape): Json {
  const { m, type, layers } = shape;
  const size = m.optional("attention.sliding_window") ?? 0;
  if (WINDOW_PATTERNS[type] !== undefined) {
    const none = new Array<string>(layers).fill("full_attention");
    return { sliding_window: size > 0 ? size : 4096, layer_types: layerTypes(shape) ?? none };
  }
  return type === "phi3" && size > 0 ? { sliding_window: size } : {};
}

/** Far more than any head has pairs. */
const MOST_FACTORS = 65536;

async function floatsOf(tensor: FoundTensor | undefined, file: string): Promise<Float32Array | undefined> {
  if (tensor === undefined) return undefined;
  const count = tensor.shape.reduce((a, b) => a * b, 1);
  if (count > MOST_FACTORS) throw unsupported(file, `factors of ${count} pairs of positions are not supported`);
  return readTensor(file, tensor);
}

/** Llama 3's scaling with the numbers that its makers gave, by the factor of each pair; of which length, a blended pair tells. */
function llama3Json(factors: Float32Array, theta: number, { m, headDim }: Shape): Json {
  const [low, high] = [1, 4];
  const factor = shortest(Math.max(...factors));
  const plain = inverseFrequencies({ type: "default", theta }, headDim, 1);
  const fits = (originalMaxLength: number): boolean => {
    const rope = {
      type: "llama3",
      theta,
      factor,
      lowFreqFactor: low,
      highFreqFactor: high,
      originalMaxLength,
    } as const;
    const scaled = inverseFrequencies(rope, headDim, 1);
    return factors.every((slowing, i) => Math.abs((plain[i] as number) / (scaled[i] as number) / slowing - 1) < 1e-5);
  };
  const blended = factors.findIndex((slowing) => slowing > 1 && slowing < factor * 0.9999);
  const wave = (2 * Math.PI) / (plain[blended] ?? 1);
  const share = (1 / (factors[blended] ?? 1) - 1 / factor) / (1 - 1 / factor);
  const original = [8192, Math.round(wave * (low + share * (high - low)))].find((length) => length > 0 && fits(length));
  if (factors.length === headDim / 2 && original !== undefined) {
    return {
      rope_type: "llama3",
      factor,
      low_freq_factor: low,
      high_freq_factor: high,
      original_max_position_embeddings: original,
    };
  }
  throw unsupported(
    m.file,
    `tensor "${ROPE_FACTORS}" scales positions otherwise than Llama 3.1 does, which alone is read`,
  );
}

function yarnJson({ m }: Shape): Json {
  const factor = m.number("rope.scaling.factor");
  const log = m.optional("rope.scaling.yarn_log_multiplier") ?? 0;
  if (log !== 0) {
    throw unsupported(m.file, `rope.scaling.yarn_log_multiplier ${log} is not supported: expected nothing`);
  }
  const own = m.optional("rope.scaling.attn_factor") ?? 1;
  const said = m.optional("rope.scaling.yarn_attn_factor");
  const sharper = said ?? (own === 1 ? undefined : near(own * yarnScale(factor)));
  const [fast, slow] = [m.optional("rope.scaling.yarn_beta_fast"), m.optional("rope.scaling.yarn_beta_slow")];
  return {
    rope_type: "yarn",
    factor,
    original_max_position_embeddings: m.number("rope.scaling.original_context_length", m.number("context_length")),
    ...(sharper !== undefined && { attention_factor: sharper }),
    ...(fast !== undefined && { beta_fast: fast }),
    ...(slow !== undefined && { beta_slow: slow }),
  };
}

/** What the file says of the scaling of positions. */
async function scalingJson(shape: Shape, theta: number): Promise<Json> {
  const { m, tensors } = shape;
  const factors = await floatsOf(tensors.get(ROPE_FACTORS), m.file);
  if (factors?.some((factor) => factor !== 1)) return llama3Json(factors, theta, shape);
  const long = await floatsOf(tensors.get(LONG_FACTORS), m.file);
  const short = await floatsOf(tensors.get(SHORT_FACTORS), m.file);
  if (long !== undefined && short !== undefined) {
    return {
      rope_type: "longrope",
      long_factor: Array.from(long, shortest),
      short_factor: Array.from(short, shortest),
      original_max_position_embeddings: m.number("rope.scaling.original_context_length"),
      attention_factor: m.number("rope.scaling.attn_factor", 1),
    };
  }
  const type = m.text("rope.scaling.type") ?? "linear";
  if (type === "yarn") return yarnJson(shape);
  const factor = m.optional("rope.scaling.factor") ?? m.optional("rope.scale_linear") ?? 0;
  if (type === "none" || (type === "linear" && (factor === 0 || factor === 1))) return { rope_type: "default" };
  if (type === "linear") return { rope_type: "linear", factor };
  throw unsupported(
    m.file,
    `rope.scaling.type ${JSON.stringify(type)} is not supported: expected none, linear or yarn`,
  );
}

async function ropeJson(shape: Shape): Promise<Json> {
  const { m, type, headDim } = shape;
  const theta = m.number("rope.freq_base", 1e4);
  const rope = { rope_theta: theta, ...(await scalingJson(shape, theta)) };
  const rotated = m.number("rope.dimension_count", headDim);
  // What multiplies it is cut to a whole number.
  const share = rotated === headDim ? {} : { partial_rotary_factor: (rotated + 0.5) / headDim };
  if (ARCHITECTURES[type].localTheta === undefined) return { rope_parameters: { ...rope, ...share }, ...share };
  const local = type === "olmo3" ? theta : m.number("rope.freq_base_swa", ARCHITECTURES[type].localTheta);
  return {
    rope_parameters: { full_attention: rope, sliding_attention: { rope_theta: local, rope_type: "default" } },
    ...share,
  };
}

/** What a phi3's files say beside the scaling of positions too. */
function originalLength({ m, type }: Shape): Json {
  const length = type === "phi3" ? m.optional("rope.scaling.original_context_length") : undefined;
  return length === undefined ? {} : { original_max_position_embeddings: length };
}

function multipliersJson({ m, type, headDim }: Shape): Json {
  if (!ARCHITECTURES[type].multipliers) return {};
  return {
    attention_multiplier: m.optional("attention.scale") || 1 / Math.sqrt(headDim),
    embedding_multiplier: m.optional("embedding_scale") || 1,
    residual_multiplier: m.optional("residual_scale") || 1,
    logits_scaling: m.number("logit_scale"),
  };
}

function biasesJson({ tensors, type }: Shape): Json {
  const { attentionBias, mlpBias } = ARCHITECTURES[type];
  return {
    ...(attentionBias === "optional" && { attention_bias: tensors.has("blk.0.attn_q.bias") }),
    ...(mlpBias && { mlp_bias: tensors.has("blk.0.ffn_up.bias") }),
  };
}

/** What config.json of the same model would say. */
export async function configJson({ metadata, tensors }: GgufHeader, file: string): Promise<Json> {
  const all = new Metadata(metadata, file);
  const type = typeOf(all);
  const m = all.under(GGUF_ARCHITECTURES[type].name);
  const hidden = m.whole("embedding_length", MOST);
  const heads = m.whole("attention.head_count", MOST);
  const layers = m.whole("block_count", MOST_LAYERS);
  const headDim = m.whole("attention.key_length", MOST, Math.max(1, Math.floor(hidden / heads)));
  const shape: Shape = { type, m, tensors, layers, headDim };
  refuseOthers(shape);
  const width = m.number("attention.value_length", headDim);
  if (width !== headDim) {
    throw unsupported(file, `values of ${width} and keys of ${headDim} numbers a head are not supported`);
  }
  const ends = endTokens(all);
  return {
    architectures: [ARCHITECTURES[type].className],
    model_type: type,
    vocab_size: tensors.get("token_embd.weight")?.shape[0] ?? m.number("vocab_size"),
    hidden_size: hidden,
    intermediate_size: m.number("feed_forward_length"),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: m.number("attention.head_count_kv", heads),
    head_dim: headDim,
    max_position_embeddings: m.number("context_length"),
    rms_norm_eps: m.number("attention.layer_norm_rms_epsilon"),
    tie_word_embeddings: !tensors.has("output.weight"),
    bos_token_id: all.optional("tokenizer.ggml.bos_token_id") ?? null,
    eos_token_id: ends.length === 1 ? ends[0] : ends,
    pad_token_id: all.optional("tokenizer.ggml.padding_token_id") ?? null,
    ...biasesJson(shape),
    ...(await ropeJson(shape)),
    ...originalLength(shape),
    ...windowJson(shape),
    ...multipliersJson(shape),
    ...(type === "smollm3" && { no_rope_layer_interval: NO_ROPE_INTERVAL }),
    ...(type === "gemma3_text" && { query_pre_attn_scalar: gemmaScalar(layers, hidden, heads, headDim) }),
  };
}
