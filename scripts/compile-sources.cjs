// Compiles every source of the addon with a given compiler, to see whether it does without a warning.
const { spawn } = require("node:child_process");
const { mkdtempSync, rmSync } = require("node:fs");
const { availableParallelism, tmpdir } = require("node:os");
const path = require("node:path");
const { nodeHeaders } = require("./build-addon.cjs");

const root = path.resolve(__dirname, "..");
const lists = require("../csrc/sources.json");

/** Node's own headers, from where node-gyp takes them; undefined: this machine has none. */
const headers = process.env.npm_config_nodedir ?? nodeHeaders();

const flags = [
  ...["-std=c++17", "-O2", "-fno-trapping-math", "-fno-math-errno", "-fno-exceptions"],
  ...["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"],
  ...["-DNAPI_VERSION=8", "-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS", "-DNODE_ADDON_API_DISABLE_DEPRECATED"],
  ...["-Icsrc", "-Icsrc/include", `-I${require("node-addon-api").include_dir}`, `-I${headers}/include/node`],
];

/** Whether it compiles; what is wrong goes to stderr. */
const compiles = ([command, ...args], source, folder) =>
  new Promise((resolve) => {
    const object = path.join(folder, `${source.replaceAll("/", "-")}.o`);
    const all = [...args, ...flags, "-c", source, "-o", object];
    spawn(command, all, { cwd: root, stdio: "inherit" }).on("close", (code) => resolve(code === 0));
  });

/** Whether all do, as many at once as there are processors; says how many. */
async function compileSources(label, command) {
  const folder = mkdtempSync(path.join(tmpdir(), "rlsd-objects-"));
  const waiting = [...lists.napi, ...lists.cpu, ...lists.model];
  const count = waiting.length;
  let failed = 0;
  const work = async () => {
    for (let source = waiting.pop(); source !== undefined; source = waiting.pop()) {
      if (!(await compiles(command, source, folder))) failed++;
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  rmSync(folder, { recursive: true });
  console.log(`${label}: ${count - failed} of ${count} sources compile without a warning`);
  return failed === 0;
}

module.exports = { compileSources, headers };
