/**
 * How positions turn into angles: position * theta^(-2 i / headDim) of pair i, as `rope_theta` and `rope_scaling` of config.json
 * say. "linear": divided by `factor`. "llama3": pairs of
 * long waves are (beyond originalMaxLength / lowFreqFactor), those of short ones are not, and between the two they are blended.
 * "yarn" (arXiv 2309.00071): those that turn less than betaSlow times in originalMaxLength are, those that turn more than betaFast
 * times are not, and between the two they are blended; cosines and sines are multiplied by attentionFactor. "longrope" (arXiv
 * 2402.13753): each pair is slowed by a factor of its own, of one list for models that read no more than originalMaxLength.
 */
export type RopeConfig =
  | { readonly type: "default"; readonly theta: number }
  | { readonly type: "linear"; readonly theta: number; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly theta: number;
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      /** Longest sequence before scaling. */
      readonly originalMaxLength: number;
    }
  | {
      readonly type: "yarn";
      readonly theta: number;
      readonly factor: number;
      /** Longest sequence before scaling. */
      readonly originalMaxLength: number;
      /** Default 32. */
      readonly betaFast?: number | undefined;
      /** Default 1. */
      readonly betaSlow?: number | undefined;
      /** Default 0.1 ln(factor) + 1, where factor is above 1. */
      readonly attentionFactor?: number | undefined;
      /** The blend begins and ends at whole pairs. Default true. */
      readonly truncate?: boolean | undefined;
    }
  | {
      readonly type: "longrope";
      readonly theta: number;
      /** Longest sequence before scaling. */
      readonly originalMaxLength: number;
      /** One for each pair. */
      readonly shortFactors: readonly number[];
      readonly longFactors: readonly number[];
      readonly attentionFactor: number;
      /** Longest sequence with longFactors. */
      readonly scaledMaxLength: number;
    };
/** Those of new models: "longrope" is for models that were trained without it. */
export type PlainRope = Exclude<RopeConfig, { readonly type: "longrope" }>;

/** Llama 3.1: long waves are slowed by `factor`, short ones kept, those between blended. */
function scaleLlama3(frequency: number, rope: Extract<RopeConfig, { type: "llama3" }>): number {
  const wavelength = (2 * Math.PI) / frequency;
  const { factor, lowFreqFactor, highFreqFactor, originalMaxLength } = rope;
  if (wavelength < originalMaxLength / highFreqFactor) return frequency;
  if (wavelength > originalMaxLength / lowFreqFactor) return frequency / factor;
  const blend = (originalMaxLength / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - blend) * frequency) / factor + blend * frequency;
}

/** 0.1 scale ln(factor) + 1: how much YaRN sharpens attention. */
export const yarnScale = (factor: number, scale = 1): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);

/** The same for all sequences of a model: a token's row must not depend on what follows it. */
const longFactors = (rope: Extract<RopeConfig, { type: "longrope" }>, maxLength: number): readonly number[] =>
  maxLength > rope.originalMaxLength ? rope.longFactors : rope.shortFactors;

/** YaRN's share of slowing in each pair: 0 where waves are short, 1 where they are long. */
function yarnRamp(rope: Extract<RopeConfig, { type: "yarn" }>, headDim: number): (i: number) => number {
  const { betaFast = 32, betaSlow = 1, truncate = true, originalMaxLength, theta } = rope;
  const pairOf = (turns: number) =>
    (headDim * Math.log(originalMaxLength / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [first, last] = [pairOf(betaFast), pairOf(betaSlow)];
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, headDim - 1);
  const width = low === high ? 0.001 : high - low;
  return (i) => Math.fround(Math.min(1, Math.max(0, (i - low) / width)));
}

/**
 * (headDim / 2): the angle that each pair of a head's dimensions turns per position.
 *
 * @param headDim of those that are rotated
 * @param maxLength the longest sequence, by which "longrope" takes its factors
 */
export function inverseFrequencies(rope: RopeConfig, headDim: number, maxLength: number): Float32Array {
  const ramp = rope.type === "yarn" ? yarnRamp(rope, headDim) : () => 0;
  const factors = rope.type === "longrope" ? longFactors(rope, maxLength) : [];
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = Math.fround(1 / Math.fround(rope.theta ** Math.fround((2 * i) / headDim)));
    if (rope.type === "linear") return frequency / rope.factor;
    if (rope.type === "llama3") return scaleLlama3(frequency, rope);
    if (rope.type === "longrope") return frequency / (factors[i] as number);
    if (rope.type === "yarn") return (frequency / rope.factor) * ramp(i) + frequency * (1 - ramp(i));
    return frequency;
  });
}

/** What multiplies cosines and sines. */
export function rotaryFactor(rope: RopeConfig): number {
  if (rope.type === "longrope") return rope.attentionFactor;
  return rope.type === "yarn" ? (rope.attentionFactor ?? yarnScale(rope.factor)) : 1;
}
