import { f16Bits } from "../rounding.js";
import { typeOf } from "./types.js";

/** Numbers as Q8_0: blocks of 32, each a float16 scale and 32 signed bytes. The first number that has none, or the bytes. */
export function quantizeQ8(values: Float32Array): Uint8Array | { readonly bad: number } {
  const { blockSize, blockBytes } = typeOf("Q8_0");
  const out = new Uint8Array((values.length / blockSize) * blockBytes);
  const view = new DataView(out.buffer);
  for (let first = 0, at = 0; first < values.length; first += blockSize, at += blockBytes) {
    let most = 0;
    for (let i = first; i < first + blockSize; i++) {
      const size = Math.abs(values[i] as number);
      if (!Number.isFinite(size)) return { bad: values[i] as number };
      if (size > most) most = size;
    }
    // In float32, as ggml computes it: the quotients decide which way a half is rounded.
    const scale = Math.fround(most / 127);
    const half = f16Bits(scale);
    if (half === 0x7c00) return { bad: most };
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    view.setUint16(at, half, true);
    for (let i = 0; i < blockSize; i++) {
      const quotient = Math.fround((values[first + i] as number) * inverse);
      view.setInt8(at + 2 + i, Math.sign(quotient) * Math.floor(Math.abs(quotient) + 0.5));
    }
  }
  return out;
}
