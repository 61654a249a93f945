import { RlsdError } from "../errors.js";
import { type DType, isDType } from "./dtype.js";
import { fixMemory, newMemory } from "./memory.js";

/**
 * A typed view of memory with a shape, row-major. Disposing releases it: using it afterwards is ERR_RLSD_DISPOSED. A
 * queued call that uses it then goes on, and the memory goes when that call has ended.
 */
export interface Tensor extends Disposable {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** "cpu", "cuda:0", ... */
  readonly device: string;
  /** On the CPU the memory itself. Elsewhere it throws ERR_RLSD_DEVICE_TENSOR: use toHost. */
  readonly data: Float32Array | Uint16Array;
}

/** Elements of a shape; throws ERR_RLSD_INVALID_ARGUMENT unless every dimension is a non-negative integer. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      const message = `Expected non-negative integers for shape but received [${shape.join(", ")}].`;
      throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
    }
    count *= size;
  }
  if (Number.isSafeInteger(count)) return count;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `The shape [${shape.join(", ")}] has too many elements.`);
}

class CpuTensor implements Tensor {
  readonly device = "cpu";
  readonly dtype: DType;
  readonly shape: readonly number[];
  #data: Float32Array | Uint16Array | undefined;

  constructor(data: Float32Array | Uint16Array, shape: readonly number[], dtype: DType) {
    this.#data = data;
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
  }

  get data(): Float32Array | Uint16Array {
    if (this.#data !== undefined) return this.#data;
    throw new RlsdError("ERR_RLSD_DISPOSED", "This tensor was disposed. Make a new one with tensor() or empty().");
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
export function tensor(data: Float32Array | Uint16Array, shape: readonly number[], dtype?: DType): Tensor {
  const type = dtype ?? (data instanceof Float32Array ? "f32" : undefined);
  if (!isDType(type)) {
    const message = `Expected "f32", "f16" or "bf16" for dtype but received ${String(dtype)}. 16-bit data must say which it is.`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
  const wanted = type === "f32" ? Float32Array : Uint16Array;
  if (!ArrayBuffer.isView(data) || !(data instanceof wanted)) {
    const message = `Expected a ${wanted.name} for data of dtype ${type} but received ${(data as object)?.constructor?.name}.`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
  const count = elementCount(shape);
  if (data.length !== count) {
    const message = `Expected ${count} elements for shape [${shape.join(", ")}] but data has ${data.length}.`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
  fixMemory(data.buffer);
  return new CpuTensor(data, shape, type);
}

/** A new tensor of zeros. */
export function empty(shape: readonly number[], dtype: DType, device = "cpu"): Tensor {
  if (device !== "cpu") {
    throw new RlsdError("ERR_RLSD_BACKEND_UNAVAILABLE", `No backend serves the device ${device}. Available: cpu.`);
  }
  const count = elementCount(shape);
  const wide = dtype === "f32";
  const memory = newMemory(count * (wide ? 4 : 2));
  return tensor(wide ? new Float32Array(memory) : new Uint16Array(memory), shape, dtype);
}

export function isTensor(value: unknown): value is Tensor {
  return value instanceof CpuTensor;
}
