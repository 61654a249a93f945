import type { EngineHandle, EngineLayout } from "../native/engine-binding.js";
import type { ModelConfig } from "./config.js";
import type { LoraConfig } from "./lora.js";

// Types alone: the public typings reach these and must need none of Node's.

export interface Placement {
  /** Threads of the pool to use at most; default all. Results do not depend on it, bit for bit. */
  readonly threads?: number | undefined;
  /** Bytes that weights, gradient, optimizer state, activations and cache may take together. Default: the machine's. */
  readonly memoryLimit?: number | undefined;
  /**
   * Input tokens of a batch that are computed at once, what neighbouring sequences have in common counted once: bounds the
   * activation memory. Default: as many as train in 2 GiB of activations, in 512 ... 8192.
   */
  readonly batchTokens?: number | undefined;
  /**
   * Training keeps each layer's input alone and computes the layer again for the backward pass: up to a third more time, a
   * fraction of the activations, the same bits. Default false.
   */
  readonly recompute?: boolean | undefined;
  /**
   * What the factors of matrix products are rounded to; sums, weights and all else stay float32. "bf16": where the processor
   * multiplies pairs of bfloat16 (`backendInfo().cpu.matmulTypes`), about twice as fast; elsewhere the same as "f32", the default.
   */
  readonly matmulType?: "f32" | "bf16" | undefined;
}

/** One model in native memory. */
export interface NativeModel {
  readonly handle: EngineHandle;
  readonly config: ModelConfig;
  /** Its adapters; undefined: it has none, and its weights are what is trained. */
  readonly lora?: LoraConfig | undefined;
  /** Of what is trained. */
  readonly layout: EngineLayout;
  readonly placement: Placement;
}
