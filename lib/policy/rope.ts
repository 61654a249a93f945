/**
 * How positions turn into angles: position * theta^(-2 i / headDim) of pair i, as `rope_theta` and `rope_scaling` of config.json
 * say. "linear": divided by `factor`. "llama3": pairs of
 * long waves are (beyond originalMaxLength / lowFreqFactor), those of short ones are not, and between the two they are blended.
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
    };

/** Llama 3.1: long waves are slowed by `factor`, short ones kept, those between blended. */
function scaleLlama3(frequency: number, rope: Extract<RopeConfig, { type: "llama3" }>): number {
  const wavelength = (2 * Math.PI) / frequency;
  const { factor, lowFreqFactor, highFreqFactor, originalMaxLength } = rope;
  if (wavelength < originalMaxLength / highFreqFactor) return frequency;
  if (wavelength > originalMaxLength / lowFreqFactor) return frequency / factor;
  const blend = (originalMaxLength / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - blend) * frequency) / factor + blend * frequency;
}

/** (headDim / 2): the angle that each pair of a head's dimensions turns per position. */
export function inverseFrequencies(rope: RopeConfig, headDim: number): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = Math.fround(1 / Math.fround(rope.theta ** Math.fround((2 * i) / headDim)));
    if (rope.type === "linear") return frequency / rope.factor;
    return rope.type === "llama3" ? scaleLlama3(frequency, rope) : frequency;
  });
}
