import type { FileHandle } from "node:fs/promises";
import { dequantize } from "../../gguf/dequantize.js";
import { readExactly } from "../safetensors.js";
import type { ParameterSource } from "../sources.js";
import type { Decoding } from "./sources.js";

/** Numbers that are read at a time; whole blocks of every type. */
const CHUNK = 1 << 20;

const PLAIN = ["F32", "F16", "BF16"] as const;
type PlainType = (typeof PLAIN)[number];

/** A type whose numbers are taken as they are. */
const plainType = ({ type, offset }: Decoding): PlainType | undefined =>
  offset === 0 ? PLAIN.find((name) => name === type.name) : undefined;

/**
 * In which type a parameter's matrix is held; undefined: it has no say. A GGUF file has its vectors as float32 beside
 * matrices of any type.
 */
export function heldAs({ entry, decoding }: ParameterSource): string | undefined {
  if (decoding === undefined) return entry.dtype;
  return entry.shape.length === 1 ? undefined : (plainType(decoding) ?? "F32");
}

/** Rows 0, 2, 4, ... then 1, 3, 5, ... of one head: those whose pairs were neighbours. */
function unpaired(head: Uint8Array, rows: number): Uint8Array<ArrayBuffer> {
  const width = head.length / rows;
  const out = new Uint8Array(head.length);
  for (let row = 0; row < rows; row++) {
    const from = row < rows / 2 ? 2 * row : 2 * row - rows + 1;
    out.set(head.subarray(from * width, (from + 1) * width), row * width);
  }
  return out;
}

interface Part {
  readonly dtype: PlainType;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** The numbers of a tensor as the parameter has them, part by part: a head at a time where its rows are moved. */
export async function* decoded({ file, entry, decoding }: ParameterSource, handle: FileHandle): AsyncGenerator<Part> {
  const { type, pairedRows, offset } = decoding as Decoding;
  const columns = entry.shape.length === 1 ? 1 : (entry.shape[1] as number);
  const step = ((pairedRows === undefined ? CHUNK : pairedRows * columns) / type.blockSize) * type.blockBytes;
  const plain = plainType(decoding as Decoding);
  for (let at = entry.start; at < entry.end; at += step) {
    const raw = new Uint8Array(Math.min(step, entry.end - at));
    await readExactly(handle, raw, at, file);
    if (plain !== undefined) {
      yield { dtype: plain, bytes: pairedRows === undefined ? raw : unpaired(raw, pairedRows) };
      continue;
    }
    const values = dequantize(raw, type);
    const bytes = new Uint8Array((offset === 0 ? values : values.map((value) => value - offset)).buffer as ArrayBuffer);
    yield { dtype: "F32", bytes: pairedRows === undefined ? bytes : unpaired(bytes, pairedRows) };
  }
}
