// Packs what npm run gpu:check needs into build-gpu/rlsd-gpu.tar.gz, for a GPU machine with PyTorch but no Node, no npm and no
// network: where there is no nvcc either, the library that this machine's nvcc builds goes along. There: tar xzf rlsd-gpu.tar.gz && cd rlsd-gpu && python3 bench/gpu/run.py
// --peers FOLDER or RLSD_PEERS=FOLDER, else peers/ where there is one: the folder that bench/gpu/peers.py made.
const { spawnSync } = require("node:child_process");
const { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const { buildCuda } = require("./build-cuda.cjs");

const root = path.resolve(__dirname, "..");
const LIMIT_MB = 40;
const CONTENTS = ["CMakeLists.txt", "LICENSE", "csrc", "bench/gpu", "test/fixtures/vectors"];

/** The folder of peers to pack, or undefined. */
function peersFolder(given = process.env.RLSD_PEERS) {
  if (given) {
    if (!existsSync(given)) throw new Error(`There is no folder ${given} to take peers from.`);
    return given;
  }
  const own = path.join(root, "peers");
  return existsSync(own) ? own : undefined;
}

/** Makes the bundle; its path. `library`: a librlsd_cuda.so of these sources. */
function makeBundle(output = path.join(root, "build-gpu", "rlsd-gpu.tar.gz"), given = undefined, library = undefined) {
  const peers = peersFolder(given);
  mkdirSync(path.dirname(output), { recursive: true });
  const args = ["czf", output, "--exclude=__pycache__", "--transform=s,^,rlsd-gpu/,", ...CONTENTS];
  const staging = mkdtempSync(path.join(tmpdir(), "rlsd-peers-"));
  try {
    const beside = [];
    if (peers !== undefined) {
      cpSync(peers, path.join(staging, "peers"), { recursive: true, dereference: true });
      beside.push("peers");
    }
    if (library !== undefined) {
      mkdirSync(path.join(staging, "brought"));
      copyFileSync(library, path.join(staging, "brought", "librlsd_cuda.so"));
      beside.push("brought");
    }
    if (beside.length > 0) args.push("-C", staging, ...beside);
    const { status, stderr } = spawnSync("tar", args, { cwd: root, encoding: "utf8" });
    if (status !== 0) throw new Error(`tar failed: ${stderr}`);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  const megabytes = statSync(output).size / 1e6;
  if (megabytes > LIMIT_MB) throw new Error(`The bundle has ${megabytes.toFixed(1)} MB, more than ${LIMIT_MB}.`);
  return { output, megabytes, peers };
}

module.exports = { makeBundle };

async function main() {
  const at = process.argv.indexOf("--peers");
  const library = await buildCuda();
  const { output, megabytes, peers } = makeBundle(undefined, at < 0 ? undefined : process.argv[at + 1], library);
  const brought = library === undefined ? "no library, as there is no nvcc" : "a library";
  console.log(
    `${output}: ${megabytes.toFixed(1)} MB, ${peers === undefined ? "no peers" : `peers of ${peers}`}, ${brought}`,
  );
}

if (require.main === module) {
  main().catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
}
