import { RlsdError } from "../errors.js";
import { native } from "../native/load.js";
import { ADAPTER_CONFIG, type AdapterFolder, readAdapterFolder } from "./adapter-folder.js";
import type { ModelConfig } from "./config.js";
import type { LoraConfig } from "./lora.js";
import { type ParameterSource, takeParameters } from "./model-folder.js";
import { allocateModel, filled, layoutOf, type NativeModel, settled, shareModel } from "./native-model.js";

/** Where each adapter of a folder lies; every name, shape and type checked against the model they are for. */
export function adapterSources(
  directory: string,
  config: ModelConfig,
  { lora, sources }: Pick<AdapterFolder, "lora" | "sources">,
): ParameterSource[] {
  const left = new Map(sources);
  const found = takeParameters(directory, layoutOf(config, lora), left, ADAPTER_CONFIG);
  const [extra] = left.keys();
  if (extra === undefined) return found;
  const message = `${directory}: tensor "${extra}" is no adapter that this engine computes`;
  throw new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", message);
}

/** The weights of `under` with new adapters: A random, B 0. */
export async function newAdapters(
  under: NativeModel,
  { seed, ...lora }: LoraConfig & { readonly seed: number },
): Promise<NativeModel> {
  const model = await shareModel(under, lora);
  await settled(native.engineInitializeAdapters(model.handle, seed % 2 ** 32, Math.floor(seed / 2 ** 32)));
  return model;
}

/** The weights of `under`, without adapters that it has, with those of a folder. */
export async function readAdapters(under: NativeModel, directory: string): Promise<NativeModel> {
  const folder = await readAdapterFolder(directory);
  const found = adapterSources(directory, under.config, folder);
  return filled(await shareModel(under, folder.lora), found);
}

/** A copy of the weights with the adapters added to them. */
export async function mergedModel({ config, placement, handle }: NativeModel): Promise<NativeModel> {
  const whole = await allocateModel(config, layoutOf(config), placement);
  await settled(native.engineMerge(whole.handle, handle));
  return whole;
}
