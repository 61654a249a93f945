// Writes csrc/cuda/passed_kernels.h and lib/native/cuda-kernels.ts from bench/results: a kernel has passed when the newest
// result of a machine that could judge it says so, and is of the sources that are here. --check only compares.
const { createHash } = require("node:crypto");
const { existsSync, readdirSync, readFileSync, writeFileSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const KERNELS = ["policy-tokens", "rows-plain", "rows-resident"];

/** A hash of what kernels are compiled from, comments and spaces apart; the same as that of bench/gpu/build.py. */
function sources() {
  const folder = path.join(root, "csrc");
  const found = new Map();
  const files = readdirSync(path.join(folder, "cuda")).filter((name) => name.endsWith(".cu"));
  const waiting = files.map((name) => `cuda/${name}`);
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (found.has(name) || name === "cuda/passed_kernels.h") continue;
    const text = readFileSync(path.join(folder, name), "utf8");
    found.set(name, text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|\s+/g, ""));
    for (const [, included] of text.matchAll(/^#include "((?:core|cuda)\/[^"]+)"/gm)) waiting.push(included);
  }
  const { cudaFlags } = JSON.parse(readFileSync(path.join(folder, "sources.json"), "utf8"));
  const words = [...cudaFlags, ...[...found.keys()].sort().map((name) => `${name} ${found.get(name)}`)];
  return createHash("sha256").update(words.join("\n")).digest("hex");
}

/** Results of GPUs, the oldest first. */
function reportsIn(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")))
    .filter((report) => report.backend === "cuda" && report.machine.gpu !== null)
    .sort((a, b) => a.date.localeCompare(b.date));
}

/** Kernels that may be the default. */
function passedKernels(folder = path.join(root, "bench/results"), current = sources()) {
  const reports = reportsIn(folder);
  return KERNELS.filter((kernel) => {
    const report = reports.filter((report) => report.judged.includes(kernel)).at(-1);
    return report !== undefined && report.sources === current && report.passed.includes(kernel);
  });
}

/** The two files' contents, by path. */
function render(passed) {
  const names = [...passed.map((name) => `"${name}"`), "nullptr"].join(", ");
  const entries = KERNELS.map((name) => `  "${name}": ${passed.includes(name)},`).join("\n");
  return {
    "csrc/cuda/passed_kernels.h": `/* Kernels that have passed on a GPU. Written by scripts/passed-kernels.cjs from bench/results; do not edit. */
#ifndef RLSD_CUDA_PASSED_KERNELS_H_
#define RLSD_CUDA_PASSED_KERNELS_H_

namespace rlsd::cuda {

constexpr const char* kPassedKernels[] = {${names}};

}  // namespace rlsd::cuda

#endif
`,
    "lib/native/cuda-kernels.ts": `/** The CUDA kernels, and whether each has passed its checks on a GPU. Written by scripts/passed-kernels.cjs from bench/results. */
export const CUDA_KERNELS: Readonly<Record<string, boolean>> = {
${entries}
};
`,
  };
}

module.exports = { passedKernels, render, sources };

if (require.main === module) {
  for (const [file, text] of Object.entries(render(passedKernels()))) {
    const place = path.join(root, file);
    if (readFileSync(place, "utf8") === text) continue;
    if (process.argv.includes("--check")) {
      console.error(`${file} is not what bench/results says. Run: node scripts/passed-kernels.cjs`);
      process.exit(1);
    }
    writeFileSync(place, text);
    console.log(`wrote ${file}`);
  }
}
