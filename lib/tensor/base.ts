import { invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import type { DType } from "./dtype.js";

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

/** What every tensor of this library is made from: how isTensor knows them. */
export abstract class BaseTensor implements Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  abstract readonly device: string;
  abstract readonly data: Float32Array | Uint16Array;

  constructor(shape: readonly number[], dtype: DType) {
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
  }

  abstract [Symbol.dispose](): void;
}

export function isTensor(value: unknown): value is Tensor {
  return value instanceof BaseTensor;
}

/** Elements of a shape; throws ERR_RLSD_INVALID_ARGUMENT unless every dimension is a non-negative integer. */
export function elementCount(shape: readonly number[]): number {
  if (!Array.isArray(shape)) throw invalid("an array of dimensions", "shape", shape, "Give one, like [rows, columns].");
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

export function disposedError(what: string): RlsdError {
  return new RlsdError("ERR_RLSD_DISPOSED", `This ${what} was disposed. Make a new one with tensor() or empty().`);
}
