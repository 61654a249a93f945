/** What a worker runs. */
export interface WorkerSpec {
  /** URL of a module whose `createJudge` takes `spec`; absent: that of the verifiers. */
  readonly maker?: string;
  readonly spec: Readonly<Record<string, unknown>>;
}

/** Parent to worker. The first message says what to judge with; every other one is a sample. */
export type ToWorker =
  | ({ readonly kind: "start" } & WorkerSpec)
  | { readonly kind: "judge"; readonly id: number; readonly sample: unknown };

/** Worker to parent. `failed`: the verifier itself cannot be made, so no sample is to blame. */
export type FromWorker =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly code: `ERR_RLSD_${string}`; readonly message: string }
  | { readonly kind: "verdict"; readonly id: number; readonly verdict: unknown };

/**
 * Descriptor, in a worker process, of a pipe that nothing is written to. It closes when the process that started the worker
 * ends, and when the thread of it that did so ends.
 */
export const LIFELINE = 4;
