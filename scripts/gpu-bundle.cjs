// Packs what npm run gpu:check needs into build-gpu/rlsd-gpu.tar.gz, for a GPU machine with nvcc, CMake and PyTorch but no
// Node, no npm and no network. There: tar xzf rlsd-gpu.tar.gz && cd rlsd-gpu && python3 bench/gpu/run.py
const { spawnSync } = require("node:child_process");
const { mkdirSync, statSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const LIMIT_MB = 40;
const CONTENTS = ["CMakeLists.txt", "LICENSE", "csrc", "bench/gpu", "test/fixtures/vectors"];

/** Makes the bundle; its path. */
function makeBundle(output = path.join(root, "build-gpu", "rlsd-gpu.tar.gz")) {
  mkdirSync(path.dirname(output), { recursive: true });
  const args = ["czf", output, "--exclude=__pycache__", "--transform=s,^,rlsd-gpu/,", ...CONTENTS];
  const { status, stderr } = spawnSync("tar", args, { cwd: root, encoding: "utf8" });
  if (status !== 0) throw new Error(`tar failed: ${stderr}`);
  const megabytes = statSync(output).size / 1e6;
  if (megabytes > LIMIT_MB) throw new Error(`The bundle has ${megabytes.toFixed(1)} MB, more than ${LIMIT_MB}.`);
  return { output, megabytes };
}

module.exports = { makeBundle };

if (require.main === module) {
  const { output, megabytes } = makeBundle();
  console.log(`${output}: ${megabytes.toFixed(1)} MB`);
}
