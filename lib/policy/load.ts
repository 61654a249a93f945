import { types } from "node:util";
import { checkBoolean, checkInteger, checkNumber, checkObject, checkPath, checkWord, invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { locatedModel } from "../hub-cache.js";
import { native } from "../native/load.js";
import { baseOf, isAdapterFolder, readAdapterFolder } from "./adapter-folder.js";
import { adapterSources } from "./adapters.js";
import { parseConfig } from "./config.js";
import { EnginePolicy } from "./engine-policy.js";
import { MATMUL_TYPES } from "./matmul-type.js";
import { COMPANIONS, findParameters, generationOf, readModelFolder } from "./model-folder.js";
import type { Placement } from "./model-handle.js";
import { allocateModel, filled, layoutOf, readModel, seedWords, settled, shareModel } from "./native-model.js";
import { completeConfig, type NewModelConfig } from "./new-config.js";
import { Home, placeOf } from "./place.js";
import { adaptedOrigin } from "./text-files.js";
import { tokenizerIn } from "./tokenizer.js";

/** Where a policy's memory lies and how much it takes. */
export interface PolicyOptions extends Placement {
  /** Folder of the model that a folder of adapters stands on. Default: what its adapter_config.json says. */
  readonly base?: string | undefined;
  /**
   * Longest sequence, prompt and completion together. Default: the model's; of one whose positions are scaled by "longrope" the
   * longest before scaling. Where it is longer, the factors for long sequences are taken for all.
   */
  readonly maxLength?: number | undefined;
  /** Sequences that are sampled at once, at most; bounds the cache. Default 256. */
  readonly maxSequences?: number | undefined;
}

const PLACEMENT_SIZES = ["threads", "memoryLimit", "batchTokens", "maxSequences"] as const;
const PLACEMENT_FIELDS = [...PLACEMENT_SIZES, "recompute", "matmulType"] as const;
const LOAD_FIELDS = new Set([...PLACEMENT_FIELDS, "base", "maxLength"]);

function checkPlacement(o: Omit<PolicyOptions, "base" | "maxLength">): void {
  for (const name of PLACEMENT_SIZES) {
    if (o[name] !== undefined) checkInteger(o[name], name, { min: 1 });
  }
  checkBoolean(o.recompute, "recompute");
  if (o.matmulType !== undefined) checkWord(o.matmulType, "matmulType", MATMUL_TYPES);
}

/** A model's folder as it is to be computed with. */
async function readLimited(directory: string, maxLength: number | undefined) {
  const { config, ...rest } = await readModelFolder(directory);
  if (maxLength === undefined) return { config, ...rest };
  const most = config.rope.type === "longrope" ? config.rope.scaledMaxLength : config.maxLength;
  if (maxLength > most) throw invalid(`at most ${most}, which ${directory} reads,`, "maxLength", maxLength);
  return { config: { ...config, maxLength }, ...rest };
}

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

/** Adapters and, under them, the model that they stand on: everything is checked before memory is taken. */
async function loadAdapters(directory: string, options: PolicyOptions): Promise<EnginePolicy> {
  const folder = await readAdapterFolder(directory);
  const base = options.base === undefined ? await baseOf(directory, folder.named) : locatedModel(options.base);
  const home = new Home([await placeOf(base)]);
  const { config, json, companions: theirs } = await readLimited(base, options.maxLength);
  const weights = await findParameters(base, config, layoutOf(config));
  const adapters = adapterSources(directory, config, folder);
  const tokenizer = once(() => tokenizerIn(theirs, base, config.vocabSize)); // slow to make, and perhaps never asked for
  const plain = {
    json,
    companions: theirs,
    maxSequences: options.maxSequences,
    get tokenizer() {
      return tokenizer();
    },
  };
  const origin = adaptedOrigin(plain, folder.companions, directory);
  const under = await readModel(config, options, weights);
  try {
    const model = await filled(await shareModel(under, folder.lora), adapters);
    return new EnginePolicy(model, origin, home);
  } finally {
    await settled(native.engineRelease(under.handle));
  }
}

/**
 * A policy from a Hugging Face folder: config.json, model.safetensors or its shards and, where there is one, the
 * tokenizer. F32, F16 and BF16 weights load and are computed with as float32; matrices are held in the type of the
 * file until they are trained or overwritten. A folder of the PEFT library (adapter_config.json,
 * adapter_model.safetensors) gives the model it stands on with its adapters, which alone are trained. A GGUF file gives its
 * model: types of 16 bits are held so, quantized ones become float32.
 *
 * @param model the folder, the .gguf file, or a name such as Qwen/Qwen3-0.6B that Hugging Face's cache on this machine has; nothing is downloaded
 * @throws RlsdError ERR_RLSD_UNSUPPORTED_MODEL naming what this engine does not compute, ERR_RLSD_MODEL_FILE for a file
 *   that is missing, damaged or of another shape: both before memory is taken; ERR_RLSD_OUT_OF_MEMORY
 */
export async function loadPolicy(model: string, options: PolicyOptions = {}): Promise<EnginePolicy> {
  checkPath(model, "model");
  checkObject(options, "options", LOAD_FIELDS);
  checkPlacement(options);
  if (options.base !== undefined) checkPath(options.base, "base");
  if (options.maxLength !== undefined) checkInteger(options.maxLength, "maxLength", { min: 1 });
  const directory = locatedModel(model);
  if (await isAdapterFolder(directory)) return loadAdapters(directory, options);
  if (options.base !== undefined) {
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `"base" is for a folder of adapters, but ${directory} is none.`);
  }
  const home = new Home([await placeOf(directory)]);
  const { config, json, companions } = await readLimited(directory, options.maxLength);
  const sources = await findParameters(directory, config, layoutOf(config));
  const tokenizer = tokenizerIn(companions, directory, config.vocabSize);
  const weights = await readModel(config, options, sources);
  return new EnginePolicy(weights, { json, companions, tokenizer, maxSequences: options.maxSequences }, home);
}

/** The first weights of a new model, and what lies beside them in its folder. */
export interface CreateOptions extends Omit<PolicyOptions, "base" | "maxLength"> {
  /** The weights are a function of it. Default 0. */
  readonly seed?: number | undefined;
  /** Standard deviation of every matrix. Default 0.02. */
  readonly deviation?: number | undefined;
  /** Divide the matrices that write to the residual stream by sqrt(2 layers). Default true. */
  readonly scaleResidual?: boolean | undefined;
  /**
   * Contents of tokenizer.json, tokenizer_config.json, chat_template.jinja, special_tokens_map.json and
   * generation_config.json, by these names; saved with the model.
   */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | undefined;
}

const CREATE_FIELDS = new Set([...PLACEMENT_FIELDS, "seed", "deviation", "scaleResidual", "files"]);
const FILE_NAMES: ReadonlySet<string> = new Set(COMPANIONS);

function checkFiles(files: NonNullable<CreateOptions["files"]>): Map<string, Uint8Array> {
  checkObject(files, "files", FILE_NAMES);
  return new Map(
    Object.entries(files).map(([name, content]) => {
      if (typeof content === "string") return [name, Buffer.from(content)];
      if (types.isUint8Array(content)) return [name, new Uint8Array(content)];
      throw invalid("a text or a Uint8Array", `files["${name}"]`, content);
    }),
  );
}

/**
 * A policy with random weights: matrices normal(0, deviation), norms 1, biases 0.
 *
 * @throws RlsdError ERR_RLSD_UNSUPPORTED_MODEL for a shape that the engine does not compute
 */
export async function createPolicy(config: NewModelConfig, options: CreateOptions = {}): Promise<EnginePolicy> {
  checkObject(options, "options", CREATE_FIELDS);
  checkPlacement(options);
  const seed = checkInteger(options.seed ?? 0, "seed", { min: 0 });
  const deviation = checkNumber(options.deviation ?? 0.02, "deviation", { min: 0 });
  const scaleResidual = options.scaleResidual ?? true;
  checkBoolean(options.scaleResidual, "scaleResidual");
  const json = completeConfig(config);
  const companions = checkFiles(options.files ?? {});
  const checked = parseConfig(JSON.parse(JSON.stringify(json)), generationOf(companions, ""), "config");
  const tokenizer = tokenizerIn(companions, "", checked.vocabSize);
  const model = await allocateModel(checked, layoutOf(checked), options);
  const { handle } = model;
  await settled(native.engineInitialize(handle, ...seedWords(seed), deviation, Number(scaleResidual)));
  return new EnginePolicy(model, { json, companions, tokenizer, maxSequences: options.maxSequences });
}
