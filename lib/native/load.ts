import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { messageOf, RlsdError } from "../errors.js";
import type { NativeBinding } from "./binding.js";

const require = createRequire(import.meta.url);

/** The package's root: two levels above this file, both in `lib` and in `dist`. */
const root = resolve(dirname(fileURLToPath(import.meta.url)), "..", "..");

function howToMend(): string {
  const platform = `${process.platform}-${process.arch}`;
  return [
    `No native build of rlsd was found for ${platform}, Node ${process.versions.node}.`,
    "Possible ways out:",
    "- Install scripts are blocked (npm 12 does so by default):",
    "    npm approve-scripts rlsd && npm rebuild rlsd",
    "- Install scripts were ignored (--ignore-scripts):",
    "    npm rebuild rlsd",
    ...(process.platform === "win32"
      ? ["- There is a prebuilt binary for Windows on x64 alone. In WSL it is Linux's."]
      : [
          "- There is no prebuilt binary for this machine. Install a C++ compiler, make and python3, then:",
          "    npm rebuild rlsd --foreground-scripts",
        ]),
    "- In a clone of the repository:",
    "    npm run build",
  ].join("\n");
}

/** ERR_RLSD_LOAD where RLSD_ISA cannot be had: it is there so that machines agree, which another set would not. */
export function checkInstructionSet([, has, refused]: ReturnType<NativeBinding["instructionSets"]>): void {
  if (refused === undefined) return;
  const sets = has.map((name) => `"${name}"`).join(", ");
  throw new RlsdError(
    "ERR_RLSD_LOAD",
    `RLSD_ISA is "${refused}": expected one of ${sets}, which this processor has, or no RLSD_ISA for the first of them.`,
  );
}

/** ERR_RLSD_LOAD where RLSD_NUM_THREADS is no number of threads: who sets it relies on it. */
function checkThreads(refused: string | undefined): void {
  if (refused === undefined) return;
  throw new RlsdError(
    "ERR_RLSD_LOAD",
    `RLSD_NUM_THREADS is "${refused}": expected an integer from 1 to 256, or no RLSD_NUM_THREADS for the CPUs that this process may run on.`,
  );
}

function loadBinding(): NativeBinding {
  let path: string;
  try {
    path = (require("node-gyp-build") as { resolve(dir: string): string }).resolve(root);
  } catch (cause) {
    throw new RlsdError("ERR_RLSD_LOAD", howToMend(), { cause });
  }
  try {
    return require(path) as NativeBinding;
  } catch (cause) {
    const message = `The native build ${path} could not be opened: ${messageOf(cause)}\n${howToMend()}`;
    throw new RlsdError("ERR_RLSD_LOAD", message, { cause });
  }
}

/** The addon. Loaded once, when this module is. */
export const native: NativeBinding = loadBinding();
checkInstructionSet(native.instructionSets());
checkThreads(native.refusedThreads());

// process.exit and uncaught errors leave out an environment's clean-up, after which the process's exit handlers would take
// down what a queued call that still runs needs.
process.once("exit", () => native.closeQueue());

/** The script that builds the CUDA backend, in a clone as in an installed package. */
export const CUDA_BUILD = join(root, "scripts", "build-cuda.cjs");

/** Where other backends may lie: beside the addon, and where a build puts them when the addon is a prebuilt one. */
export function libraryFolders(): readonly string[] {
  const addon = dirname((require("node-gyp-build") as { resolve(dir: string): string }).resolve(root));
  return [...new Set([addon, join(root, "build", "Release")])];
}
