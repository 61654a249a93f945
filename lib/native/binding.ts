import type { DeviceBinding } from "./device-binding.js";
import type { EngineBinding } from "./engine-binding.js";

/** Every argument of the native `policyLoss`, in order. Absent arrays are undefined; statistics are written at meta's end. */
type PolicyLossArguments = [
  meta: Float64Array,
  objective: Float64Array,
  tokenIds: Int32Array | undefined,
  cuSeqlens: Int32Array,
  completionMask: Uint8Array | undefined,
  spanMask: Uint8Array | undefined,
  advantages: Float32Array,
  oldLogProbs: Float32Array | undefined,
  refLogProbs: Float32Array | undefined,
  samplerLogProbs: Float32Array | undefined,
  student: Float32Array | Uint16Array,
  studentHead: Float32Array | Uint16Array | undefined,
  studentBias: Float32Array | Uint16Array | undefined,
  studentRows: Int32Array | undefined,
  teacher: Float32Array | Uint16Array | undefined,
  teacherHead: Float32Array | Uint16Array | undefined,
  teacherBias: Float32Array | Uint16Array | undefined,
  teacherRows: Int32Array | undefined,
  contrast: Float32Array | Uint16Array | undefined,
  contrastHead: Float32Array | Uint16Array | undefined,
  contrastBias: Float32Array | Uint16Array | undefined,
  contrastRows: Int32Array | undefined,
  logProbs: Float32Array | undefined,
  teacherLogProbs: Float32Array | undefined,
  tokenAdvantages: Float32Array,
  evidenceWeights: Float32Array,
  gradientLogProbs: Float32Array | undefined,
  gradientLogits: Float32Array | Uint16Array | undefined,
  gradientHidden: Float32Array | Uint16Array | undefined,
  gradientHead: Float32Array | Uint16Array | undefined,
  gradientBias: Float32Array | Uint16Array | undefined,
  cancel: Int32Array | undefined,
];

/** Every argument of the native `policyTokens`, in order: log-probs alone. */
type PolicyTokensArguments = [
  meta: Float64Array,
  objective: Float64Array,
  cuSeqlens: Int32Array,
  completionMask: Uint8Array | undefined,
  spanMask: Uint8Array | undefined,
  advantages: Float32Array,
  oldLogProbs: Float32Array | undefined,
  refLogProbs: Float32Array | undefined,
  samplerLogProbs: Float32Array | undefined,
  student: Float32Array,
  teacher: Float32Array | undefined,
  contrast: Float32Array | undefined,
  logProbs: Float32Array | undefined,
  teacherLogProbs: Float32Array | undefined,
  tokenAdvantages: Float32Array,
  evidenceWeights: Float32Array,
  gradientLogProbs: Float32Array | undefined,
];

/** Every argument of the native `tokenLogProbs`, in order. */
type TokenLogProbsArguments = [
  meta: Float64Array,
  tokenIds: Int32Array,
  completionMask: Uint8Array | undefined,
  scores: Float32Array | Uint16Array | undefined,
  head: Float32Array | Uint16Array | undefined,
  bias: Float32Array | Uint16Array | undefined,
  rows: Int32Array | undefined,
  logProbs: Float32Array,
  entropy: Float32Array | undefined,
  cancel: Int32Array | undefined,
];

/** Every argument of the native `distillLoss`, in order. Its statistics are written at the end of meta. */
type DistillLossArguments = [
  meta: Float64Array,
  cuSeqlens: Int32Array,
  completionMask: Uint8Array | undefined,
  student: Float32Array | Uint16Array | undefined,
  studentHead: Float32Array | Uint16Array | undefined,
  studentBias: Float32Array | Uint16Array | undefined,
  studentRows: Int32Array | undefined,
  teacher: Float32Array | Uint16Array | undefined,
  teacherHead: Float32Array | Uint16Array | undefined,
  teacherBias: Float32Array | Uint16Array | undefined,
  teacherRows: Int32Array | undefined,
  tokenLosses: Float32Array | undefined,
  gradientLogits: Float32Array | Uint16Array | undefined,
  gradientHidden: Float32Array | Uint16Array | undefined,
  gradientHead: Float32Array | Uint16Array | undefined,
  gradientBias: Float32Array | Uint16Array | undefined,
  cancel: Int32Array | undefined,
];

/** What a backend can do. `entries` names each operation of the backend table. */
interface BackendDescription {
  readonly name: string;
  readonly abiVersion: number;
  /** Threads a loop may use; 0 where the backend is not the CPU. */
  readonly threads: number;
  /** Whether products of bfloat16 factors are faster than those of float32. */
  readonly bf16Products: boolean;
  readonly entries: Readonly<Record<string, boolean>>;
}

/** What a queued call resolves with: RLSD_OK, or the status and its words. */
export type Outcome = number | [status: number, message: string, index: number, count: number];

/** The addon's exports. Functions return an rlsd_status (see status.ts); `lastError` has the words of the last failure. */
export interface NativeBinding extends EngineBinding, DeviceBinding {
  noop(): void;
  /** Takes no queued call from here on; those that wait are dropped, and one that runs is stopped. */
  closeQueue(): void;
  /** Asks for huge pages under new memory, which has not been touched yet. */
  adviseHugePages(memory: Uint8Array): void;
  lastError(): [message: string, index: number, count: number];
  /** Index of the backend in the library at an absolute path, or -1. */
  loadBackend(path: string): number;
  describeBackend(index: number): BackendDescription | undefined;
  /** `refused`: what RLSD_ISA asks for where that is none of those that this processor has. */
  instructionSets(): [chosen: string, has: readonly string[], refused: string | undefined];
  /** What RLSD_NUM_THREADS says where that is no number from 1 to 256; undefined: it was taken, or says nothing. */
  refusedThreads(): string | undefined;
  /** A status: the synchronous call on log-probs, with few arguments to read. */
  policyTokens(...args: PolicyTokensArguments): number;
  /** A status, or a promise of an outcome when meta asks for a queued call. */
  policyLoss(...args: PolicyLossArguments): number | Promise<Outcome>;
  /** A status, or a promise of an outcome when meta asks for a queued call. */
  tokenLogProbs(...args: TokenLogProbsArguments): number | Promise<Outcome>;
  distillLoss(...args: DistillLossArguments): number | Promise<Outcome>;
}
