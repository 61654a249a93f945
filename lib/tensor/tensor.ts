import { types } from "node:util";
import { invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { bufferOf, isDetached, lengthOf } from "../typed-array.js";
import { BaseTensor, checkShape, disposedError, elementCount, type Tensor } from "./base.js";
import { emptyOnDevice } from "./device.js";
import { DTYPES_TEXT, type DType, isDType } from "./dtype.js";
import { fixMemory, newMemory, orOutOfMemory } from "./memory.js";

export { isTensor, type Tensor } from "./base.js";

class CpuTensor extends BaseTensor {
  readonly device = "cpu";
  #data: Float32Array | Uint16Array | undefined;

  constructor(data: Float32Array | Uint16Array, shape: readonly number[], dtype: DType) {
    super(shape, dtype);
    this.#data = data;
  }

  get data(): Float32Array | Uint16Array {
    if (this.#data !== undefined) return this.#data;
    throw disposedError();
  }

  [Symbol.dispose](): void {
    this.#data = undefined;
  }
}

/**
 * A view of `data` with a shape, without a copy. From then on the buffer under it can no longer be transferred to
 * another thread, as a queued call may be using it.
 *
 * @param data Float32Array for "f32"; Uint16Array of raw bits for "f16" and "bf16"
 * @param dtype default "f32" for a Float32Array; required for a Uint16Array
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT when type, length or dtype do not fit, or the buffer is resizable
 */
export function tensor(data: Float32Array, shape: readonly number[], dtype?: "f32"): Tensor<"f32">;
export function tensor<D extends "f16" | "bf16">(data: Uint16Array, shape: readonly number[], dtype: D): Tensor<D>;
export function tensor(data: Float32Array | Uint16Array, shape: readonly number[], dtype: DType): Tensor;
export function tensor(data: Float32Array | Uint16Array, shape: readonly number[], dtype?: DType): Tensor {
  const wide = types.isFloat32Array(data); // of any realm, unlike instanceof
  if (!wide && !types.isUint16Array(data)) {
    const mend = "Convert numbers with Float32Array.from(...).";
    throw invalid("a Float32Array, or a Uint16Array of f16 or bf16 bits,", "data", data, mend);
  }
  const type = dtype ?? (wide ? "f32" : undefined);
  if (!isDType(type)) throw invalid(DTYPES_TEXT, "dtype", dtype, "16-bit data must say which it is.");
  if (wide !== (type === "f32")) {
    const mend = wide ? "Of numbers it is made by toDType(tensor(data, shape), dtype)." : "";
    throw invalid(`a ${type === "f32" ? "Float32Array" : "Uint16Array"}`, `data of dtype ${type}`, data, mend);
  }
  const dimensions = checkShape(shape);
  const count = elementCount(dimensions);
  if (lengthOf(data) !== count) {
    const gone = isDetached(data) ? ": its memory was transferred away" : "";
    const message = `Expected ${count} elements for shape [${dimensions.join(", ")}] but data has ${lengthOf(data)}${gone}.`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
  fixMemory(bufferOf(data));
  return new CpuTensor(data, dimensions, type);
}

function zeros(count: number, wide: boolean): Float32Array | Uint16Array {
  const bytes = count * (wide ? 4 : 2);
  const make = (): Float32Array | Uint16Array => {
    const memory = newMemory(bytes);
    return wide ? new Float32Array(memory) : new Uint16Array(memory);
  };
  return orOutOfMemory(make, `a tensor of ${count} elements`, bytes, "Take fewer rows at a time.");
}

/**
 * A new tensor of zeros.
 *
 * @param device "cpu" (default) or "cuda:0"; ERR_RLSD_BACKEND_UNAVAILABLE where it cannot be used
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT for a shape or a dtype that is none; ERR_RLSD_OUT_OF_MEMORY where there is no
 *   room
 */
export function empty<D extends DType>(shape: readonly number[], dtype: D, device?: string): Tensor<D>;
export function empty(shape: readonly number[], dtype: DType, device = "cpu"): Tensor {
  const dimensions = checkShape(shape);
  if (!isDType(dtype)) throw invalid(DTYPES_TEXT, "dtype", dtype);
  if (device !== "cpu") return emptyOnDevice(dimensions, dtype, device);
  return tensor(zeros(elementCount(dimensions), dtype === "f32"), dimensions, dtype);
}
