import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { readGguf } from "../gguf/read.js";
import { isGgufPath } from "../hub-cache.js";
import { isWeightFile } from "./model-folder.js";

/** Types in which matrices are held as they are, in so many bytes a number; all others become float32. */
const HELD: Readonly<Record<string, number>> = { F16: 2, BF16: 2 };

async function ggufBytes(file: string): Promise<number> {
  const tensors = [...(await readGguf(file)).tensors.values()];
  const types = new Set(tensors.filter(({ shape }) => shape.length > 1).map(({ type }) => type.name));
  const [first = "F32"] = types;
  const width = types.size === 1 ? (HELD[first] ?? 4) : 4;
  return tensors.reduce((sum, { shape }) => sum + width * shape.reduce((a, b) => a * b, 1), 0);
}

/** Bytes that the weights of a model's folder take in memory, or those of a GGUF file. */
export async function weightBytes(model: string): Promise<number> {
  if (isGgufPath(model)) return ggufBytes(model);
  const files = (await readdir(model)).filter(isWeightFile);
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(model, name))).size));
  return sizes.reduce((a, b) => a + b, 0);
}
