import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type HostTensor, readTensors, writeTensors } from "./safetensors.js";
import { temporaryFolder } from "./small-policy.js";

export const models = join(__dirname, "../fixtures/models");
export const PEFT = join(models, "qwen2-bias-lora");
export const BASE = join(models, "qwen2-bias");
export const WEIGHTS = "adapter_model.safetensors";
type Json = Record<string, unknown>;

/** PEFT's folder on a base that is named by its whole path. */
export function copyOfPeft(change: Json = {}): string {
  const directory = join(temporaryFolder(), "adapters");
  cpSync(PEFT, directory, { recursive: true });
  setConfig(directory, { base_model_name_or_path: BASE, ...change });
  return directory;
}

export const configOf = (directory: string): Json =>
  JSON.parse(readFileSync(join(directory, "adapter_config.json"), "utf8")) as Json;

export const setConfig = (directory: string, change: Json): void =>
  writeFileSync(join(directory, "adapter_config.json"), JSON.stringify({ ...configOf(directory), ...change }));

/** Rewrites a folder's tensors. */
export function setTensors(directory: string, edit: (tensors: Map<string, HostTensor>) => void): void {
  const tensors = readTensors(join(directory, WEIGHTS));
  edit(tensors);
  writeTensors(join(directory, WEIGHTS), tensors);
}
