// Builds build/Release/librlsd_cuda.so with nvcc, where there is one: machine code for compute capability 8.0 and 9.0a, and
// PTX of 8.0 and 9.0 that devices without machine code of their own compile: with clusters from 9.0 on. Objects are kept in build-cuda/ and made again when what they read has changed.
//
//   node scripts/build-cuda.cjs [--arch sm_90a]      RLSD_CUDA=0 leaves it out, NVCC names another compiler
const { spawn, spawnSync } = require("node:child_process");
const { createHash } = require("node:crypto");
const { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const folder = path.join(root, "build-cuda");
const ARCHITECTURES = {
  sm_80: ["-gencode", "arch=compute_80,code=sm_80"],
  sm_90a: ["-gencode", "arch=compute_90a,code=sm_90a"],
  ptx_80: ["-gencode", "arch=compute_80,code=compute_80"],
  ptx_90: ["-gencode", "arch=compute_90,code=compute_90"],
};
// --fmad=false: products and sums are rounded one by one, as on the host, so that branches on them agree; loops that gain
// from a fused multiply-add ask for it by name.
const { cudaFlags, cudaLinkFlags } = JSON.parse(readFileSync(path.join(root, "csrc/sources.json"), "utf8"));
const FLAGS = [...cudaFlags, "-Xptxas", "-v", "--Werror", "cross-execution-space-call,reorder"];

/** Path of nvcc, or undefined where there is none or RLSD_CUDA=0 says to do without. */
function findNvcc() {
  if (process.env.RLSD_CUDA === "0") return undefined;
  const candidates = [process.env.NVCC, "nvcc", "/usr/local/cuda/bin/nvcc"].filter(Boolean);
  return candidates.find((nvcc) => spawnSync(nvcc, ["--version"], { stdio: "ignore" }).status === 0);
}

function files(at) {
  const full = path.join(root, at);
  if (statSync(full).isFile()) return [at];
  return readdirSync(full)
    .sort()
    .flatMap((name) => files(path.join(at, name)));
}

/** A hash of everything that an object of `source` depends on. */
function fingerprint(nvcc, source, flags) {
  const headers = ["csrc/include", "csrc/core", "csrc/cuda"].flatMap(files).filter((file) => !file.endsWith(".cu"));
  const hash = createHash("sha256").update(spawnSync(nvcc, ["--version"], { encoding: "utf8" }).stdout);
  for (const flag of flags) hash.update(flag).update("\0");
  for (const file of [source, ...headers]) hash.update(readFileSync(path.join(root, file))).update("\0");
  return hash.digest("hex");
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root });
    let output = "";
    child.stdout.on("data", (text) => (output += text));
    child.stderr.on("data", (text) => (output += text));
    child.on("error", (error) => resolve({ status: 1, output: String(error) }));
    child.on("close", (status) => resolve({ status, output }));
  });
}

/** Compiles one source, unless its object is fresh. The compiler's resource report stays beside the object. */
async function compile(nvcc, source, flags) {
  const object = path.join(folder, `${path.basename(source, ".cu")}.o`);
  const current = fingerprint(nvcc, source, flags);
  const stamp = `${object}.stamp`;
  if (existsSync(object) && existsSync(stamp) && readFileSync(stamp, "utf8") === current) return object;
  const { status, output } = await run(nvcc, [...flags, "-c", source, "-o", object]);
  if (status !== 0) throw new Error(`${source}\n${output}`);
  writeFileSync(`${object}.report`, output);
  writeFileSync(stamp, current);
  return object;
}

/** Builds the library; its path, or undefined where there is no nvcc. */
async function buildCuda({ architectures = Object.keys(ARCHITECTURES) } = {}) {
  const nvcc = findNvcc();
  if (nvcc === undefined) return undefined;
  mkdirSync(folder, { recursive: true });
  const flags = [...FLAGS, ...architectures.flatMap((name) => ARCHITECTURES[name])];
  const sources = files("csrc/cuda").filter((file) => file.endsWith(".cu"));
  const waiting = [...sources].reverse();
  const objects = [];
  const worker = async () => {
    for (let source = waiting.pop(); source !== undefined; source = waiting.pop()) {
      objects.push(await compile(nvcc, source, flags));
    }
  };
  await Promise.all(Array.from({ length: Math.max(2, Math.floor(os.cpus().length / 2)) }, worker));
  const library = path.join(folder, "librlsd_cuda.so");
  const link = [...cudaLinkFlags, ...architectures.flatMap((name) => ARCHITECTURES[name]), ...objects.sort()];
  link.push("-o", library);
  const { status, output } = await run(nvcc, link);
  if (status !== 0) throw new Error(output);
  const place = path.join(root, "build", "Release");
  mkdirSync(place, { recursive: true });
  copyFileSync(library, path.join(place, "librlsd_cuda.so"));
  return library;
}

module.exports = { buildCuda, findNvcc, folder };

if (require.main === module) {
  const at = process.argv.indexOf("--arch");
  buildCuda(at < 0 ? {} : { architectures: [process.argv[at + 1]] }).then(
    (library) => console.log(library ?? "not built: librlsd_cuda.so (no nvcc)"),
    (error) => {
      console.error(error.message);
      process.exit(1);
    },
  );
}
