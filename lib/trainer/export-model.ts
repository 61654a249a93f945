import { lstat, readdir } from "node:fs/promises";
import { resolve } from "node:path";
import { checkFunction, checkObject, checkPath, checkSignal, checkWord, invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { isGgufPath } from "../hub-cache.js";
import type { EnginePolicy } from "../policy/engine-policy.js";
import { GGUF_DTYPES, type GgufDType } from "../policy/gguf/tensors.js";
import { loadPolicy } from "../policy/load.js";
import type { LoraConfig } from "../policy/lora.js";
import type { DType } from "../tensor/dtype.js";
import { writing } from "./durable.js";
import { withModel } from "./resolve-model.js";

export const EXPORT_DTYPES = GGUF_DTYPES;

/** How `exportModel` writes. */
export interface ExportOptions {
  /** Type of the weights in the file, "q8_0" in a .gguf file alone. Default "f32", which loses nothing. */
  readonly dtype?: GgufDType | undefined;
  /** Folder of the model under the adapters. Default: what they say themselves. */
  readonly base?: string | undefined;
  /** Stops at the next part of the work, or between tensors: nothing is left then of what was written. */
  readonly signal?: AbortSignal | undefined;
  /** As each part of the work begins. */
  readonly onStage?: ((stage: "reading" | "merging" | "writing") => void) | undefined;
}

/** What `exportModel` wrote. */
export interface ExportSummary {
  /** Where the weights, or the adapters, were. */
  readonly model: string;
  /** The new folder, or the new .gguf file. */
  readonly folder: string;
  /** Updates behind it; 0 for a model that is not a run's. */
  readonly step: number;
  /** Of the model that was written. */
  readonly parameters: number;
  /** Of the weights in the file. */
  readonly dtype: GgufDType;
  /** Adapters that were added to the weights; null: there were none. */
  readonly merged: LoraConfig | null;
  /** What whoever uses a .gguf file should know: what llama.cpp does not do as the model does. */
  readonly notes: readonly string[];
}

const FIELDS = new Set(["dtype", "base", "signal", "onStage"]);

const used = (output: string, cause?: unknown): RlsdError => {
  const message = isGgufPath(output)
    ? `${output} is there already: expected a new file for the model. Choose another one.`
    : `${output} is not empty: expected a new folder for the model. Choose another one.`;
  return new RlsdError("ERR_RLSD_WRITE", message, { cause });
};

/** Better known before gigabytes are read than after it. */
async function refuseUsed(output: string): Promise<void> {
  await writing(output, async () => {
    const names = await readdir(output).catch(async (error: NodeJS.ErrnoException): Promise<string[]> => {
      const there = error.code === "ENOTDIR" && (await lstat(output).catch(() => undefined));
      if (there && isGgufPath(output)) throw used(output);
      if (error.code !== "ENOENT") throw error;
      const link = await lstat(output).catch(() => undefined);
      if (link === undefined) return [];
      throw new RlsdError("ERR_RLSD_WRITE", `${output} is a link that leads nowhere: choose another folder.`);
    });
    if (names.length > 0) throw used(output);
  });
}

/** Notes on what was written. */
async function save(
  policy: EnginePolicy,
  output: string,
  dtype: GgufDType,
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  return writing(output, async () => {
    try {
      if (isGgufPath(output)) return (await policy.saveGguf(output, { dtype, signal })).notes;
      await policy.save(output, { dtype: dtype as DType, signal });
      return [];
    } catch (error) {
      const code = ((error as Error | null)?.cause as NodeJS.ErrnoException | undefined)?.code ?? "";
      // Another export was first.
      throw code === "ENOTEMPTY" || code === "EEXIST" ? used(output, error) : error;
    }
  });
}

async function plain(policy: EnginePolicy, onStage: (stage: "merging") => void): Promise<EnginePolicy> {
  if (policy.lora === undefined) return policy;
  try {
    onStage("merging");
    return await policy.merge();
  } finally {
    await policy.dispose();
  }
}

function checkOptions({ dtype = "f32", signal, onStage }: ExportOptions, output: string): GgufDType {
  checkWord(dtype, "dtype", EXPORT_DTYPES);
  if (dtype === "q8_0" && !isGgufPath(output)) {
    throw invalid('"f32", "bf16" or "f16"', "dtype", dtype, "Files that end in .gguf alone have q8_0.");
  }
  checkSignal(signal);
  checkFunction(onStage, "onStage");
  return dtype;
}

/**
 * Writes a run's best checkpoint, a checkpoint or a model as one plain Hugging Face folder, or as one GGUF file where `output`
 * ends in .gguf (for llama.cpp, Ollama, LM Studio): adapters are added to the weights they stand on (W + scale B A), and the
 * tokenizer comes along.
 *
 * @throws RlsdError ERR_RLSD_WRITE for a folder that is not empty or a file that is there, before anything is read; what
 *   `loadPolicy` throws; of a GGUF file ERR_RLSD_UNSUPPORTED_MODEL, ERR_RLSD_TOKENIZER for what llama.cpp does not compute
 */
export async function exportModel(
  directory: string,
  output: string,
  options: ExportOptions = {},
): Promise<ExportSummary> {
  checkObject(options, "options", FIELDS);
  const { base, signal, onStage } = options;
  for (const [name, path] of Object.entries({ directory, output })) {
    checkPath(path, name);
  }
  const dtype = checkOptions(options, output);
  const folder = resolve(output);
  await refuseUsed(folder);
  const begin = (stage: "reading" | "merging" | "writing"): void => {
    signal?.throwIfAborted();
    onStage?.(stage);
  };
  const { model, step, loaded } = await withModel(directory, { base }, async (found) => {
    begin("reading");
    return { ...found, loaded: await loadPolicy(found.model, { base }) };
  });
  const { lora } = loaded;
  const policy = await plain(loaded, begin);
  try {
    begin("writing");
    const notes = await save(policy, folder, dtype, signal);
    return { model, folder, step, parameters: policy.parameterCount, dtype, merged: lora ?? null, notes };
  } finally {
    await policy.dispose();
  }
}
