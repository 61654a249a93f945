import { RlsdError } from "../errors.js";
import { BaseTensor, disposedError, elementCount, type Tensor } from "./base.js";
import { emptyOnDevice } from "./device.js";
import { type DType, isDType } from "./dtype.js";
import { fixMemory, newMemory } from "./memory.js";

export { elementCount, isTensor, type Tensor } from "./base.js";

class CpuTensor extends BaseTensor {
  readonly device = "cpu";
  #data: Float32Array | Uint16Array | undefined;

  constructor(data: Float32Array | Uint16Array, shape: readonly number[], dtype: DType) {
    super(shape, dtype);
    this.#data = data;
  }

  get data(): Float32Array | Uint16Array {
    if (this.#data !== undefined) return this.#data;
    throw disposedError("tensor");
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

/**
 * A new tensor of zeros.
 *
 * @param device "cpu" (default) or "cuda:0"; ERR_RLSD_BACKEND_UNAVAILABLE where it cannot be used, ERR_RLSD_OUT_OF_MEMORY
 *   where it has no room
 */
export function empty(shape: readonly number[], dtype: DType, device = "cpu"): Tensor {
  if (device !== "cpu") return emptyOnDevice(shape, dtype, device);
  const count = elementCount(shape);
  const wide = dtype === "f32";
  const memory = newMemory(count * (wide ? 4 : 2));
  return tensor(wide ? new Float32Array(memory) : new Uint16Array(memory), shape, dtype);
}
