import { readdir } from "node:fs/promises";
import { resolve } from "node:path";
import { checkObject, checkWord, invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import type { EnginePolicy } from "../policy/engine-policy.js";
import { loadPolicy } from "../policy/load.js";
import type { LoraConfig } from "../policy/lora.js";
import { writing } from "./durable.js";
import { withModel } from "./resolve-model.js";

export const EXPORT_DTYPES = ["f32", "bf16", "f16"] as const;

export interface ExportOptions {
  /** Type of the weights in the file. Default "f32", which loses nothing. */
  readonly dtype?: (typeof EXPORT_DTYPES)[number] | undefined;
  /** Folder of the model under the adapters. Default: what they say themselves. */
  readonly base?: string | undefined;
  /** As each part of the work begins. */
  readonly onStage?: ((stage: "reading" | "merging" | "writing") => void) | undefined;
}

export interface ExportSummary {
  /** Where the weights, or the adapters, were. */
  readonly model: string;
  /** The new folder. */
  readonly folder: string;
  /** Updates behind it; 0 for a model that is not a run's. */
  readonly step: number;
  readonly parameters: number;
  readonly dtype: (typeof EXPORT_DTYPES)[number];
  /** Adapters that were added to the weights; null: there were none. */
  readonly merged: LoraConfig | null;
}

const FIELDS = new Set(["dtype", "base", "onStage"]);

/** Better known before gigabytes are read than after it. */
async function refuseUsed(folder: string): Promise<void> {
  await writing(folder, async () => {
    const names = await readdir(folder).catch((error: NodeJS.ErrnoException): string[] => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    if (names.length === 0) return;
    const message = `${folder} is not empty: expected a new folder for the model. Choose another one.`;
    throw new RlsdError("ERR_RLSD_WRITE", message);
  });
}

async function plain(policy: EnginePolicy, onStage: ExportOptions["onStage"]): Promise<EnginePolicy> {
  if (policy.lora === undefined) return policy;
  onStage?.("merging");
  try {
    return await policy.merge();
  } finally {
    await policy.dispose();
  }
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
  const { dtype = "f32", base, onStage } = options;
  checkWord(dtype, "dtype", EXPORT_DTYPES);
  for (const [name, path] of Object.entries({ directory, output })) {
    if (typeof path !== "string" || path === "") throw invalid("a path", name, path);
  }
  const folder = resolve(output);
  await refuseUsed(folder);
  const { model, step, loaded } = await withModel(directory, { base }, async (found) => {
    onStage?.("reading");
    return { ...found, loaded: await loadPolicy(found.model, { base }) };
  });
  const { lora } = loaded;
  const policy = await plain(loaded, onStage);
  try {
    onStage?.("writing");
    await writing(folder, () => policy.save(folder, { dtype }));
    return { model, folder, step, parameters: policy.parameterCount, dtype, merged: lora ?? null };
  } finally {
    await policy.dispose();
  }
}
