// Builds the addon with the address and undefined-behaviour sanitizers, away from the checkout's own build, and runs the
// tests that reach native code over it. Exits non-zero when a test fails or a sanitizer reports anything.
//   node scripts/sanitize.cjs [jest arguments]
const { execFileSync, spawnSync } = require("node:child_process");
const { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O2 -g1";
const TESTS = [
  "policy-loss",
  "credit",
  "edges",
  "validation",
  "abi",
  "cuda-calls",
  "cuda-time",
  "engine-cache",
  "engine-prefixes",
  "engine-shared-rows",
  "engine-training",
];

/** A copy of what node-gyp reads, in build-sanitize; returns its path. */
function makeCopy() {
  const copy = path.join(root, "build-sanitize");
  mkdirSync(copy, { recursive: true });
  for (const name of ["csrc", "binding.gyp", "scripts"]) {
    cpSync(path.join(root, name), path.join(copy, name), { recursive: true, preserveTimestamps: true });
  }
  const modules = path.join(copy, "node_modules");
  if (!existsSync(modules)) symlinkSync(path.join(root, "node_modules"), modules);
  return copy;
}

/** A compiler that takes a quarter of the time for the kernels of the matrix product, which run for little of the tests' time. */
function makeCompiler(copy) {
  const file = path.join(copy, "c++");
  const cxx = process.env.CXX ?? "g++";
  const script = `#!/bin/sh\ncase "$*" in *matmul_kernels.cc*) exec ${cxx} "$@" -O1 ;; esac\nexec ${cxx} "$@"\n`;
  writeFileSync(file, script, { mode: 0o755 });
  return file;
}

const library = (name) => execFileSync("gcc", [`-print-file-name=${name}`], { encoding: "utf8" }).trim();

function main() {
  const copy = makeCopy();
  const built = spawnSync(
    process.execPath,
    [
      "-e",
      `process.exit(require("./scripts/build-addon.cjs").buildAddon({ quiet: true, extraFlags: ${JSON.stringify(FLAGS)} }))`,
    ],
    { cwd: copy, env: { ...process.env, CXX: makeCompiler(copy) }, stdio: ["ignore", "ignore", "inherit"] },
  );
  if (built.status !== 0) process.exit(built.status ?? 1);
  const named = process.argv.slice(2);
  const jest = path.join(root, "node_modules", "jest", "bin", "jest.js");
  const tests = named.length > 0 ? named : TESTS.map((name) => path.join("test", `${name}.test.ts`));
  const missing = tests.find((test) => named.length === 0 && !existsSync(path.join(root, test)));
  if (missing !== undefined) throw new Error(`There is no ${missing}`);
  const { status } = spawnSync(process.execPath, [jest, "--silent", ...tests], {
    cwd: root,
    stdio: "inherit",
    env: {
      ...process.env,
      RLSD_PREBUILD: copy,
      RLSD_TEST_RUNS: process.env.RLSD_TEST_RUNS ?? "0.3",
      LD_PRELOAD: `${library("libasan.so")} ${library("libubsan.so")}`,
      ASAN_OPTIONS: "detect_leaks=0:abort_on_error=1",
      UBSAN_OPTIONS: "print_stacktrace=1",
    },
  });
  process.exit(status ?? 1);
}

main();
