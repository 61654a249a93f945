import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const root = join(import.meta.dirname, "../..");
const folder = join(root, "build-test");
const run = promisify(execFile);
const flags = ["-std=c++17", "-O3", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden", "-fPIC"];

/** The C++ compiler, or undefined where there is none. */
export function compiler(): string | undefined {
  const name = process.env.CXX ?? "g++";
  try {
    execFileSync(name, ["--version"], { stdio: "ignore" });
    return name;
  } catch {
    return undefined;
  }
}

/** The C++ compiler where it can build the emulation, whose fibers are POSIX's contexts: musl has none. */
export function emulationCompiler(): string | undefined {
  const cxx = compiler();
  if (cxx === undefined || process.platform !== "linux") return undefined;
  try {
    const input = "#include <ucontext.h>\nint main() { makecontext(nullptr, nullptr, 0); }";
    execFileSync(cxx, ["-x", "c++", "-", "-o", "/dev/null"], { input, stdio: ["pipe", "ignore", "ignore"] });
    return cxx;
  } catch {
    return undefined;
  }
}

/** Everything that a source may include. */
function headers(): string[] {
  return (readdirSync(join(root, "csrc"), { recursive: true }) as string[])
    .filter((name) => /\.(h|inc|cuh)$/.test(name))
    .sort()
    .map((name) => join(root, "csrc", name));
}

function fingerprint(files: readonly string[], words: readonly string[]): string {
  const hash = createHash("sha256").update(words.join(" "));
  for (const file of files) hash.update(readFileSync(file));
  return hash.digest("hex").slice(0, 16);
}

/** Runs the compiler unless a file of the same inputs is there; several processes may do so at once. */
async function build(cxx: string, name: string, inputs: readonly string[], args: string[]): Promise<string> {
  const output = join(folder, `${fingerprint(inputs, [cxx, ...args])}-${name}`);
  if (existsSync(output)) return output;
  mkdirSync(folder, { recursive: true });
  const partial = `${output}.${process.pid}`;
  await run(cxx, [...args, "-o", partial]);
  renameSync(partial, output);
  return output;
}

/**
 * librlsd_cpu.so, the CPU backend as other languages load it: that which RLSD_TEST_CPU_LIBRARY names (as CMake builds it), or
 * one that is built once and kept until a source changes.
 */
export async function cpuLibrary(cxx: string): Promise<string> {
  const given = process.env.RLSD_TEST_CPU_LIBRARY;
  if (given !== undefined) return given;
  const lists = JSON.parse(readFileSync(join(root, "csrc/sources.json"), "utf8")) as Record<string, string[]>;
  const includes = headers();
  const objects: string[] = [];
  const waiting = [...(lists.cpu ?? []), "csrc/cpu/export.cc"];
  const worker = async (): Promise<void> => {
    for (let source = waiting.shift(); source !== undefined; source = waiting.shift()) {
      const path = join(root, source);
      const args = [...flags, `-I${root}/csrc`, `-I${root}/csrc/include`, "-c", path];
      objects.push(await build(cxx, `${source.replaceAll("/", "-")}.o`, [...includes, path], args));
    }
  };
  await Promise.all([worker(), worker()]);
  objects.sort();
  return await build(cxx, "librlsd_cpu.so", [], ["-shared", ...objects, "-ldl", "-lpthread"]);
}

const EMULATION = [
  ...["-std=c++17", "-O1", "-fPIC", "-pthread", "-fvisibility=hidden", "-DRLSD_CUDA_EMULATED", "-Wno-unknown-pragmas"],
  ...[`-I${root}/csrc/test/cuda_emulation`, `-I${root}/csrc`, `-I${root}/csrc/include`],
];

/** The CUDA backend with its kernels run by fibers on the host: csrc/test/cuda_emulation. */
export async function emulatedCudaLibrary(cxx: string): Promise<string> {
  const sources = ["cuda", "test/cuda_emulation"].flatMap((room) =>
    readdirSync(join(root, "csrc", room))
      .filter((name) => /\.(cu|cc)$/.test(name))
      .map((name) => join(root, "csrc", room, name)),
  );
  const includes = headers();
  const objects: string[] = [];
  const worker = async (): Promise<void> => {
    for (let path = sources.shift(); path !== undefined; path = sources.shift()) {
      const name = `emulated-${path.slice(path.lastIndexOf("/") + 1)}.o`;
      objects.push(await build(cxx, name, [...includes, path], [...EMULATION, "-x", "c++", "-c", path]));
    }
  };
  await Promise.all([worker(), worker()]);
  objects.sort();
  return await build(cxx, "librlsd_cuda_emulated.so", [], ["-shared", "-Wl,--no-undefined", ...objects]);
}

/** A program of one source in csrc/test, and of those that it includes. */
export async function testProgram(cxx: string, source: string, included: readonly string[] = []): Promise<string> {
  const path = join(root, "csrc/test", source);
  const args = ["-std=c++17", "-O1", `-I${root}/csrc`, `-I${root}/csrc/include`, path, "-ldl", "-lpthread"];
  const inputs = [...headers(), path, ...included.map((name) => join(root, name))];
  return await build(cxx, source.replace(".cc", ""), inputs, args);
}
