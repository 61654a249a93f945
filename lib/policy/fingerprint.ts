import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { openForReading, readHeaders, weightFiles } from "./model-folder.js";
import { readExactly } from "./safetensors.js";

/** Read of a tensor, from its middle: first rows of an embedding are often those of tokens that nothing trains. */
const SAMPLE_BYTES = 4096;

/**
 * Tells a model's weights from others of the same shape without reading them whole: name, type, shape and some bytes of
 * every tensor. In how many files they lie is no matter.
 */
export async function fingerprint(directory: string): Promise<string> {
  const sources = [...(await readHeaders(await weightFiles(directory))).values()];
  const hash = createHash("sha256");
  const handles = new Map<string, FileHandle>();
  try {
    for (const { name, file, entry } of sources.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const { dtype, shape, start, end } = entry;
      const handle = handles.get(file) ?? (await openForReading(file));
      handles.set(file, handle);
      const bytes = new Uint8Array(Math.min(SAMPLE_BYTES, end - start));
      await readExactly(handle, bytes, start + Math.floor((end - start - bytes.length) / 2), file);
      hash.update(JSON.stringify([name, dtype, shape])).update(bytes);
    }
  } finally {
    for (const handle of handles.values()) await handle.close();
  }
  return hash.digest("hex");
}
