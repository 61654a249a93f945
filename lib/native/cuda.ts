import { existsSync } from "node:fs";
import { join } from "node:path";
import type { DeviceDescription } from "./device-binding.js";
import { CUDA_BUILD, libraryFolders, native } from "./load.js";

/** Why CUDA cannot be used. */
type CudaReason =
  | "not-built"
  | "not-loadable"
  | "no-driver"
  | "driver-too-old"
  | "no-device"
  | "device-too-old"
  | "not-usable";

type CudaState =
  | { readonly available: true; readonly backend: number; readonly devices: number }
  | { readonly available: false; readonly reason: CudaReason; readonly message: string };

const no = (reason: CudaReason, message: string): CudaState => ({ available: false, reason, message });

/** The driver's library; the runtime inside ours cannot tell "no driver" from "driver too old". */
const DRIVER = process.platform === "win32" ? "nvcuda.dll" : "libcuda.so.1";

/** The oldest compute capability that the library has code for. */
const OLDEST_MAJOR = 8;

function findLibrary(): string | CudaState {
  const given = process.env.RLSD_CUDA_LIBRARY;
  const places = given === undefined ? libraryFolders().map((folder) => join(folder, "librlsd_cuda.so")) : [given];
  const build =
    process.platform === "win32"
      ? "It is built on Linux, and in WSL."
      : `Where there is nvcc, this builds it: node ${CUDA_BUILD}`;
  const how = given === undefined ? build : "RLSD_CUDA_LIBRARY names it.";
  return places.find((place) => existsSync(place)) ?? no("not-built", `There is no ${places.join(" and no ")}. ${how}`);
}

const noDriver = (): CudaState => no("no-driver", `This machine has no NVIDIA driver: ${DRIVER} was not found.`);

/** Why no device could be counted. */
function explain(words: string): CudaState {
  if (!words.includes("cudaErrorInsufficientDriver")) return no("not-usable", words);
  return native.probeLibrary(DRIVER) ? no("driver-too-old", words) : noDriver();
}

/** What a device is, as far as it says so. Asking does not make a context on it. */
export function describeDevice(backend: number, ordinal: number): DeviceDescription {
  const found = native.deviceInfo(backend, ordinal);
  if (typeof found === "number") return { message: `cuda:${ordinal}: ${native.lastError()[0]}` };
  if (Number.parseInt(found.compute, 10) >= OLDEST_MAJOR) return found;
  const needs = `compute capability ${found.compute}, but ${OLDEST_MAJOR}.0 or newer is needed`;
  return { ...found, message: `cuda:${ordinal} (${found.name}) has ${needs}.` };
}

function probe(): CudaState {
  const path = findLibrary();
  if (typeof path !== "string") return path;
  // A library that was named is asked itself: it may need no driver.
  if (process.env.RLSD_CUDA_LIBRARY === undefined && !native.probeLibrary(DRIVER)) return noDriver();
  const backend = native.loadBackend(path);
  if (backend < 0) return no("not-loadable", `${path} could not be opened: ${native.lastError()[0]}`);
  const devices = native.deviceCount(backend);
  if (devices < 0) return explain(native.lastError()[0]);
  if (devices === 0) return no("no-device", "The driver finds no CUDA device. CUDA_VISIBLE_DEVICES may hide it.");
  const all = Array.from({ length: devices }, (_, ordinal) => describeDevice(backend, ordinal));
  if (all.some(({ message }) => message === undefined)) return { available: true, backend, devices };
  const isOld = all.some(({ name }) => name !== undefined);
  return no(isOld ? "device-too-old" : "not-usable", all.map(({ message }) => message).join(" "));
}

let known: CudaState | undefined;

/** Whether CUDA can be used and, where not, why. Looked for once, when first asked; what may mend itself, each time. */
export function cudaState(): CudaState {
  if (known !== undefined) return known;
  const state = probe();
  if (state.available || state.reason !== "not-usable") known = state;
  return state;
}
