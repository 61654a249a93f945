import { RlsdError } from "../errors.js";
import { BLOCK } from "../native/engine-binding.js";
import type { NativeModel } from "./model-handle.js";
import { type FileType, readElements, readParameter } from "./native-model.js";

/** Bits of infinity, without the sign. */
const INFINITE = { F16: 0x7c00, BF16: 0x7f80 } as const;
const WAYS_OUT = { F16: '"bf16" or "f32"', BF16: '"f32"' } as const;

/** The weights are read as they are only where a rounded one is infinite: a save costs no second pass over them. */
async function checkRounded(
  model: NativeModel,
  index: number,
  first: number,
  rounded: Uint16Array,
  dtype: keyof typeof INFINITE,
): Promise<void> {
  const infinite = (bits: number): boolean => (bits & 0x7fff) === INFINITE[dtype];
  if (!rounded.some(infinite)) return;
  const offset = (model.layout.offsets[index] as number) + first;
  const weights = new Float32Array((await readElements(model, BLOCK.weights, offset, rounded.length, "F32")).buffer);
  const value = weights.find((weight, i) => infinite(rounded[i] as number) && Number.isFinite(weight));
  if (value === undefined) return;
  throw new RlsdError(
    "ERR_RLSD_SAVE",
    `tensor "${model.layout.names[index]}" holds ${value}, which is beyond the largest number of ${dtype.toLowerCase()} and would be saved as infinity: expected ${WAYS_OUT[dtype]} for dtype.`,
  );
}

/**
 * The elements of a trained parameter for a file, `step` at a time; ERR_RLSD_SAVE where its type makes infinity of a finite
 * number.
 */
export async function* roundedParameter(
  model: NativeModel,
  index: number,
  dtype: FileType,
  step?: number,
): AsyncGenerator<Uint8Array> {
  let first = 0;
  for await (const bytes of readParameter(model, BLOCK.weights, index, dtype, step)) {
    if (dtype !== "F32") {
      const rounded = new Uint16Array(bytes.buffer);
      await checkRounded(model, index, first, rounded, dtype);
      first += rounded.length;
    }
    yield bytes;
  }
}
