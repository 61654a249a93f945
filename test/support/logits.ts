import { type DType, type Tensor, tensor } from "../../lib/index.js";
import { bf16Bits, bf16Value, f16Bits, f16Value } from "../../lib/rounding.js";

export const dtypes: readonly DType[] = ["f32", "bf16", "f16"];

/** Unit roundoff of a dtype. */
export const roundoff: Readonly<Record<DType, number>> = { f32: 2 ** -24, bf16: 2 ** -8, f16: 2 ** -11 };

const toBits = { bf16: bf16Bits, f16: f16Bits };
const fromBits = { bf16: bf16Value, f16: f16Value };

/** A tensor of the values, rounded to the dtype. */
export function asTensor(values: ArrayLike<number>, shape: readonly number[], dtype: DType = "f32"): Tensor {
  if (dtype === "f32") return tensor(Float32Array.from(values), shape);
  const bits = new Uint16Array(values.length);
  const convert = toBits[dtype];
  for (let i = 0; i < bits.length; i++) bits[i] = convert(values[i]!);
  return tensor(bits, shape, dtype);
}

/** An LM head under which hidden states are the logits. */
export function identity(size: number): Tensor {
  const head = new Float64Array(size * size);
  for (let v = 0; v < size; v++) head[v * size + v] = 1;
  return asTensor(head, [size, size]);
}

/** The numbers that a tensor holds. */
export function valuesOf({ data, dtype }: Tensor): Float64Array {
  if (dtype === "f32") return Float64Array.from(data);
  const values = new Float64Array(data.length);
  const convert = fromBits[dtype];
  for (let i = 0; i < values.length; i++) values[i] = convert(data[i]!);
  return values;
}

// A global's property is looked up through the test's sandbox each time: too slow for a hundred thousand columns.
const { exp, log, max, imul } = Math;

/** Uniform numbers in [0, 1), the same on every machine (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = imul(state ^ (state >>> 15), state | 1);
    t = (t + imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` numbers, roughly normal, of the given spread. */
export function randomLogits(count: number, spread: number, seed: number): Float64Array {
  const next = randomNumbers(seed);
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = (next() + next() + next() - 1.5) * 2 * spread;
  return values;
}

/** log P of the target, the entropy and the probabilities of one row, in float64. */
export function softmaxRow(z: Float64Array, target: number) {
  let highest = Number.NEGATIVE_INFINITY;
  for (const x of z) highest = max(highest, x);
  let sum = 0;
  for (const x of z) sum += exp(x - highest);
  const logSum = highest + log(sum);
  const p = new Float64Array(z.length);
  let entropy = 0;
  for (let v = 0; v < z.length; v++) {
    p[v] = exp(z[v]! - logSum);
    if (p[v]! > 0) entropy -= p[v]! * (z[v]! - logSum);
  }
  return { logProb: z[target]! - logSum, entropy, p };
}
