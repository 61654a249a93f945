import { createHash, type Hash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { isGgufPath } from "../hub-cache.js";
import { findParameters, readHeaders, readModelFolder, weightFiles } from "./model-folder.js";
import { layoutOf } from "./native-model.js";
import { openForReading, readExactly } from "./safetensors.js";
import type { ParameterSource } from "./sources.js";

/** Bytes of a tensor that are read: in so many pieces from its first to its last, or all that it has. */
const PIECE = 4096;
const PIECES = 16;

async function hashTensor(hash: Hash, { name, file, entry }: ParameterSource, handle: FileHandle): Promise<void> {
  const { dtype, shape, start, end } = entry;
  hash.update(JSON.stringify([name, dtype, shape]));
  const whole = end - start <= PIECES * PIECE;
  const bytes = new Uint8Array(whole ? end - start : PIECE);
  for (let i = 0; i < (whole ? 1 : PIECES); i++) {
    const offset = Math.floor(((end - start - bytes.length) * i) / (PIECES - 1));
    await readExactly(handle, bytes, start + offset, file);
    hash.update(bytes);
  }
}

/**
 * Tells a model from others of the same shape without reading it whole: what config.json says of its mathematics, and name,
 * type, shape and up to 64 KiB of every tensor. Weights that differ elsewhere alone it takes for the same. In how many
 * files they lie is no matter.
 */
export async function fingerprint(directory: string): Promise<string> {
  const { config } = await readModelFolder(directory);
  const { endTokenIds: _, maxLength: __, ...mathematics } = config;
  const sources = isGgufPath(directory)
    ? await findParameters(directory, config, layoutOf(config))
    : [...(await readHeaders(await weightFiles(directory))).values()];
  const hash = createHash("sha256").update(JSON.stringify(mathematics));
  const handles = new Map<string, FileHandle>();
  try {
    for (const source of sources.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const handle = handles.get(source.file) ?? (await openForReading(source.file));
      handles.set(source.file, handle);
      await hashTensor(hash, source, handle);
    }
  } finally {
    for (const handle of handles.values()) await handle.close();
  }
  return hash.digest("hex");
}
