import { existsSync } from "node:fs";
import { join } from "node:path";
import { addonDirectory, native } from "./load.js";

/** Why CUDA cannot be used. */
export type CudaReason = "not-built" | "not-loadable" | "no-driver" | "driver-too-old" | "no-device";

export type CudaState =
  | { readonly available: true; readonly backend: number; readonly devices: number }
  | { readonly available: false; readonly reason: CudaReason; readonly message: string };

const no = (reason: CudaReason, message: string): CudaState => ({ available: false, reason, message });

/** The driver's library; the runtime inside ours cannot tell "no driver" from "driver too old". */
const DRIVER = process.platform === "win32" ? "nvcuda.dll" : "libcuda.so.1";

function probe(): CudaState {
  const given = process.env.RLSD_CUDA_LIBRARY;
  const path = given ?? join(addonDirectory(), "librlsd_cuda.so");
  if (!existsSync(path)) {
    const how =
      given === undefined ? "npm run build:cuda builds it where nvcc is found." : "RLSD_CUDA_LIBRARY names it.";
    return no("not-built", `There is no ${path}. ${how}`);
  }
  if (given === undefined && !native.probeLibrary(DRIVER)) {
    return no("no-driver", `This machine has no NVIDIA driver: ${DRIVER} was not found.`);
  }
  const backend = native.loadBackend(path);
  if (backend < 0) return no("not-loadable", `${path} could not be opened: ${native.lastError()[0]}`);
  const devices = native.deviceCount(backend);
  if (devices > 0) return { available: true, backend, devices };
  if (devices === 0) return no("no-device", "The driver finds no CUDA device. CUDA_VISIBLE_DEVICES may hide it.");
  const words = native.lastError()[0];
  return no(words.includes("cudaErrorInsufficientDriver") ? "driver-too-old" : "no-device", words);
}

let known: CudaState | undefined;

/** Whether CUDA can be used and, where not, why. Looked for once, when first asked. */
export function cudaState(): CudaState {
  known ??= probe();
  return known;
}
