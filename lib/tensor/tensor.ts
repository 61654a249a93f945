import type { DType } from "./dtype.js";

/** A typed view of memory with a shape, row-major. `dispose` releases it; using it afterwards is an error. */
export interface Tensor extends Disposable {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** "cpu", "cuda:0", ... */
  readonly device: string;
  /** On the CPU the memory itself. Elsewhere it throws ERR_RLSD_DEVICE_TENSOR: use toHost. */
  readonly data: Float32Array | Uint16Array;
}
