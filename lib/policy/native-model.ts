import type { FileHandle } from "node:fs/promises";
import { totalmem } from "node:os";
import { constrainedMemory } from "node:process";
import { RlsdError } from "../errors.js";
import type { Outcome } from "../native/binding.js";
import {
  BLOCK,
  type EngineHandle,
  type EngineLayout,
  type Queued,
  type QueuedValue,
} from "../native/engine-binding.js";
import { native } from "../native/load.js";
import { throwUnlessDone } from "../native/status.js";
import { DTYPE_CODES, type DType } from "../tensor/dtype.js";
import { encodeConfig, type ModelConfig } from "./config.js";
import { decoded, heldIn } from "./gguf/decode.js";
import type { LoraConfig } from "./lora.js";
import type { NativeModel, Placement } from "./model-handle.js";
import { inverseFrequencies } from "./rope.js";
import { elementBytes, openForReading, readExactly, type TensorEntry } from "./safetensors.js";
import type { ParameterSource } from "./sources.js";

/** A seed as native code takes it: its low and its high 32 bits, which a double has exactly. */
export const seedWords = (seed: number): [low: number, high: number] => [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];

/** Bytes read from a file, or from a model, at a time. */
const CHUNK_BYTES = 4 << 20;
/** The types of tensors in files, by their names there. */
const DTYPES = { F32: "f32", F16: "f16", BF16: "bf16" } as const satisfies Record<string, DType>;
export type FileType = keyof typeof DTYPES;
const codeOf = (type: string): number => DTYPE_CODES[DTYPES[type as FileType]];

export async function settled(queued: Queued, signal?: AbortSignal): Promise<void> {
  throwUnlessDone(await queued, signal);
}

/** The value of a call that has one. A failure is [status, message, index, count]: text comes second in nothing else. */
export async function settledValue<T extends readonly unknown[]>(
  queued: QueuedValue<T>,
  signal?: AbortSignal,
): Promise<T> {
  const value = await queued;
  if (typeof value !== "number" && typeof value[1] !== "string") return value as T;
  throwUnlessDone(value as Outcome, signal);
  throw new RlsdError("ERR_RLSD_INTERNAL", "A queued call ended without a value.");
}

function defaultMemoryLimit(): number {
  const constrained = constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/** Bytes of activations that training keeps for so many tokens. */
export const trainingBytes = (config: Float64Array, tokens: number, { recompute = false }: Placement): number =>
  native.engineActivationBytes(config, tokens, recompute ? 1 : 2);

/** By default a function of the shape alone: how a batch is cut decides the last bits of a gradient. */
export function batchTokensOf(config: Float64Array, placement: Placement): number {
  if (placement.batchTokens !== undefined) return placement.batchTokens;
  const perToken = trainingBytes(config, 1024, placement) / 1024;
  return Math.min(8192, Math.max(512, Math.floor(2 ** 31 / perToken)));
}

/** Of the weights, or of the adapters. */
export const layoutOf = (config: ModelConfig, lora?: LoraConfig): EngineLayout =>
  native.engineLayout(encodeConfig(config, lora));

function openModel(config: ModelConfig, placement: Placement, lora?: LoraConfig): EngineHandle {
  const encoded = encodeConfig(config, lora);
  const place = Float64Array.of(
    0,
    0,
    placement.threads ?? 0,
    placement.memoryLimit ?? defaultMemoryLimit(),
    batchTokensOf(encoded, placement),
    Number(placement.recompute ?? false),
    DTYPE_CODES[placement.matmulType ?? "f32"],
  );
  return native.engineOpen(encoded, place);
}

/** Of all layers, then, where those that slide have their own, of these. */
function frequenciesOf({ rope, localRope, headDim, rotaryDim = headDim, maxLength }: ModelConfig): Float32Array {
  const kinds = localRope === undefined ? [rope] : [rope, localRope];
  return Float32Array.from(kinds.flatMap((kind) => [...inverseFrequencies(kind, rotaryDim, maxLength)]));
}

/** Memory for the weights, all 0; `dtype` is that of the matrices until one of them is changed. */
export async function allocateModel(
  config: ModelConfig,
  layout: EngineLayout,
  placement: Placement,
  dtype: DType = "f32",
): Promise<NativeModel> {
  const handle = openModel(config, placement);
  await settled(native.engineAllocate(handle, frequenciesOf(config), DTYPE_CODES[dtype]));
  return { handle, config, layout, placement };
}

/** A model that reads the weights of another, with adapters of its own, all 0, or without any. */
export async function shareModel(other: NativeModel, lora?: LoraConfig): Promise<NativeModel> {
  const { config, placement } = other;
  const handle = openModel(config, placement, lora);
  await settled(native.engineShare(handle, other.handle));
  return { handle, config, lora, layout: layoutOf(config, lora), placement };
}

/** The type in which the matrices of the weights are held now, which has every parameter exactly. */
export async function heldType({ handle }: NativeModel): Promise<DType> {
  const [, , code] = await settledValue(native.engineState(handle, -1));
  return Object.values(DTYPES).find((dtype) => DTYPE_CODES[dtype] === code) ?? "f32";
}

/** Streams one tensor of a file into a parameter's place in a block. */
export async function writeParameter(
  model: NativeModel,
  block: number,
  index: number,
  entry: TensorEntry,
  handle: FileHandle,
  file: string,
): Promise<void> {
  const width = elementBytes(entry.dtype);
  for (let at = entry.start; at < entry.end; at += CHUNK_BYTES) {
    const bytes = new Uint8Array(Math.min(CHUNK_BYTES, entry.end - at));
    await readExactly(handle, bytes, at, file);
    const offset = (model.layout.offsets[index] as number) + (at - entry.start) / width;
    await settled(native.engineWrite(model.handle, block, offset, codeOf(entry.dtype), bytes));
  }
}

/** Streams one tensor of a GGUF file into a parameter's place. */
async function writeDecoded(
  model: NativeModel,
  index: number,
  source: ParameterSource,
  handle: FileHandle,
  held: FileType,
): Promise<void> {
  let offset = model.layout.offsets[index] as number;
  for await (const { dtype, bytes } of decoded(source, handle, held)) {
    await settled(native.engineWrite(model.handle, BLOCK.weights, offset, codeOf(dtype), bytes));
    offset += bytes.length / elementBytes(dtype);
  }
}

/** Streams each parameter's data into its place; `held`: of the matrices. */
async function loadParameters(model: NativeModel, sources: readonly ParameterSource[], held: FileType): Promise<void> {
  for (const file of new Set(sources.map((source) => source.file))) {
    const handle = await openForReading(file);
    try {
      for (const [i, source] of sources.entries()) {
        if (source.file !== file) continue;
        if (source.decoding !== undefined) await writeDecoded(model, i, source, handle, held);
        else await writeParameter(model, BLOCK.weights, i, source.entry, handle, file);
      }
    } finally {
      await handle.close();
    }
  }
}

/** The type of all tensors in the files, in which the matrices are held; float32 where there are several. */
async function typeOf(sources: readonly ParameterSource[]): Promise<FileType> {
  if (sources.some(({ decoding }) => decoding !== undefined)) return heldIn(sources);
  const [type = "F32", ...others] = new Set(sources.map(({ entry }) => entry.dtype as FileType));
  return others.length === 0 ? type : "F32";
}

/** The weights of files, in the type that they have there. */
export async function readModel(
  config: ModelConfig,
  placement: Placement,
  sources: readonly ParameterSource[],
): Promise<NativeModel> {
  const type = await typeOf(sources);
  return filled(await allocateModel(config, layoutOf(config), placement, DTYPES[type]), sources, type);
}

/** A new model once `work` on it is done; where that fails it gives its memory back, and weights that it shares. */
export async function orReleased(model: NativeModel, work: Promise<void>): Promise<NativeModel> {
  try {
    await work;
    return model;
  } catch (error) {
    await settled(native.engineRelease(model.handle));
    throw error;
  }
}

/** Fills a new model from files. */
export const filled = (
  model: NativeModel,
  sources: readonly ParameterSource[],
  held: FileType = "F32",
): Promise<NativeModel> => orReleased(model, loadParameters(model, sources, held));

/** `count` elements of a block from `offset` on, as bytes of the given type. */
export async function readElements(
  model: NativeModel,
  block: number,
  offset: number,
  count: number,
  dtype: FileType,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(count * elementBytes(dtype));
  await settled(native.engineRead(model.handle, block, offset, codeOf(dtype), bytes));
  return bytes;
}

/** The elements of one parameter in a block, as bytes of the given type, `step` elements at a time. */
export async function* readParameter(
  model: NativeModel,
  block: number,
  index: number,
  dtype: FileType,
  step = CHUNK_BYTES / elementBytes(dtype),
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const count = Math.max(1, model.layout.rows[index] as number) * (model.layout.columns[index] as number);
  for (let at = 0; at < count; at += step) {
    const offset = (model.layout.offsets[index] as number) + at;
    yield await readElements(model, block, offset, Math.min(step, count - at), dtype);
  }
}
