/**
 * Conversions between float32 and the 16-bit formats, round to nearest, ties to even.
 * bf16: 1 sign, 8 exponent, 7 mantissa bits. f16 (IEEE binary16): 1, 5, 10.
 */
const word = new DataView(new ArrayBuffer(4));

function floatBits(x: number): number {
  word.setFloat32(0, x);
  return word.getUint32(0);
}

/** The 16 bits of x (first rounded to float32) as bf16. NaN stays a quiet NaN; beyond the range: infinity. */
export function bf16Bits(x: number): number {
  const bits = floatBits(x);
  if (Number.isNaN(x)) return (bits >>> 16) | 0x0040;
  const lowestKept = (bits >>> 16) & 1;
  return ((bits + 0x7fff + lowestKept) >>> 16) & 0xffff;
}

/** The number that 16 bits of bf16 stand for. */
export function bf16Value(bits: number): number {
  word.setUint32(0, (bits << 16) >>> 0);
  return word.getFloat32(0);
}

export const roundToBf16 = (x: number): number => bf16Value(bf16Bits(x));

/** x / step rounded to the nearest integer, ties to even. Exact: step is a power of two. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest < 0.5) return floor;
  return rest > 0.5 || floor % 2 === 1 ? floor + 1 : floor;
}

/** The 16 bits of x (first rounded to float32) as f16. NaN stays a quiet NaN; from 65520 on: infinity. */
export function f16Bits(x: number): number {
  const sign = floatBits(x) >>> 31 === 1 ? 0x8000 : 0;
  if (Number.isNaN(x)) return sign | 0x7e00;
  const size = Math.abs(Math.fround(x));
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  // In units of the last mantissa bit; a normal number has 1024 of them below its own exponent's range.
  const units = roundHalfEven(size / 2 ** (exponent - 10));
  return sign | (units + (exponent + 14) * 1024);
}

/** The number that 16 bits of f16 stand for. */
export function f16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0x1f) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

let table: Float32Array | undefined;

/** All numbers of f16, by their bits. */
export function f16Values(): Float32Array {
  table ??= Float32Array.from({ length: 65536 }, (_, bits) => f16Value(bits));
  return table;
}
