import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { checkPath } from "../check.js";
import { RlsdError } from "../errors.js";
import { hubCache, located } from "../hub-cache.js";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, isAdapterFolder, modelUnder } from "../policy/adapter-folder.js";
import { fingerprint } from "../policy/fingerprint.js";
import { loadPolicy } from "../policy/load.js";
import { ggufIn, isModel } from "../policy/model-folder.js";
import type { Policy } from "../policy/policy.js";
import { readRegular } from "../regular-file.js";
import { type Checkpoint, onBestCheckpoint, readCheckpoint, STATE_FILE } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { findDataFiles } from "./data/find-files.js";
import { releasing } from "./durable.js";
import { loadTextParts, type TextParts } from "./prepare.js";
import { CHECKPOINTS, readRunConfig } from "./run-folder.js";
import { requireBase } from "./student.js";
import type { LoadPolicy } from "./teacher.js";

export interface ModelSource {
  /** How a model folder becomes a policy. Default: the built-in engine. */
  readonly loadPolicy?: LoadPolicy | undefined;
  /** Folder of the model under the adapters, where it is no longer what they say. For the built-in engine alone. */
  readonly base?: string | undefined;
}

export interface ResolvedModel {
  readonly model: string;
  /** Those it was trained by; none for a model that is not a run's. */
  readonly settings: Record<string, unknown>;
  /** Updates behind it; 0 for a model that is not a run's. */
  readonly step: number;
  /** Where it lies with what trained it; undefined for a model that is not a run's, whatever folders are beside it. */
  readonly checkpoint: Checkpoint | undefined;
}

const MEND = 'let "base" name the folder where they are now (--base)';

const noCheckpoint = (run: string) => new RlsdError("ERR_RLSD_CHECKPOINT", `${run}: this run has no checkpoint yet.`);

async function resolveCheckpoint(checkpoint: Checkpoint, run: string, o: ModelSource): Promise<ResolvedModel> {
  const { model, state } = checkpoint;
  if (o.loadPolicy === undefined) await requireBase(checkpoint, model, MEND, o.base);
  return { model, settings: { ...(await readRunConfig(run)).config }, step: state.step, checkpoint };
}

/** Whether a folder is the model of a checkpoint, or of a run's checkpoint, by their paths: neither need be there any more. */
const isModelOf = (model: string, directory: string): boolean =>
  resolve(model, "..") === resolve(directory) || resolve(model, "..", "..") === resolve(directory, CHECKPOINTS);

/** The model folder that a setting names. `began`: of a run that goes on, the folder that this was when it began. */
async function modelFolder(model: string, began?: unknown): Promise<string> {
  const directory = located(model);
  if (typeof began === "string" && isModelOf(began, directory)) return began;
  if (existsSync(join(directory, CHECKPOINTS))) {
    return onBestCheckpoint(directory, async (best) => {
      if (best !== undefined) return best.model;
      throw noCheckpoint(directory);
    });
  }
  return existsSync(join(directory, STATE_FILE)) ? (await readCheckpoint(directory)).model : directory;
}

/** What a run that goes on has in its config.json. */
type Began = Readonly<{ model?: unknown; teacher?: unknown }>;

/**
 * Settings as a run keeps them, for whatever becomes of the rest: data are files, models are model folders. A checkpoint stands
 * for its model, a run for its best checkpoint as it is now, or, in a run that goes on, for the one of its checkpoints that
 * this began with.
 */
export async function settleConfig(config: ResolvedConfig, began: Began = {}): Promise<ResolvedConfig> {
  const { model, teacher, data } = config;
  const external = (began.teacher as Began | undefined)?.model;
  const [train, held] = [await findDataFiles(data.train), await findDataFiles(data.eval)];
  return {
    ...config,
    model: await modelFolder(model, began.model),
    teacher: { ...teacher, model: teacher.model === "" ? "" : await modelFolder(teacher.model, external) },
    data: { ...data, train, eval: held },
  };
}

/**
 * Runs a body that reads what a folder is: a run (its best checkpoint), a checkpoint, or a model or adapters of one. The body
 * may be run again, where a run in progress removes the checkpoint.
 */
export async function withModel<T>(
  named: string,
  o: ModelSource,
  body: (found: ResolvedModel) => Promise<T>,
): Promise<T> {
  const directory = located(named);
  const { base } = o;
  if (base !== undefined) checkPath(base, "base");
  if (base !== undefined && o.loadPolicy !== undefined) {
    const message = '"base" is for the built-in engine: a loadPolicy of your own says itself what adapters stand on.';
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
  if (existsSync(join(directory, CHECKPOINTS))) {
    return onBestCheckpoint(directory, async (best) => {
      if (best !== undefined) return body(await resolveCheckpoint(best, directory, o));
      throw noCheckpoint(directory);
    });
  }
  if (existsSync(join(directory, STATE_FILE))) {
    return body(await resolveCheckpoint(await readCheckpoint(directory), resolve(directory, "..", ".."), o));
  }
  if ((await isModel(directory)) || existsSync(join(directory, ADAPTER_CONFIG))) {
    return body({ model: directory, settings: {}, step: 0, checkpoint: undefined });
  }
  const file = await ggufIn(directory);
  if (file !== undefined) {
    const message = `${directory} has no config.json, but a GGUF file, which is a model by itself: name ${file}.`;
    throw new RlsdError("ERR_RLSD_MODEL", message);
  }
  throw new RlsdError(
    "ERR_RLSD_MODEL",
    `${directory} is neither a run, nor a checkpoint, nor a model folder (it has neither config.json nor adapter_config.json), nor a .gguf file, nor the name of a model in ${hubCache()}.`,
  );
}

/** Of all weights that the built-in engine would load of a model's folder, or of adapters and what they stand on. */
export async function weightsFingerprint(model: string, base?: string): Promise<string> {
  if (!(await isAdapterFolder(model))) return fingerprint(model);
  const hash = createHash("sha256").update(
    await fingerprint(base === undefined ? await modelUnder(model) : located(base)),
  );
  for (const name of [ADAPTER_CONFIG, ADAPTER_WEIGHTS]) hash.update(await readRegular(join(model, name)));
  return hash.digest("hex");
}

/** How that model is loaded, and a teacher that is another one. */
export const loaderOf = (
  { loadPolicy: hook, base }: ModelSource,
  { model }: ResolvedModel,
  { matmulType, maxLength }: Pick<ResolvedConfig, "matmulType" | "maxLength">,
): LoadPolicy =>
  hook ??
  ((folder) => {
    const options = { matmulType, maxLength: maxLength ?? undefined };
    return loadPolicy(folder, folder === model ? { base, ...options } : options);
  });

/** That model with the tokenizer and the chat template it is asked by. */
export async function loadAsked(
  found: ResolvedModel,
  settings: Pick<ResolvedConfig, "matmulType" | "maxLength"> & {
    readonly data: Pick<ResolvedConfig["data"], "templateVariables">;
  },
  source: ModelSource,
): Promise<{ readonly policy: Policy; readonly text: TextParts }> {
  const { model } = found;
  const policy = await loaderOf(source, found, settings)(model);
  return releasing(
    () => policy.dispose(),
    async () => {
      const text = await loadTextParts(model, policy, settings.data.templateVariables, source.base);
      return { policy, text };
    },
  );
}
