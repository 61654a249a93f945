import { randomBytes } from "node:crypto";
import { open, readdir, rm, unlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { checkBoolean, checkInteger, checkObject, checkPath, checkSignal, invalid } from "../check.js";
import { messageOf, RlsdError } from "../errors.js";
import { BLOCK } from "../native/engine-binding.js";
import { native } from "../native/load.js";
import type { DType } from "../tensor/dtype.js";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapterJson } from "./adapter-folder.js";
import { exists, makeFolder, removeAbandoned, renameOver, syncDirectory } from "./folder.js";
import { INDEX_FILE, isWeightFile } from "./model-folder.js";
import type { NativeModel } from "./model-handle.js";
import { heldType, readParameter, settledValue, writeParameter } from "./native-model.js";
import type { PolicyOrigin } from "./origin.js";
import { roundedParameter } from "./overflow.js";
import { newPlace, type Place } from "./place.js";
import { dataBytes, fileError, openForReading, readHeader, type TensorPlan, writeSafetensors } from "./safetensors.js";
import { shapeOf } from "./sources.js";

/** What `save` writes, and how. */
export interface SaveOptions {
  /** Also AdamW's moments and count of updates, in optimizer.safetensors. Default false. */
  readonly optimizer?: boolean | undefined;
  /** Type of the weights in the file. Default "f32", which loses nothing. */
  readonly dtype?: DType | undefined;
  /** A larger model is written in several files with an index. Default 5e9. */
  readonly maxShardBytes?: number | undefined;
  /** Stops between tensors: nothing of the save is left then, and it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

interface SaveOrigin extends PolicyOrigin {
  /** Folder that has the weights under the adapters. */
  readonly under: string | undefined;
}

const SAVE_FIELDS = new Set(["optimizer", "dtype", "maxShardBytes", "signal"]);
const TYPES = { f32: "F32", bf16: "BF16", f16: "F16" } as const;
const NAMES = { f32: "float32", bf16: "bfloat16", f16: "float16" } as const;
const OPTIMIZER_FILE = "optimizer.safetensors";
const MOMENTS = [
  { prefix: "exp_avg.", block: BLOCK.firstMoment },
  { prefix: "exp_avg_sq.", block: BLOCK.secondMoment },
] as const;

const plansOf = ({ layout }: NativeModel, dtype: TensorPlan["dtype"], prefix = ""): TensorPlan[] =>
  layout.names.map((name, i) => ({ name: prefix + name, shape: shapeOf(layout, i), dtype }));

/** Runs of tensors of at most `limit` bytes, or of one tensor. */
function shards(plans: readonly TensorPlan[], limit: number): TensorPlan[][] {
  const out: TensorPlan[][] = [];
  for (const plan of plans) {
    const last = out.at(-1);
    if (last !== undefined && dataBytes([...last, plan]) <= limit) last.push(plan);
    else out.push([plan]);
  }
  return out;
}

async function writeFlushed(file: string, content: string | Uint8Array): Promise<void> {
  const handle = await open(file, "wx");
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeWeights(
  model: NativeModel,
  aside: string,
  dtype: TensorPlan["dtype"],
  limit: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const plans = plansOf(model, dtype);
  const parts = model.lora === undefined ? shards(plans, limit) : [plans];
  const map: Record<string, string> = {};
  for (const [i, part] of parts.entries()) {
    const number = (n: number): string => String(n).padStart(5, "0");
    const whole = model.lora === undefined ? "model.safetensors" : ADAPTER_WEIGHTS;
    const file = parts.length === 1 ? whole : `model-${number(i + 1)}-of-${number(parts.length)}.safetensors`;
    for (const plan of part) map[plan.name] = file;
    await writeSafetensors(join(aside, file), part, { format: "pt" }, (plan) => {
      signal?.throwIfAborted();
      return roundedParameter(model, model.layout.names.indexOf(plan.name), dtype);
    });
  }
  if (parts.length === 1) return;
  const index = { metadata: { total_size: dataBytes(plans) }, weight_map: map };
  await writeFlushed(join(aside, INDEX_FILE), `${JSON.stringify(index, null, 2)}\n`);
}

/** What tells how the tensors are to be read: config.json, or adapter_config.json. */
async function writeDescription(model: NativeModel, origin: SaveOrigin, aside: string, dtype: string): Promise<void> {
  const write = (name: string, json: object) => writeFlushed(join(aside, name), `${JSON.stringify(json, null, 2)}\n`);
  if (model.lora !== undefined) return write(ADAPTER_CONFIG, adapterJson(model.lora, origin.under ?? null));
  const { torch_dtype: _, ...json } = origin.json;
  return write("config.json", { ...json, dtype });
}

/** A folder is a model's or its adapters', never both: readers would take the one for the other. */
async function refuseOtherKind(model: NativeModel, directory: string): Promise<void> {
  const names: string[] = await readdir(directory).catch(() => []);
  const other = model.lora === undefined ? ADAPTER_CONFIG : "config.json";
  if (!names.includes(other)) return;
  const message =
    model.lora === undefined
      ? `${directory} holds adapters: save a model to a folder of its own.`
      : `${directory} holds a model: save adapters to a folder of their own.`;
  throw new RlsdError("ERR_RLSD_SAVE", message);
}

async function writeOptimizer(model: NativeModel, aside: string): Promise<void> {
  const [, updates] = await settledValue(native.engineState(model.handle, -1));
  const plans = MOMENTS.flatMap(({ prefix }) => plansOf(model, "F32", prefix));
  const size = model.layout.names.length;
  await writeSafetensors(join(aside, OPTIMIZER_FILE), plans, { updates: String(updates) }, (plan) => {
    const at = plans.indexOf(plan);
    return readParameter(model, (MOMENTS[Math.floor(at / size)] ?? MOMENTS[0]).block, at % size, "F32");
  });
}

/** Files of an earlier save that this one does not write and that would contradict it. */
function isStale(name: string, written: readonly string[]): boolean {
  if (written.includes(name)) return false;
  return name === INDEX_FILE || name === OPTIMIZER_FILE || isWeightFile(name);
}

/** Moves the files of `aside` into `directory`: one rename when there is none yet, else file by file. */
async function publish(aside: string, directory: string): Promise<void> {
  const parent = dirname(directory);
  if (!(await exists(directory))) {
    await renameOver(aside, directory);
    return syncDirectory(parent);
  }
  const written = await readdir(aside);
  for (const name of written) await renameOver(join(aside, name), join(directory, name));
  for (const name of await readdir(directory)) {
    if (isStale(name, written)) await unlink(join(directory, name));
  }
  await syncDirectory(directory);
  await rm(aside, { recursive: true });
}

let turn: Promise<unknown> = Promise.resolve();

/** One after another in this process: what a folder holds stays so from the check of it to the last file. */
function inTurn<T>(body: () => Promise<T>): Promise<T> {
  const call = turn.then(body);
  turn = call.catch(() => undefined);
  return call;
}

/**
 * Everything is written and flushed in a folder beside `directory` before a file of `directory` is touched, so that a
 * save that fails leaves the old files whole. The place of the weights, where they are a model's and lost nothing.
 */
export async function saveModel(
  model: NativeModel,
  origin: SaveOrigin,
  path: string,
  o: SaveOptions,
): Promise<Place | undefined> {
  checkObject(o, "options", SAVE_FIELDS);
  const { dtype = "f32", optimizer = false, maxShardBytes = 5e9, signal } = o;
  if (!Object.hasOwn(TYPES, dtype)) throw invalid('"f32", "bf16" or "f16"', "dtype", dtype);
  checkBoolean(optimizer, "optimizer");
  checkInteger(maxShardBytes, "maxShardBytes", { min: 1 });
  checkSignal(signal);
  const directory = resolve(checkPath(path, "directory"));
  await refuseOtherKind(model, directory);
  const hidden = `.${basename(directory)}.`;
  const aside = join(dirname(directory), `${hidden}${randomBytes(6).toString("hex")}`);
  try {
    await makeFolder(aside);
    await writeWeights(model, aside, TYPES[dtype], maxShardBytes, signal);
    if (optimizer) await writeOptimizer(model, aside);
    await writeDescription(model, origin, aside, NAMES[dtype]);
    for (const [name, content] of origin.companions) await writeFlushed(join(aside, name), content);
    await syncDirectory(aside);
    const place = await inTurn(async () => {
      await refuseOtherKind(model, directory);
      signal?.throwIfAborted();
      const own = model.lora === undefined ? await newPlace(directory) : undefined;
      await publish(aside, directory);
      return own;
    });
    await removeAbandoned(directory, hidden).catch(() => undefined);
    return dtype === "f32" || dtype === (await heldType(model)) ? place : undefined;
  } catch (cause) {
    await rm(aside, { recursive: true, force: true }).catch(() => undefined);
    if (cause instanceof RlsdError || (signal?.aborted && cause === signal.reason)) throw cause;
    throw new RlsdError("ERR_RLSD_SAVE", `${directory}: could not save the model: ${messageOf(cause)}`, { cause });
  }
}

/** Reads optimizer.safetensors back into the moments; every entry is checked before any is written. */
export async function loadOptimizer(model: NativeModel, directory: string): Promise<void> {
  const file = join(directory, OPTIMIZER_FILE);
  const handle = await openForReading(file);
  try {
    const { tensors, metadata } = await readHeader(handle, file);
    const updates = Number(metadata.updates);
    if (!Number.isSafeInteger(updates) || updates < 0) {
      throw fileError(
        file,
        `expected a count of updates in its metadata but found ${JSON.stringify(metadata.updates)}`,
      );
    }
    const parts = MOMENTS.flatMap(({ prefix, block }) =>
      plansOf(model, "F32", prefix).map((plan, index) => {
        const entry = tensors.get(plan.name);
        if (entry === undefined) throw fileError(file, `tensor "${plan.name}" is missing`);
        if (entry.dtype !== "F32" || entry.shape.join() !== plan.shape.join()) {
          const found = `${entry.dtype} [${entry.shape.join(", ")}]`;
          throw fileError(file, `tensor "${plan.name}": expected F32 [${plan.shape.join(", ")}] but found ${found}`);
        }
        return { entry, block, index };
      }),
    );
    for (const { entry, block, index } of parts) await writeParameter(model, block, index, entry, handle, file);
    await settledValue(native.engineState(model.handle, updates));
  } finally {
    await handle.close();
  }
}
