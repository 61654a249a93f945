const scratch = new Float32Array(1);
const bits = new Uint32Array(scratch.buffer);

/** A number as float16, to the nearest, ties to even; beyond the largest: infinity. */
export function toHalf(value: number): number {
  scratch[0] = value;
  const word = bits[0] as number;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2^-14 halves are whole multiples of 2^-24: adding 0.5 rounds to those, as float32 does there.
    scratch[0] = Math.abs(value) + 0.5;
    return sign | ((bits[0] as number) - 0x3f000000);
  }
  const odd = (magnitude >>> 13) & 1;
  return sign | ((magnitude + 0xfff + odd - 0x38000000) >>> 13);
}

function fromBits(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(half >>> 10) & 31, half & 1023];
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let table: Float32Array | undefined;

/** All numbers of float16, by their bits. */
export function halves(): Float32Array {
  table ??= Float32Array.from({ length: 65536 }, (_, half) => fromBits(half));
  return table;
}
