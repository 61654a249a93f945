import { RlsdError } from "../../errors.js";
import { bools, f32, string, u32, type Value } from "../../gguf/write.js";
import type { ModelConfig } from "../config.js";
import { GGUF_ARCHITECTURES, gemmaScalar, NO_ROPE_INTERVAL, WINDOW_PATTERNS } from "./architectures.js";
import { type ExtraTensor, ropeFault, ropeMetadata } from "./rope-metadata.js";

/** A model's shape as a GGUF file says it. */
interface ShapeMetadata {
  readonly metadata: ReadonlyMap<string, Value>;
  readonly extras: readonly ExtraTensor[];
  /** What whoever uses the file should know. */
  readonly notes: readonly string[];
}

/** What llama.cpp cannot compute of a model; undefined: nothing. */
function fault(c: ModelConfig): string | undefined {
  const { square, biases } = GGUF_ARCHITECTURES[c.modelType];
  if (square && c.numHeads * c.headDim !== c.hiddenSize) {
    return `${c.numHeads} heads of ${c.headDim} beside a hidden size of ${c.hiddenSize} in a model of type ${c.modelType}`;
  }
  if (c.outputBias && !biases.includes("output")) return `attention_bias in a model of type ${c.modelType}`;
  if (c.mlpBias && !biases.includes("mlp")) return `mlp_bias in a model of type ${c.modelType}`;
  const noRope = c.noRopeInterval ?? Infinity;
  const others = noRope > c.numLayers && NO_ROPE_INTERVAL > c.numLayers;
  if (c.modelType === "smollm3" && noRope !== NO_ROPE_INTERVAL && !others) {
    const found = c.noRopeInterval === undefined ? "positions in every layer" : `no positions in layer ${noRope}`;
    return `${found} of a smollm3: llama.cpp has none in every ${NO_ROPE_INTERVAL}th`;
  }
  return ropeFault(c);
}

function checkExpressed(c: ModelConfig): void {
  const found = fault(c);
  if (found === undefined) return;
  const mend = "export the model as a folder instead (a name that does not end in .gguf)";
  throw new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", `llama.cpp does not compute ${found}: ${mend}.`);
}

const isUsual = ({ modelType }: ModelConfig, layers: readonly boolean[]): boolean => {
  const pattern = WINDOW_PATTERNS[modelType];
  return pattern !== undefined && layers.every((slides, i) => slides === ((i + 1) % pattern !== 0));
};

function windowMetadata(c: ModelConfig): [string, Value][] {
  // Older llama.cpp took one of its own where the file had none, and newer ones take none.
  if (c.modelType === "phi3") return [["attention.sliding_window", u32(c.slidingWindow?.size ?? 0)]];
  if (c.slidingWindow === undefined || !GGUF_ARCHITECTURES[c.modelType].windows) return [];
  const { size, layers } = c.slidingWindow;
  const pattern: [string, Value][] = isUsual(c, layers) ? [] : [["attention.sliding_window_pattern", bools(layers)]];
  return [["attention.sliding_window", u32(size)], ...pattern];
}

function multipliers({ multipliers: m }: ModelConfig): [string, Value][] {
  if (m === undefined) return [];
  return [
    ["attention.scale", f32(m.attention)],
    ["embedding_scale", f32(m.embedding)],
    ["residual_scale", f32(m.residual)],
    ["logit_scale", f32(m.logitsScaling)],
  ];
}

/** Where no window is computed, tokens see those that they should up to its length. */
function contextLength(c: ModelConfig): { length: number; notes: string[] } {
  const most = c.rope.type === "longrope" ? c.rope.scaledMaxLength : c.maxLength;
  const { slidingWindow: window } = c;
  if (window === undefined || GGUF_ARCHITECTURES[c.modelType].windows || window.size >= most) {
    return { length: most, notes: [] };
  }
  const note = `llama.cpp computes no sliding window in a model of type ${c.modelType}: its context length is that of the window, ${window.size} tokens, not ${most}`;
  return { length: window.size, notes: [note] };
}

/** What a gemma3's queries are multiplied by in their norm, so that llama.cpp's divisor of the scores comes to the model's. */
export const queryScale = (c: ModelConfig): number =>
  c.queryScalar === undefined
    ? 1
    : Math.sqrt(gemmaScalar(c.numLayers, c.hiddenSize, c.numHeads, c.headDim) / c.queryScalar);

/**
 * @throws RlsdError ERR_RLSD_UNSUPPORTED_MODEL for what llama.cpp does not compute
 */
export function shapeMetadata(c: ModelConfig): ShapeMetadata {
  checkExpressed(c);
  const { name } = GGUF_ARCHITECTURES[c.modelType];
  const { length, notes } = contextLength(c);
  const rope = ropeMetadata(c);
  const entries: (readonly [string, Value])[] = [
    ["block_count", u32(c.numLayers)],
    ["context_length", u32(length)],
    ["embedding_length", u32(c.hiddenSize)],
    ["feed_forward_length", u32(c.intermediateSize)],
    ["attention.head_count", u32(c.numHeads)],
    ["attention.head_count_kv", u32(c.numKvHeads)],
    ["attention.key_length", u32(c.headDim)],
    ["attention.value_length", u32(c.headDim)],
    ["attention.layer_norm_rms_epsilon", f32(c.normEps)],
    ["vocab_size", u32(c.vocabSize)],
    ...rope.entries,
    ...windowMetadata(c),
    ...multipliers(c),
  ];
  const metadata = new Map([
    ["general.architecture", string(name)],
    ["general.type", string("model")],
    ...entries.map(([key, value]): [string, Value] => [`${name}.${key}`, value]),
  ]);
  return { metadata, extras: rope.extras, notes };
}
