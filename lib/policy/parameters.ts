import { checkWord, invalid } from "../check.js";
import { BLOCK } from "../native/engine-binding.js";
import { native } from "../native/load.js";
import { ownCopy } from "./check.js";
import type { NativeModel } from "./model-handle.js";
import { readParameter, settled } from "./native-model.js";

function indexOf({ layout }: NativeModel, name: string): number {
  const index = layout.names.indexOf(name);
  if (index < 0) throw invalid("the name of a parameter", "name", name);
  return index;
}

/** Checks what is asked for; the returned function reads one parameter, or its gradient, as a whole. */
export function readWhole(model: NativeModel, name: string, what: "weights" | "gradient"): () => Promise<Float32Array> {
  const index = indexOf(model, name);
  checkWord(what, "what", ["weights", "gradient"]);
  return async () => {
    const parts: Uint8Array[] = [];
    for await (const part of readParameter(model, BLOCK[what], index, "F32")) parts.push(part);
    const bytes = Buffer.concat(parts);
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  };
}

/** Checks and copies the values; the returned function overwrites one parameter that is trained. */
export function writeWhole(model: NativeModel, name: string, values: Float32Array): () => Promise<void> {
  const { layout, handle } = model;
  const index = indexOf(model, name);
  const count = Math.max(1, layout.rows[index] as number) * (layout.columns[index] as number);
  const copy = ownCopy(values, Float32Array, "values", count);
  if (copy === undefined) throw invalid(`a Float32Array of ${count}`, "values", values);
  const offset = layout.offsets[index] as number;
  const bytes = new Uint8Array(copy.buffer as ArrayBuffer);
  return () => settled(native.engineWrite(handle, BLOCK.weights, offset, 0, bytes));
}
