import { invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import type { DType } from "./dtype.js";

/** What the elements of a dtype lie in; f16 and bf16 are raw bits. */
interface Elements {
  readonly f32: Float32Array;
  readonly f16: Uint16Array;
  readonly bf16: Uint16Array;
}

/**
 * A typed view of memory with a shape, row-major. Disposing releases it: using it afterwards is ERR_RLSD_DISPOSED. A
 * queued call that uses it then goes on, and the memory goes when that call has ended.
 */
export interface Tensor<D extends DType = DType> extends Disposable {
  /** f16 and bf16 are raw bits in a Uint16Array. */
  readonly dtype: D;
  /** Frozen; [] of a single number. */
  readonly shape: readonly number[];
  /** "cpu", "cuda:0", ... */
  readonly device: string;
  /** On the CPU the memory itself. Elsewhere it throws ERR_RLSD_DEVICE_TENSOR: use toHost. */
  readonly data: Elements[D];
}

/** What every tensor of this library is made from: how isTensor knows them. */
export abstract class BaseTensor implements Tensor {
  /** A proxy of a tensor and an object that only inherits from one have no such field: their memory could not be had. */
  readonly #made = true;
  readonly dtype: DType;
  readonly shape: readonly number[];
  abstract readonly device: string;
  abstract readonly data: Float32Array | Uint16Array;

  constructor(shape: readonly number[], dtype: DType) {
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
  }

  abstract [Symbol.dispose](): void;

  static made(value: unknown): value is BaseTensor {
    return typeof value === "object" && value !== null && #made in value;
  }
}

export function isTensor(value: unknown): value is Tensor {
  return BaseTensor.made(value);
}

/** More dimensions than this no array library has. */
const MAX_RANK = 64;

/** A copy of a shape, each dimension read once; throws ERR_RLSD_INVALID_ARGUMENT unless all are non-negative integers. */
export function checkShape(shape: readonly number[]): readonly number[] {
  if (!Array.isArray(shape)) throw invalid("an array of dimensions", "shape", shape, "Give one, like [rows, columns].");
  const checked: number[] = [];
  for (const size of shape) {
    if (checked.length === MAX_RANK) throw invalid(`at most ${MAX_RANK} dimensions`, "shape", shape);
    if (!Number.isSafeInteger(size) || size < 0)
      throw invalid("a non-negative integer", `shape[${checked.length}]`, size);
    checked.push(size);
  }
  return checked;
}

/** Elements of a shape that was checked; throws ERR_RLSD_INVALID_ARGUMENT for more than can be counted. */
export function elementCount(shape: readonly number[]): number {
  const count = shape.reduce((a, b) => a * b, 1);
  if (Number.isSafeInteger(count)) return count;
  throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `The shape [${shape.join(", ")}] has too many elements.`);
}

export function disposedError(): RlsdError {
  return new RlsdError("ERR_RLSD_DISPOSED", "This tensor was disposed. Make a new one with tensor() or empty().");
}
