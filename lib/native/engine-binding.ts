import type { Outcome } from "./binding.js";

/** A model or a generation in native memory; means nothing to anybody but the addon. */
export interface EngineHandle {
  readonly handle?: never;
}

/** Places in its block of floats of what is trained: a model's parameters, or those of its adapters. */
export interface EngineLayout {
  readonly names: readonly string[];
  /** 0: a vector. */
  readonly rows: readonly number[];
  readonly columns: readonly number[];
  readonly offsets: readonly number[];
  /** Floats in all, gaps included. */
  readonly count: number;
  readonly parameterCount: number;
}

/** Blocks of a model: what is trained, its gradient, and AdamW's two moments. */
export const BLOCK = { weights: 0, gradient: 1, firstMoment: 2, secondMoment: 3 } as const;

/** A promise of 0 or of a failure; a number when the call could not be queued. */
export type Queued = Outcome | Promise<Outcome>;
/** The same for a call that resolves with a value of its own. */
export type QueuedValue<T> = number | Promise<T | Outcome>;

/**
 * The policy engine's functions. Arrays are read and written by the native thread until the promise settles: callers
 * pass arrays that nobody else holds. `cancelId` 0: the call cannot be cancelled.
 */
export interface EngineBinding {
  engineLayout(config: Float64Array): EngineLayout;
  /** `keep`: 0 nothing, 1 each layer's input, 2 all that training needs. */
  engineActivationBytes(config: Float64Array, tokens: number, keep: number): number;
  engineOpen(config: Float64Array, place: Float64Array): EngineHandle;
  /** `dtype` is that of the matrices until one of them is changed, which makes them float32. */
  engineAllocate(model: EngineHandle, inverseFrequencies: Float32Array, dtype: number): Queued;
  engineInitialize(
    model: EngineHandle,
    seedLow: number,
    seedHigh: number,
    deviation: number,
    scaleResidual: number,
  ): Queued;
  engineInitializeAdapters(model: EngineHandle, seedLow: number, seedHigh: number): Queued;
  /** `model`, instead of engineAllocate, reads the weights of `other`. */
  engineShare(model: EngineHandle, other: EngineHandle): Queued;
  /** The weights of `model` become those that `source` has with its adapters. */
  engineMerge(model: EngineHandle, source: EngineHandle): Queued;
  engineWrite(model: EngineHandle, block: number, offset: number, dtype: number, bytes: Uint8Array): Queued;
  engineRead(model: EngineHandle, block: number, offset: number, dtype: number, bytes: Uint8Array): Queued;
  engineCopy(model: EngineHandle, other: EngineHandle, rate: number): Queued;
  engineRelease(model: EngineHandle): Queued;
  engineState(model: EngineHandle, updates: number): QueuedValue<[memoryBytes: number, updates: number, dtype: number]>;
  engineStep(model: EngineHandle, options: Float64Array): QueuedValue<[gradientNorm: number, skipped: number]>;
  engineCancel(cancelId: number): void;
  engineScore(
    model: EngineHandle,
    ids: Int32Array,
    cuSeqlens: Int32Array,
    promptLengths: Int32Array,
    temperature: number,
    logProbs: Float32Array,
    cancelId: number,
  ): Queued;
  engineLogits(model: EngineHandle, ids: Int32Array, logits: Float32Array): Queued;
  engineAccumulate(
    model: EngineHandle,
    ids: Int32Array,
    cuSeqlens: Int32Array,
    promptLengths: Int32Array,
    objective: Float64Array,
    lossScale: number,
    cancelId: number,
    advantages: Float32Array,
    completionMask: Uint8Array | undefined,
    spanMask: Uint8Array | undefined,
    teacher: Float32Array | undefined,
    contrast: Float32Array | undefined,
    old: Float32Array | undefined,
    reference: Float32Array | undefined,
    sampler: Float32Array | undefined,
    outLogProbs: Float32Array,
    outTeacher: Float32Array | undefined,
    outTokenAdvantages: Float32Array,
    outEvidenceWeights: Float32Array,
    outGradient: Float32Array,
    stats: Float64Array,
  ): Queued;
  engineDistill(
    model: EngineHandle,
    teacher: EngineHandle,
    ids: Int32Array,
    cuSeqlens: Int32Array,
    promptLengths: Int32Array,
    teacherIds: Int32Array,
    teacherCuSeqlens: Int32Array,
    teacherPromptLengths: Int32Array,
    options: Float64Array,
    cancelId: number,
    completionMask: Uint8Array | undefined,
    tokenLosses: Float32Array,
    stats: Float64Array,
  ): Queued;
  engineGenerate(
    model: EngineHandle,
    ids: Int32Array,
    cuPrompts: Int32Array,
    stopIds: Int32Array,
    maxTokens: Int32Array,
    seeds: Float64Array,
    options: Float64Array,
  ): EngineHandle | number;
  /** `draws`: sequence, token and finish (0 running, 1 stop, 2 length) of each new token, in the order drawn. */
  engineDraw(
    generation: EngineHandle,
    steps: number,
    stopped: Int32Array,
    cancelId: number,
  ): QueuedValue<[done: boolean, draws: Int32Array, logProbs: Float32Array]>;
  engineEndGeneration(generation: EngineHandle): Queued;
  /** Sets the bytes of keys and values that may stay of what is drawn, unless `maxBytes` is negative. */
  enginePrefixes(
    model: EngineHandle,
    maxBytes: number,
  ): QueuedValue<[bytes: number, sequences: number, reusedTokens: number, computedTokens: number]>;
}
