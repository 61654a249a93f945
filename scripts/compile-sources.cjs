// Compiles every source of the addon with a given compiler; none may warn.
const { spawn } = require("node:child_process");
const { existsSync, mkdtempSync, rmSync } = require("node:fs");
const { availableParallelism, tmpdir } = require("node:os");
const path = require("node:path");
const { nodeHeaders } = require("./build-addon.cjs");

const root = path.resolve(__dirname, "..");
const lists = require("../csrc/sources.json");

/** Folder of node_api.h: of Node itself, from where node-gyp takes it, else the package of its headers alone. */
const headers = [process.env.npm_config_nodedir, nodeHeaders()]
  .filter(Boolean)
  .map((prefix) => path.join(prefix, "include", "node"))
  .concat(require("node-api-headers").include_dir)
  .find((folder) => existsSync(path.join(folder, "node_api.h")));

const FLAGS = [
  ...["-std=c++17", "-fno-trapping-math", "-fno-math-errno", "-fno-exceptions"],
  ...["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"],
  ...["-DNAPI_VERSION=8", "-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS", "-DNODE_ADDON_API_DISABLE_DEPRECATED"],
  ...["-Icsrc", "-Icsrc/include", `-I${require("node-addon-api").include_dir}`, `-I${headers}`],
];

/** Runs a compiler or linker in the checkout; whether it was content. What it says goes to stderr. */
const runs = ([command, ...args]) =>
  new Promise((resolve) => {
    spawn(command, args, { cwd: root, stdio: "inherit" })
      .on("error", () => resolve(false))
      .on("close", (code) => resolve(code === 0));
  });

/** Objects of all sources, as many at once as there are processors, in a folder that is removed after `use(objects)`. */
async function withObjects(command, use) {
  const folder = mkdtempSync(path.join(tmpdir(), "rlsd-objects-"));
  const sources = [...lists.napi, ...lists.cpu, ...lists.model];
  const waiting = [...sources];
  const objects = [];
  const work = async () => {
    for (let source = waiting.pop(); source !== undefined; source = waiting.pop()) {
      const object = path.join(folder, `${source.replaceAll("/", "-")}.o`);
      if (await runs([...command, ...FLAGS, "-c", source, "-o", object])) objects.push(object);
    }
  };
  try {
    await Promise.all(Array.from({ length: availableParallelism() }, work));
    return await use(objects.sort(), sources.length);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Whether all compile; says how many. */
const compileSources = (label, command) =>
  withObjects(command, (objects, count) => {
    console.log(`${label}: ${objects.length} of ${count} sources compile without a warning`);
    return objects.length === count;
  });

module.exports = { compileSources, runs, withObjects };
