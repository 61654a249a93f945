import { RlsdError } from "../../errors.js";
import { quantizeQ8 } from "../../gguf/quantize.js";
import { typeOf, type WrittenType } from "../../gguf/types.js";
import type { TensorPlan } from "../../gguf/write.js";
import { ARCHITECTURES } from "../architecture.js";
import type { NativeModel } from "../model-handle.js";
import type { FileType } from "../native-model.js";
import { roundedParameter } from "../overflow.js";
import { shapeOf } from "../sources.js";
import { GGUF_ARCHITECTURES } from "./architectures.js";
import { queryScale } from "./metadata.js";
import { ggufName, HEAD, headsOf, isNorm } from "./names.js";
import { pairRows } from "./pair-rows.js";
import type { ExtraTensor } from "./rope-metadata.js";

/** What the matrices of a GGUF file are written as. */
export const GGUF_DTYPES = ["f32", "bf16", "f16", "q8_0"] as const;
export type GgufDType = (typeof GGUF_DTYPES)[number];

const TYPES = { f32: "F32", bf16: "BF16", f16: "F16", q8_0: "Q8_0" } as const satisfies Record<GgufDType, WrittenType>;

/** A tensor of the file and its bytes. */
export interface FileTensor extends TensorPlan {
  readonly chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

const floats = (bytes: Uint8Array): Float32Array =>
  new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const bytesOf = (values: Float32Array): Uint8Array => new Uint8Array(values.buffer);

function quantized(values: Float32Array, name: string): Uint8Array {
  const blocks = quantizeQ8(values);
  if (blocks instanceof Uint8Array) return blocks;
  throw new RlsdError(
    "ERR_RLSD_SAVE",
    `tensor "${name}" holds ${blocks.bad}, which q8_0 does not have: expected "bf16" or "f32" for dtype.`,
  );
}

/** Vectors stay float32, and so do what q8_0 cannot have as blocks: those matrices are float16. */
function typeIn(shape: readonly number[], dtype: GgufDType): WrittenType {
  if (shape.length === 1) return "F32";
  const whole = dtype !== "q8_0" || (shape.at(-1) as number) % typeOf("Q8_0").blockSize === 0;
  return whole ? TYPES[dtype] : "F16";
}

/** What norms are written as: with what they add to their weight, and a gemma3's queries with what llama.cpp leaves out. */
function normValues(model: NativeModel, name: string): ((weight: number) => number) | undefined {
  const { normOffset } = ARCHITECTURES[model.config.modelType];
  const scale = name.endsWith(".q_norm.weight") ? queryScale(model.config) : 1;
  return isNorm(name) && (normOffset !== 0 || scale !== 1) ? (weight) => (normOffset + weight) * scale : undefined;
}

function parameterTensor(model: NativeModel, index: number, dtype: GgufDType): FileTensor {
  const { config, layout } = model;
  const name = layout.names[index] as string;
  const shape = shapeOf(layout, index);
  const type = typeIn(shape, dtype);
  const paired = GGUF_ARCHITECTURES[config.modelType].paired && headsOf(name) !== undefined;
  const columns = shape.length === 1 ? 1 : (shape[1] as number);
  const read: FileType = type === "Q8_0" ? "F32" : type;
  const change = normValues(model, name);
  async function* chunks(): AsyncGenerator<Uint8Array> {
    const step = paired ? config.headDim * columns : undefined;
    for await (const part of roundedParameter(model, index, read, step)) {
      const rows = paired ? pairRows(part, config.headDim) : part;
      if (type === "Q8_0") yield quantized(floats(rows), name);
      else yield change === undefined ? rows : bytesOf(floats(rows).map(change));
    }
  }
  return { name: ggufName(config.modelType, name), shape, type, chunks };
}

const extraTensor = ({ name, values }: ExtraTensor): FileTensor => ({
  name,
  shape: [values.length],
  type: "F32",
  chunks: () => [bytesOf(values)],
});

/** All tensors of a model's file, in the order of the model. */
export function fileTensors(model: NativeModel, extras: readonly ExtraTensor[], dtype: GgufDType): FileTensor[] {
  const tensors = model.layout.names.map((_, index) => parameterTensor(model, index, dtype));
  const { modelType, tieEmbeddings } = model.config;
  const head =
    tieEmbeddings && GGUF_ARCHITECTURES[modelType].ownHead ? [{ ...(tensors[0] as FileTensor), name: HEAD }] : [];
  return [...tensors, ...head, ...extras.map(extraTensor)];
}
