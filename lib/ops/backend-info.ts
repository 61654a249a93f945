import { native } from "../native/load.js";

export interface BackendInfo {
  readonly name: string;
  readonly available: boolean;
  /** Why it is not available. */
  readonly reason?: string;
  /** Threads a call may use (CPU). */
  readonly threads?: number;
  /** Operations of the backend table, and whether this backend has them. */
  readonly operations?: Readonly<Record<string, boolean>>;
}

/** What is available on this machine and, where not, why. */
export function backendInfo(): Readonly<Record<"cpu" | "cuda", BackendInfo>> {
  const cpu = native.describeBackend(0);
  return {
    cpu: { name: "cpu", available: true, threads: cpu?.threads ?? 1, operations: cpu?.entries ?? {} },
    cuda: { name: "cuda", available: false, reason: "This build has no CUDA backend." },
  };
}
