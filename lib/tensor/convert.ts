import { invalid } from "../check.js";
import { f16Bits, f16Values } from "../rounding.js";
import { isTensor, type Tensor } from "./base.js";
import { DTYPES_TEXT, type DType, isDType } from "./dtype.js";
import { empty } from "./tensor.js";

const bitsOf = (data: Float32Array): Uint32Array => new Uint32Array(data.buffer, data.byteOffset, data.length);

/** Exact. */
function widen(from: Uint16Array, dtype: "f16" | "bf16", to: Float32Array): void {
  if (dtype === "f16") {
    const values = f16Values();
    for (let i = 0; i < from.length; i++) to[i] = values[from[i]!]!;
    return;
  }
  const bits = bitsOf(to);
  for (let i = 0; i < from.length; i++) bits[i] = from[i]! << 16;
}

/** To the nearest, ties to even; a NaN stays one, and what is beyond the range is infinite. */
function narrow(from: Float32Array, to: Uint16Array, dtype: "f16" | "bf16"): void {
  if (dtype === "f16") {
    for (let i = 0; i < from.length; i++) to[i] = f16Bits(from[i]!);
    return;
  }
  const bits = bitsOf(from);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]!;
    const none = (b & 0x7fffffff) > 0x7f800000;
    to[i] = none ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
}

/**
 * A new tensor with the same values in another dtype, in the memory of this process: from 16 bits to float32 exactly, to 16
 * bits rounded to the nearest, ties to even.
 *
 * @throws RlsdError ERR_RLSD_DEVICE_TENSOR for a tensor that is on a device: `toHost` first
 */
export function toDType<D extends DType>(t: Tensor, dtype: D): Tensor<D>;
export function toDType(t: Tensor, dtype: DType): Tensor {
  if (!isTensor(t)) throw invalid("a tensor", "t", t);
  if (!isDType(dtype)) throw invalid(DTYPES_TEXT, "dtype", dtype);
  const { data } = t;
  const copy = empty(t.shape, dtype);
  if (t.dtype === dtype) copy.data.set(data);
  else if (t.dtype === "f32") narrow(data as Float32Array, copy.data as Uint16Array, dtype as "f16" | "bf16");
  else if (dtype === "f32") widen(data as Uint16Array, t.dtype, copy.data as Float32Array);
  else return toDType(toDType(t, "f32"), dtype);
  return copy;
}
