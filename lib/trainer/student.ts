import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { messageOf, RlsdError } from "../errors.js";
import { located } from "../hub-cache.js";
import { isAdapterFolder, modelUnder } from "../policy/adapter-folder.js";
import { fingerprint } from "../policy/fingerprint.js";
import { loadPolicy } from "../policy/load.js";
import { type LoraConfig, sameAdapters } from "../policy/lora.js";
import type { Policy } from "../policy/policy.js";
import type { Checkpoint } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { fail } from "./config-error.js";
import { readRunConfig } from "./run-folder.js";
import type { LoadPolicy } from "./teacher.js";

export interface ParameterCounts {
  readonly parameters: number;
  /** Of them, those that are trained: all, or those of the adapters. */
  readonly trained: number;
}

/** How a run's folders become policies: `hook`, else the built-in engine as the settings place it. */
export function policyLoader(
  { update, matmulType, maxLength }: ResolvedConfig,
  hook: LoadPolicy | undefined,
): LoadPolicy {
  const { recompute } = update;
  if (hook === undefined) {
    return (directory) => loadPolicy(directory, { recompute, matmulType, maxLength: maxLength ?? undefined });
  }
  const own = { "update.recompute": recompute, matmulType: matmulType !== "f32", maxLength: maxLength !== null };
  const name = Object.entries(own).find(([, set]) => set)?.[0];
  if (name !== undefined) return fail(`"${name}" is of the built-in engine, but hooks.loadPolicy makes the policy.`);
  return hook;
}

const CANNOT = "the policy that was loaded cannot have adapters: only those of the built-in engine can.";

const told = (lora: LoraConfig | undefined): string => {
  if (lora === undefined) return "none";
  const { rank, alpha, rankStabilized, targets } = lora;
  return `rank ${rank}, alpha ${alpha}${rankStabilized ? " (rank-stabilised)" : ""} on ${targets.join(", ")}`;
};

const adaptersOf = ({ lora }: ResolvedConfig): LoraConfig => ({ ...lora, alpha: lora.alpha ?? 2 * lora.rank });

async function withNew(model: Policy, config: ResolvedConfig): Promise<Policy> {
  if (model.lora !== undefined) {
    return fail(
      `"lora.rank" is ${config.lora.rank}, but ${config.model} holds adapters already: set it to 0 to train those, or put them into the weights first (rlsd export).`,
    );
  }
  if (model.withLora === undefined) return fail(`"lora.rank": ${CANNOT}`);
  return model.withLora({ ...adaptersOf(config), seed: config.seed });
}

/** Of the weights that adapters of that folder, or new ones on it, stand on. */
export const baseFingerprint = (model: string): Promise<string> => modelUnder(model).then(fingerprint);

/**
 * Adapters mean nothing on other weights than those that they were trained on.
 *
 * @param given where these weights are; default: what the folder `model` says
 * @param mend what to do where they are no longer there
 */
export async function requireBase({ base }: Checkpoint, model: string, mend: string, given?: string): Promise<void> {
  if (base === undefined) return;
  const under = given === undefined ? await modelUnder(model) : located(given);
  const found = await fingerprint(under).catch((cause: unknown) => {
    const why = messageOf(cause);
    const message = `the run's adapters stand on the weights in ${under}, which cannot be read: ${why}. Put them back, or ${mend}.`;
    throw new RlsdError("ERR_RLSD_MODEL", message, { cause });
  });
  if (found === base) return;
  throw new RlsdError(
    "ERR_RLSD_MODEL",
    `the run's adapters were trained on other weights than ${under} has now: put those back, or ${mend}.`,
  );
}

/** Adapters of a checkpoint: those that the settings mean, or nothing may be trained. */
async function withSaved(model: Policy, folder: string, config: ResolvedConfig, load: LoadPolicy): Promise<Policy> {
  if (model.withAdapters === undefined && config.lora.rank > 0) return fail(`"lora.rank": ${CANNOT}`);
  // A hook's policies may have adapters in a way of their own.
  const policy = await (model.withAdapters?.(folder) ?? load(folder));
  const wanted = config.lora.rank > 0 ? adaptersOf(config) : model.lora;
  if (sameAdapters(policy.lora, wanted)) return policy;
  await policy.dispose();
  return fail(
    `"lora": the run goes on with its adapters (${told(policy.lora)}), but the settings mean others (${told(wanted)}): leave them as they were, or begin a new run.`,
  );
}

/** A run of all weights goes on with its own: another model would give it nothing but another tokenizer. */
async function requireSameModel({ model }: ResolvedConfig, { path, model: own }: Checkpoint): Promise<void> {
  const { config } = await readRunConfig(join(path, "..", ".."));
  if (typeof config.model !== "string" || resolve(config.model) === resolve(model)) return;
  fail(
    `"model" is ${model}, but the run goes on with its own weights and tokenizer, in ${own}: leave it at ${config.model}, which need not be there any more, or begin a new run.`,
  );
}

/** Where tokenizer and chat template of a run are: beside the weights that it goes on with, else in its model's folder. */
export async function textFolder({ model }: ResolvedConfig, from: Checkpoint | undefined): Promise<string> {
  if (from === undefined || (await isAdapterFolder(from.model))) return model;
  // A hook's policies may keep none there.
  return existsSync(join(from.model, "tokenizer.json")) ? from.model : model;
}

/** The policy that a run trains: the model of its settings, with new adapters where these want some; or the checkpoint's. */
export async function loadStudent(
  config: ResolvedConfig,
  from: Checkpoint | undefined,
  load: LoadPolicy,
): Promise<Policy> {
  if (from !== undefined && !(await isAdapterFolder(from.model))) {
    if (config.lora.rank === 0) {
      await requireSameModel(config, from);
      return load(from.model);
    }
    return fail('"lora.rank": the run trains all weights: leave it at 0, or begin a new run from its checkpoint.');
  }
  const model = await load(config.model);
  if (from === undefined && config.lora.rank === 0) return model;
  try {
    // The weights are shared: they live on with the adapters.
    return from === undefined ? await withNew(model, config) : await withSaved(model, from.model, config, load);
  } finally {
    await model.dispose();
  }
}

/** How many parameters a policy has, and how many of them are trained: all, or those of its adapters. */
export const parametersOf = ({ parameterCount, trainedParameterCount }: Policy): ParameterCounts => ({
  parameters: parameterCount,
  trained: trainedParameterCount ?? parameterCount,
});

/** "88,384 parameters", and how many are trained where some are not. */
export function parametersText({ parameters, trained }: ParameterCounts): string {
  const part = trained < parameters ? ` (${trained.toLocaleString("en")} trained)` : "";
  return `${parameters.toLocaleString("en")} parameters${part}`;
}

/** Weights that were saved beside the student's: adapters are put on the weights that it has already. */
export async function loadBeside(student: Policy, folder: string, load: LoadPolicy): Promise<Policy> {
  if (student.withAdapters !== undefined && (await isAdapterFolder(folder))) return student.withAdapters(folder);
  return load(folder);
}
