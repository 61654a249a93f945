import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { isObject } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { Metadata } from "../gguf/metadata.js";
import { readGguf } from "../gguf/read.js";
import { textFiles } from "../gguf/text-files.js";
import { isGgufPath, modelExpected } from "../hub-cache.js";
import type { EngineLayout } from "../native/engine-binding.js";
import { readRegular } from "../regular-file.js";
import { type ModelConfig, parseConfig } from "./config.js";
import { exists } from "./folder.js";
import { configJson } from "./gguf/read-shape.js";
import { ggufParameters } from "./gguf/sources.js";
import { fileError, openForReading, readHeader } from "./safetensors.js";
import { type ParameterSource, shapeOf } from "./sources.js";

/** Has end tokens that config.json may lack: a part of the model's configuration. */
export const GENERATION_CONFIG = "generation_config.json";

/** Names the files of a model that is saved in several. */
export const INDEX_FILE = "model.safetensors.index.json";

/** Whether a file of that name holds a model's weights. */
export const isWeightFile = (name: string): boolean => /^model(-\d+-of-\d+)?\.safetensors$/.test(name);

/** Small files of a model's folder that a save writes again. */
export const COMPANIONS = [
  GENERATION_CONFIG,
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "special_tokens_map.json",
] as const;

interface ModelFolder {
  readonly config: ModelConfig;
  /** config.json as it was read. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly companions: ReadonlyMap<string, Uint8Array>;
}

export async function readOptional(file: string): Promise<Buffer | undefined> {
  try {
    return await readRegular(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw fileError(file, `could not be read: ${messageOf(error)}`);
  }
}

export function parseObject(bytes: Buffer, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw fileError(file, `is not JSON: ${messageOf(error)}`);
  }
  if (!isObject(value)) throw fileError(file, "expected an object");
  return value;
}

/** Those of the named files that a folder has, or a GGUF file stands for. */
export async function readFiles(directory: string, names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
  if (isGgufPath(directory)) {
    const made = textFiles(new Metadata((await readGguf(directory)).metadata, directory));
    return new Map([...made].filter(([name]) => names.includes(name)));
  }
  const files = new Map<string, Uint8Array>();
  for (const name of names) {
    const content = await readOptional(join(directory, name));
    if (content !== undefined) files.set(name, content);
  }
  return files;
}

/** The small files of a folder, by their names. */
export const readCompanions = (directory: string): Promise<ReadonlyMap<string, Uint8Array>> =>
  readFiles(directory, COMPANIONS);

/** generation_config.json among the small files of a model; empty: there is none. */
export function generationOf(files: ReadonlyMap<string, Uint8Array>, directory: string): Record<string, unknown> {
  const content = files.get(GENERATION_CONFIG);
  return content === undefined ? {} : parseObject(Buffer.from(content), join(directory, GENERATION_CONFIG));
}

/** A GGUF file of a folder, which may be meant where the folder itself is no model. */
export async function ggufIn(directory: string): Promise<string | undefined> {
  const names = await readdir(directory).catch((): string[] => []);
  const name = names.find(isGgufPath);
  return name === undefined ? undefined : join(directory, name);
}

async function readModelFile(file: string): Promise<ModelFolder> {
  const header = await readGguf(file);
  const json = await configJson(header, file);
  return { config: parseConfig(json, {}, file), json, companions: textFiles(new Metadata(header.metadata, file)) };
}

/** Whether a model lies there: a folder with a configuration, or a GGUF file. */
export const isModel = (path: string): Promise<boolean> => exists(isGgufPath(path) ? path : join(path, "config.json"));

/** Configuration and small files of a Hugging Face folder, or of a GGUF file. */
export async function readModelFolder(directory: string): Promise<ModelFolder> {
  if (isGgufPath(directory)) return readModelFile(directory);
  const file = join(directory, "config.json");
  const bytes = await readOptional(file);
  if (bytes === undefined) {
    const found = await ggufIn(directory);
    const mend =
      found === undefined ? modelExpected() : `there is a GGUF file, which is a model by itself: name ${found}`;
    throw fileError(file, `does not exist: ${mend}`);
  }
  const json = parseObject(bytes, file);
  const companions = await readCompanions(directory);
  return { config: parseConfig(json, generationOf(companions, directory), file), json, companions };
}

/** The weight files of a folder: one, or those that the index of a sharded model names. */
export async function weightFiles(directory: string): Promise<Map<string, Set<string> | undefined>> {
  const single = join(directory, "model.safetensors");
  if (await exists(single)) return new Map([[single, undefined]]);
  const indexFile = join(directory, INDEX_FILE);
  const index = await readOptional(indexFile);
  if (index === undefined) {
    const found = await ggufIn(directory);
    const mend =
      found === undefined
        ? "weights of another kind (.bin) are converted by AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        : `a GGUF file is a model by itself: name ${found}`;
    throw fileError(directory, `has neither model.safetensors nor model.safetensors.index.json; ${mend}`);
  }
  const map = parseObject(index, indexFile).weight_map;
  if (typeof map !== "object" || map === null) throw fileError(indexFile, "expected an object weight_map");
  const files = new Map<string, Set<string>>();
  for (const [tensor, name] of Object.entries(map)) {
    if (typeof name !== "string" || basename(name) !== name || !name.endsWith(".safetensors")) {
      throw fileError(
        indexFile,
        `tensor "${tensor}": expected a .safetensors file of this folder but found ${JSON.stringify(name)}`,
      );
    }
    const file = join(directory, name);
    files.set(file, (files.get(file) ?? new Set()).add(tensor));
  }
  return files;
}

/** What the headers of safetensors files say; with a set, the tensors that a file must have. */
export async function readHeaders(
  files: ReadonlyMap<string, ReadonlySet<string> | undefined>,
): Promise<Map<string, ParameterSource>> {
  const sources = new Map<string, ParameterSource>();
  for (const [file, expected] of files) {
    const handle = await openForReading(file);
    try {
      const { tensors } = await readHeader(handle, file);
      for (const name of expected ?? []) {
        if (!tensors.has(name)) throw fileError(file, `tensor "${name}" is missing, though the index says it is here`);
      }
      for (const [name, entry] of tensors) {
        const other = sources.get(name);
        if (other !== undefined) throw fileError(file, `tensor "${name}" is also in ${other.file}`);
        sources.set(name, { name, file, entry });
      }
    } finally {
      await handle.close();
    }
  }
  return sources;
}

/** Buffers that some checkpoints carry and no decoder needs, and a tied head that was written all the same. */
function isIgnored(name: string, config: ModelConfig): boolean {
  return name.endsWith("rotary_emb.inv_freq") || (name === "lm_head.weight" && config.tieEmbeddings);
}

/** The source of each parameter, in the layout's order, taken out of `sources`; `says`: "X says", of the shapes. */
export function takeParameters(
  directory: string,
  layout: EngineLayout,
  sources: Map<string, ParameterSource>,
  says: string,
): ParameterSource[] {
  return layout.names.map((name, i) => {
    const source = sources.get(name);
    const shape = shapeOf(layout, i);
    if (source === undefined) {
      throw fileError(directory, `tensor "${name}" is missing: expected [${shape.join(", ")}], as ${says}`);
    }
    const { entry, file } = source;
    if (entry.shape.join() !== shape.join()) {
      throw fileError(file, `tensor "${name}": expected [${shape.join(", ")}] but found [${entry.shape.join(", ")}]`);
    }
    if (entry.dtype !== "F32" && entry.dtype !== "F16" && entry.dtype !== "BF16") {
      throw fileError(file, `tensor "${name}": expected F32, F16 or BF16 but found ${entry.dtype}`);
    }
    sources.delete(name);
    return source;
  });
}

/**
 * Where each parameter of the layout lies, in the layout's order; every name, shape and type checked before anything
 * is allocated.
 */
export async function findParameters(
  directory: string,
  config: ModelConfig,
  layout: EngineLayout,
): Promise<ParameterSource[]> {
  if (isGgufPath(directory)) return ggufParameters(directory, config, layout);
  const sources = await readHeaders(await weightFiles(directory));
  const found = takeParameters(directory, layout, sources, "config.json says");
  const extra = [...sources.values()].find((s) => !isIgnored(s.name, config));
  if (extra !== undefined) {
    throw new RlsdError(
      "ERR_RLSD_UNSUPPORTED_MODEL",
      `${extra.file}: tensor "${extra.name}" has no place in a ${config.modelType} decoder as config.json describes it`,
    );
  }
  return found;
}
