import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import { hubCache, located } from "../hub-cache.js";
import { exists } from "./folder.js";
import { ALL_TARGETS, type LoraConfig, type LoraTarget, MOST_RANK, scaleFault } from "./lora.js";
import { isModel, isWeightFile, parseObject, readCompanions, readHeaders, readOptional } from "./model-folder.js";
import { fileError } from "./safetensors.js";
import type { ParameterSource } from "./sources.js";

/** The files of the PEFT library, in both directions. */
export const ADAPTER_CONFIG = "adapter_config.json";
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";
const OLD_WEIGHTS = "adapter_model.bin";

export interface AdapterFolder {
  readonly lora: LoraConfig;
  /** The model that they stand on, by adapter_config.json: a folder, or a name that is none. */
  readonly named: unknown;
  readonly companions: ReadonlyMap<string, Uint8Array>;
  /** Tensors of the file, by the names that PEFT gives them in files. */
  readonly sources: Map<string, ParameterSource>;
}

/** ERR_RLSD_MODEL_FILE where it holds a model's weights too: which is meant, nobody can tell. */
export async function isAdapterFolder(directory: string): Promise<boolean> {
  if (!(await exists(join(directory, ADAPTER_CONFIG)))) return false;
  const weights = await readdir(directory).then((names) => names.find(isWeightFile));
  if (weights === undefined) return true;
  throw fileError(
    directory,
    `holds a model (${weights}) and adapters (${ADAPTER_CONFIG}): move one of them to a folder of its own`,
  );
}

/** What changes the mathematics and is not computed here, with the values that leave it off. */
const OFF: Readonly<Record<string, readonly unknown[]>> = {
  peft_type: ["LORA"],
  bias: ["none"],
  use_dora: [false],
  lora_bias: [false],
  fan_in_fan_out: [false],
  modules_to_save: [],
  rank_pattern: [],
  alpha_pattern: [],
  megatron_config: [],
  trainable_token_indices: [],
  target_parameters: [],
  use_qalora: [false],
  alora_invocation_tokens: [],
  layer_replication: [],
  layers_to_transform: [],
  arrow_config: [],
  kasa_config: [],
  monteclora_config: [],
  use_bdlora: [],
  // The others change the weights under the adapters too, each time that they are put on them.
  init_lora_weights: [true, false, "gaussian", "eva", "orthogonal", "mica"],
};

const MENDS: Readonly<Record<string, string>> = {
  init_lora_weights:
    "; save_pretrained(path_initial_model_for_weight_conversion=...) of the PEFT library gives such files",
};

const isEmpty = (value: unknown): boolean =>
  value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0);

function parseAdapter(json: Readonly<Record<string, unknown>>, file: string): Omit<LoraConfig, "targets"> {
  for (const [name, allowed] of Object.entries(OFF)) {
    const value = json[name];
    if (isEmpty(value) || allowed.includes(value)) continue;
    const expected = allowed.length === 0 ? "nothing" : JSON.stringify(allowed[0]);
    const message = `${file}: ${name} ${show(value)} is not supported: expected ${expected}${MENDS[name] ?? ""}`;
    throw new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", message);
  }
  const { r: rank, lora_alpha: alpha } = json;
  const rankStabilized = json.use_rslora ?? false;
  if (!Number.isSafeInteger(rank) || (rank as number) < 1 || (rank as number) > MOST_RANK) {
    throw fileError(file, `expected a whole number from 1 to ${MOST_RANK} for r but found ${show(rank)}`);
  }
  if (typeof alpha !== "number" || !Number.isFinite(alpha) || alpha <= 0) {
    throw fileError(file, `expected a number above 0 for lora_alpha but found ${show(alpha)}`);
  }
  if (typeof rankStabilized !== "boolean") {
    throw fileError(file, `expected true or false for use_rslora but found ${show(rankStabilized)}`);
  }
  const parsed = { rank: rank as number, alpha, rankStabilized };
  const fault = scaleFault(parsed);
  if (fault !== undefined) throw fileError(file, fault);
  return parsed;
}

/** By the names of PEFT's files; those of a model in memory have the adapters' name in them, and may lack the prefix. */
function renamed(sources: ReadonlyMap<string, ParameterSource>, file: string): Map<string, ParameterSource> {
  const out = new Map<string, ParameterSource>();
  for (const [name, source] of sources) {
    const plain = name.replace(/\.(lora_[AB])\.default\.weight$/, ".$1.weight");
    const whole = /^model\..*\.lora_[AB]\.weight$/.test(plain) ? `base_model.model.${plain}` : plain;
    if (out.has(whole)) throw fileError(file, `tensor "${whole}" is there twice, once as "${name}"`);
    out.set(whole, source);
  }
  return out;
}

/** From the tensors themselves: `target_modules` may also be a pattern. */
function targetsOf(sources: ReadonlyMap<string, ParameterSource>, file: string): LoraTarget[] {
  const present = (target: LoraTarget) => [...sources.keys()].some((name) => name.includes(`.${target}.lora_`));
  const targets = ALL_TARGETS.filter(present);
  if (targets.length > 0) return targets;
  const [first] = sources.keys();
  const found = first === undefined ? "holds no tensor" : `its first tensor is "${first}"`;
  throw fileError(file, `has no adapter of ${ALL_TARGETS.join(", ")}: ${found}`);
}

/** The folder of the model that adapters stand on, by what they say: as it is, from their own folder, or in the cache. */
export async function baseOf(directory: string, named: unknown): Promise<string> {
  const file = join(directory, ADAPTER_CONFIG);
  const mend = `say where the model is by the option "base" (--base), or in ${file} as "base_model_name_or_path"`;
  if (typeof named !== "string" || named === "") {
    throw fileError(file, `does not name the model that it stands on: ${mend}`);
  }
  for (const folder of [resolve(named), resolve(directory, named), located(named)]) {
    if (await isModel(folder)) return folder;
  }
  const found = `which is no model folder here, nor in ${hubCache()}`;
  throw fileError(file, `stands on ${named}, ${found}: ${mend}`);
}

async function readDescription(directory: string): Promise<Record<string, unknown>> {
  const file = join(directory, ADAPTER_CONFIG);
  const bytes = await readOptional(file);
  if (bytes === undefined) throw fileError(file, "does not exist");
  return parseObject(bytes, file);
}

/** Adapters as the PEFT library saves them. */
export async function readAdapterFolder(directory: string): Promise<AdapterFolder> {
  const json = await readDescription(directory);
  const parsed = parseAdapter(json, join(directory, ADAPTER_CONFIG));
  const weights = join(directory, ADAPTER_WEIGHTS);
  if (!(await exists(weights)) && (await exists(join(directory, OLD_WEIGHTS)))) {
    const mend = `save_pretrained(..., safe_serialization=True) of the PEFT library gives ${ADAPTER_WEIGHTS}`;
    throw fileError(join(directory, OLD_WEIGHTS), `is of a kind that is not read: ${mend}`);
  }
  const sources = renamed(await readHeaders(new Map([[weights, undefined]])), weights);
  return {
    lora: { ...parsed, targets: targetsOf(sources, weights) },
    named: json.base_model_name_or_path,
    companions: await readCompanions(directory),
    sources,
  };
}

/** adapter_config.json, for the PEFT library as for us. `base` null: the model was never saved. */
export const adapterJson = (lora: LoraConfig, base: string | null): Record<string, unknown> => ({
  peft_type: "LORA",
  task_type: "CAUSAL_LM",
  base_model_name_or_path: base,
  r: lora.rank,
  lora_alpha: lora.alpha,
  lora_dropout: 0,
  use_rslora: lora.rankStabilized,
  target_modules: lora.targets,
  bias: "none",
  fan_in_fan_out: false,
  modules_to_save: null,
  inference_mode: true,
});

/** A model's folder itself; of adapters the folder of the model that they stand on. */
export async function modelUnder(directory: string): Promise<string> {
  if (!(await isAdapterFolder(directory))) return directory;
  return baseOf(directory, (await readDescription(directory)).base_model_name_or_path);
}
