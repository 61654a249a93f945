import { f16Value } from "../rounding.js";

let table: Float32Array | undefined;

/** All numbers of float16, by their bits. */
export function halves(): Float32Array {
  table ??= Float32Array.from({ length: 65536 }, (_, bits) => f16Value(bits));
  return table;
}
