import { lstat, readdir } from "node:fs/promises";
import { resolve } from "node:path";
import { checkFunction, checkObject, checkPath, checkSignal, checkWord } from "../check.js";
import { RlsdError } from "../errors.js";
import type { EnginePolicy } from "../policy/engine-policy.js";
import { loadPolicy } from "../policy/load.js";
import type { LoraConfig } from "../policy/lora.js";
import type { SaveOptions } from "../policy/save.js";
import { writing } from "./durable.js";
import { withModel } from "./resolve-model.js";

export const EXPORT_DTYPES = ["f32", "bf16", "f16"] as const;

/** How `exportModel` writes. */
export interface ExportOptions {
  /** Type of the weights in the file. Default "f32", which loses nothing. */
  readonly dtype?: (typeof EXPORT_DTYPES)[number] | undefined;
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
  /** The new folder. */
  readonly folder: string;
  /** Updates behind it; 0 for a model that is not a run's. */
  readonly step: number;
  /** Of the model that was written. */
  readonly parameters: number;
  /** Of the weights in the file. */
  readonly dtype: (typeof EXPORT_DTYPES)[number];
  /** Adapters that were added to the weights; null: there were none. */
  readonly merged: LoraConfig | null;
}

const FIELDS = new Set(["dtype", "base", "signal", "onStage"]);

const used = (folder: string, cause?: unknown): RlsdError =>
  new RlsdError("ERR_RLSD_WRITE", `${folder} is not empty: expected a new folder for the model. Choose another one.`, {
    cause,
  });

/** Better known before gigabytes are read than after it. */
async function refuseUsed(folder: string): Promise<void> {
  await writing(folder, async () => {
    const names = await readdir(folder).catch(async (error: NodeJS.ErrnoException): Promise<string[]> => {
      if (error.code !== "ENOENT") throw error;
      const link = await lstat(folder).catch(() => undefined);
      if (link === undefined) return [];
      throw new RlsdError("ERR_RLSD_WRITE", `${folder} is a link that leads nowhere: choose another folder.`);
    });
    if (names.length > 0) throw used(folder);
  });
}

async function save(policy: EnginePolicy, folder: string, o: SaveOptions): Promise<void> {
  await writing(folder, () =>
    policy.save(folder, o).catch((error: unknown) => {
      const code = ((error as Error | null)?.cause as NodeJS.ErrnoException | undefined)?.code ?? "";
      // Another export was first.
      throw code === "ENOTEMPTY" || code === "EEXIST" ? used(folder, error) : error;
    }),
  );
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

function checkHooks({ signal, onStage }: ExportOptions): void {
  checkSignal(signal);
  checkFunction(onStage, "onStage");
}

/**
 * Writes a run's best checkpoint, a checkpoint or a model as one plain Hugging Face folder, for any tool that reads
 * those: adapters are added to the weights they stand on (W + scale B A), and the tokenizer comes along.
 *
 * @throws RlsdError ERR_RLSD_WRITE for a folder that is not empty, before anything is read; what `loadPolicy` throws
 */
export async function exportModel(
  directory: string,
  output: string,
  options: ExportOptions = {},
): Promise<ExportSummary> {
  checkObject(options, "options", FIELDS);
  const { dtype = "f32", base, signal, onStage } = options;
  checkWord(dtype, "dtype", EXPORT_DTYPES);
  checkHooks(options);
  for (const [name, path] of Object.entries({ directory, output })) {
    checkPath(path, name);
  }
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
    await save(policy, folder, { dtype, signal });
    return { model, folder, step, parameters: policy.parameterCount, dtype, merged: lora ?? null };
  } finally {
    await policy.dispose();
  }
}
