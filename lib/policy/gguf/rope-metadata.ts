import { f32, string, u32, type Value } from "../../gguf/write.js";
import type { ModelConfig } from "../config.js";
import { inverseFrequencies, type RopeConfig, rotaryFactor, yarnScale } from "../rope.js";
import { GGUF_ARCHITECTURES } from "./architectures.js";

/** A tensor of the file that is no parameter. */
export interface ExtraTensor {
  readonly name: string;
  readonly values: Float32Array;
}

interface RopeMetadata {
  /** Without the architecture's name before them. */
  readonly entries: readonly (readonly [key: string, value: Value])[];
  readonly extras: readonly ExtraTensor[];
}

/** How llama.cpp calls what slows positions pair by pair. */
export const ROPE_FACTORS = "rope_freqs.weight";
export const LONG_FACTORS = "rope_factors_long.weight";
export const SHORT_FACTORS = "rope_factors_short.weight";

type Yarn = Extract<RopeConfig, { type: "yarn" }>;

function yarnFault(
  { betaFast = 32, betaSlow = 1, truncate = true, ...rope }: Yarn,
  c: ModelConfig,
): string | undefined {
  if (betaFast !== 32 || betaSlow !== 1) {
    return `YaRN with beta_fast ${betaFast} and beta_slow ${betaSlow}: llama.cpp has 32 and 1`;
  }
  if (!truncate) return "YaRN without truncate";
  const sharper = (rope.attentionFactor ?? yarnScale(rope.factor)) !== yarnScale(rope.factor);
  // It multiplies cosines and sines of layers that slide too.
  return sharper && c.modelType === "gemma3_text" ? "an attention_factor of its own in a gemma3" : undefined;
}

/** What llama.cpp cannot compute of a model's positions; undefined: nothing. */
export function ropeFault(c: ModelConfig): string | undefined {
  const { rope, localRope } = c;
  if (localRope !== undefined && localRope.type !== "default") {
    return `scaled positions ("${localRope.type}") in layers that slide`;
  }
  if (c.modelType === "olmo3" && localRope !== undefined && localRope.theta !== rope.theta) {
    return `rope_theta ${localRope.theta} in layers that slide and ${rope.theta} in the others`;
  }
  if (rope.type === "llama3" && !GGUF_ARCHITECTURES[c.modelType].ropeFactors) {
    return `positions scaled by "llama3" in a model of type ${c.modelType}`;
  }
  return rope.type === "yarn" ? yarnFault(rope, c) : undefined;
}

/** How many times slower each pair turns than without scaling. */
function slowing(c: ModelConfig): Float32Array {
  const plain = inverseFrequencies({ type: "default", theta: c.rope.theta }, c.headDim, c.maxLength);
  const scaled = inverseFrequencies(c.rope, c.headDim, c.maxLength);
  return plain.map((frequency, i) => frequency / (scaled[i] as number));
}

function scalingOf(c: ModelConfig): RopeMetadata {
  const { rope } = c;
  const scaling = (type: string, factor: number): [string, Value][] => [
    ["rope.scaling.type", string(type)],
    ["rope.scaling.factor", f32(factor)],
  ];
  if (rope.type === "linear") return { entries: scaling("linear", rope.factor), extras: [] };
  if (rope.type === "llama3") return { entries: [], extras: [{ name: ROPE_FACTORS, values: slowing(c) }] };
  if (rope.type === "default") return { entries: [], extras: [] };
  const original: [string, Value] = ["rope.scaling.original_context_length", u32(rope.originalMaxLength)];
  const factor = rotaryFactor(rope);
  if (rope.type === "longrope") {
    const extras = [
      { name: LONG_FACTORS, values: Float32Array.from(rope.longFactors) },
      { name: SHORT_FACTORS, values: Float32Array.from(rope.shortFactors) },
    ];
    return { entries: [original, ["rope.scaling.attn_factor", f32(factor)]], extras };
  }
  // llama.cpp multiplies by YaRN's own factor too.
  const own = factor / yarnScale(rope.factor);
  const sharper: [string, Value][] = own === 1 ? [] : [["rope.scaling.attn_factor", f32(own)]];
  return {
    entries: [...scaling("yarn", rope.factor), original, ...sharper],
    extras: [],
  };
}

export function ropeMetadata(c: ModelConfig): RopeMetadata {
  const { entries, extras } = scalingOf(c);
  const local: [string, Value][] =
    c.modelType === "gemma3_text" && c.localRope !== undefined ? [["rope.freq_base_swa", f32(c.localRope.theta)]] : [];
  return {
    entries: [
      ["rope.dimension_count", u32(c.rotaryDim ?? c.headDim)],
      ["rope.freq_base", f32(c.rope.theta)],
      ...local,
      ...entries,
    ],
    extras,
  };
}
