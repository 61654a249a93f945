// Compiles every source of the addon with clang++, where there is one: without a warning, for this machine's processor. Other
// systems have no other compiler.
const { spawn, spawnSync } = require("node:child_process");
const { availableParallelism } = require("node:os");
const path = require("node:path");
const { nodeHeaders } = require("./build-addon.cjs");

const root = path.resolve(__dirname, "..");
const sources = require("../csrc/sources.json");

/** Node's own headers, from where node-gyp takes them. */
const headers = process.env.npm_config_nodedir ?? nodeHeaders();

const flags = [
  ...["-std=c++17", "-O2", "-fno-trapping-math", "-fno-math-errno"],
  ...["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"],
  ...["-DNAPI_VERSION=8", "-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS", "-DNODE_ADDON_API_DISABLE_DEPRECATED"],
  ...["-Icsrc", "-Icsrc/include", `-I${require("node-addon-api").include_dir}`, `-I${headers}/include/node`],
];

/** Whether it compiles; what is wrong goes to stderr. */
const compiles = (source) =>
  new Promise((resolve) => {
    const child = spawn("clang++", [...flags, "-c", source, "-o", "/dev/null"], { cwd: root, stdio: "inherit" });
    child.on("close", (code) => resolve(code === 0));
  });

async function check() {
  const waiting = [...sources.napi, ...sources.cpu, ...sources.model];
  const count = waiting.length;
  let failed = 0;
  const work = async () => {
    for (let source = waiting.pop(); source !== undefined; source = waiting.pop()) {
      if (!(await compiles(source))) failed++;
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  console.log(`clang++: ${count - failed} of ${count} sources compile without a warning`);
  process.exit(failed > 0 ? 1 : 0);
}

if (spawnSync("clang++", ["--version"]).status !== 0) console.log("not run: clang (no clang++)");
else if (headers === undefined) console.log("not run: clang (no headers of Node on this machine)");
else check();
