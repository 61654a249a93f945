import { RlsdError } from "../errors.js";
import { native } from "../native/load.js";
import { ADAPTER_CONFIG, type AdapterFolder } from "./adapter-folder.js";
import type { ModelConfig } from "./config.js";
import { encodeLora, type LoraConfig } from "./lora.js";
import { takeParameters } from "./model-folder.js";
import type { NativeModel } from "./model-handle.js";
import {
  allocateModel,
  filled,
  heldType,
  layoutOf,
  orReleased,
  seedWords,
  settled,
  shareModel,
} from "./native-model.js";
import { type ParameterSource, shapeOf } from "./sources.js";

/** Where each adapter of a folder lies; every name, shape and type checked against the model they are for. */
export function adapterSources(
  directory: string,
  config: ModelConfig,
  { lora, sources }: Pick<AdapterFolder, "lora" | "sources">,
): ParameterSource[] {
  const layout = layoutOf(config, lora);
  const extra = [...sources].find(([name]) => !layout.names.includes(name));
  if (extra !== undefined) {
    const message = `${directory}: tensor "${extra[1].name}" is no adapter that this engine computes on this model: expected names such as "${layout.names[0]}"`;
    throw new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", message);
  }
  return takeParameters(directory, layout, new Map(sources), `${ADAPTER_CONFIG} and the model that they stand on say`);
}

/** The weights of `under` with new adapters: A random, B 0. */
export async function newAdapters(
  under: NativeModel,
  { seed, ...lora }: LoraConfig & { readonly seed: number },
): Promise<NativeModel> {
  const model = await shareModel(under, lora);
  const { handle } = model;
  return orReleased(model, settled(native.engineInitializeAdapters(handle, ...seedWords(seed))));
}

/** The weights of `under`, without adapters that it has, with those of a folder that was read. */
export async function putAdapters(under: NativeModel, directory: string, folder: AdapterFolder): Promise<NativeModel> {
  const found = adapterSources(directory, under.config, folder);
  return filled(await shareModel(under, folder.lora), found);
}

/** A copy of the weights with the adapters added to them. */
export async function mergedModel({ config, placement, handle }: NativeModel): Promise<NativeModel> {
  const whole = await allocateModel(config, layoutOf(config), placement);
  return orReleased(whole, settled(native.engineMerge(whole.handle, handle)));
}

/** A copy of what is trained: of the weights, in the type that they are held in, or of the adapters on the same weights. */
export async function copiedModel(model: NativeModel): Promise<NativeModel> {
  const { config, layout, lora, placement, handle } = model;
  const copy = await (lora === undefined
    ? allocateModel(config, layout, placement, await heldType(model))
    : shareModel(model, lora));
  return orReleased(copy, settled(native.engineCopy(copy.handle, handle, 0)));
}

const refuse = (message: string): never => {
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
};

/** What `theirs` trains can be copied to `own`, and means the same there; `sameWeights`: what is under adapters is. */
export function checkAlike(own: NativeModel, theirs: NativeModel, sameWeights: boolean): void {
  const parameters = ({ layout }: NativeModel) =>
    layout.names.map((name, i) => `${name} [${shapeOf(layout, i).join(", ")}]`);
  const [here, there] = [parameters(own), parameters(theirs)];
  const at = Array.from({ length: Math.max(here.length, there.length) }, (_, i) => i).find((i) => here[i] !== there[i]);
  if (at !== undefined) {
    refuse(
      `Expected a policy of the same shape, but it trains ${there[at] ?? "nothing"} where this one trains ${here[at] ?? "nothing"}.`,
    );
  }
  const [scale, other] = [encodeLora(own.lora)[1], encodeLora(theirs.lora)[1]];
  if (scale !== other)
    refuse(`Expected adapters with the scale ${scale} but received those of a policy with ${other}.`);
  if (own.lora !== undefined && !sameWeights) {
    refuse("Expected adapters on the same weights: save the others and put them on these by withAdapters().");
  }
}
