import { cudaState, describeDevice } from "../native/cuda.js";
import { CUDA_KERNELS } from "../native/cuda-kernels.js";
import type { DeviceDescription } from "../native/device-binding.js";
import { native } from "../native/load.js";

/** What one backend can do on this machine. */
export interface BackendInfo {
  /** "cpu" or "cuda" */
  readonly name: string;
  /** Whether calls can run there now. */
  readonly available: boolean;
  /** Why it is not available: a word of docs/cuda.md's table. */
  readonly reason?: string;
  /** The same in a sentence. */
  readonly message?: string;
  /** Threads a call may use (CPU). */
  readonly threads?: number;
  /** What the factors of matrix products may be with effect on this machine (CPU): see `matmulType` of `loadPolicy`. */
  readonly matmulTypes?: readonly ("f32" | "bf16")[];
  /** Instructions that its kernels use (CPU): the widest that the processor has, or what RLSD_ISA says. */
  readonly instructionSet?: string;
  /** Operations of the backend table, and whether this backend has them. */
  readonly operations?: Readonly<Record<string, boolean>>;
  /** "cuda:0" first; those that cannot be used are among them, and say why. */
  readonly devices?: readonly DeviceDescription[];
  /** Kernels, and whether each has passed its checks on a GPU. The others need RLSD_CUDA_EXPERIMENTAL=1. */
  readonly kernels?: Readonly<Record<string, boolean>>;
}

function cudaInfo(): BackendInfo {
  const state = cudaState();
  const kernels = CUDA_KERNELS;
  if (!state.available)
    return { name: "cuda", available: false, reason: state.reason, message: state.message, kernels };
  const devices = Array.from({ length: state.devices }, (_, ordinal) => describeDevice(state.backend, ordinal));
  const operations = native.describeBackend(state.backend)?.entries ?? {};
  return { name: "cuda", available: true, operations, devices, kernels };
}

/** Instructions that the CPU's kernels use. Others agree with them to float32 tolerance. */
export const instructionSet = (): string => native.instructionSets()[0];

/** What is available on this machine and, where not, why. Asking does not fail. */
export function backendInfo(): Readonly<Record<"cpu" | "cuda", BackendInfo>> {
  const { threads = 1, bf16Products = false, entries: operations = {} } = native.describeBackend(0) ?? {};
  return {
    cpu: {
      name: "cpu",
      available: true,
      threads,
      instructionSet: instructionSet(),
      matmulTypes: bf16Products ? ["f32", "bf16"] : ["f32"],
      operations,
    },
    cuda: cudaInfo(),
  };
}
