// Writes csrc/cuda/passed_kernels.h and lib/native/cuda-kernels.ts from bench/results: a kernel has passed when the newest
// result of any machine that names it says so. --check only compares.
const { existsSync, readdirSync, readFileSync, writeFileSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const KERNELS = ["policy-tokens", "rows-plain", "rows-resident"];

/** Kernels that the newest result lists as passed. */
function passedKernels(folder = path.join(root, "bench/results")) {
  if (!existsSync(folder)) return [];
  const reports = readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")))
    .filter((report) => report.backend === "cuda" && report.machine.gpu !== null)
    .sort((a, b) => a.date.localeCompare(b.date));
  return KERNELS.filter((kernel) => reports.at(-1)?.passed.includes(kernel));
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

module.exports = { passedKernels, render };

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
