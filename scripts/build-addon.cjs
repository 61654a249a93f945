// Builds build/Release/rlsd.node with node-gyp, on Windows with Zig. Node's headers come from the Node installation itself when it has them,
// so that nothing is downloaded; otherwise node-gyp fetches them.
const { spawnSync } = require("node:child_process");
const { existsSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");

/** Directory that holds include/node/node_api.h of the running Node, or undefined. */
function nodeHeaders() {
  const prefix = path.resolve(path.dirname(process.execPath), "..");
  return existsSync(path.join(prefix, "include", "node", "node_api.h")) ? prefix : undefined;
}

function nodeGyp() {
  if (process.env.npm_config_node_gyp) return process.env.npm_config_node_gyp;
  try {
    return require.resolve("node-gyp/bin/node-gyp.js", { paths: [root] });
  } catch {
    const npm = path.join(path.dirname(process.execPath), "..", "lib", "node_modules", "npm");
    return path.join(npm, "node_modules", "node-gyp", "bin", "node-gyp.js");
  }
}

/** MSVC, which node-gyp takes on Windows, has neither the vectors nor the attributes that the kernels are written with. */
function buildByZig(quiet) {
  const script = path.join(__dirname, "prebuild-cross.cjs");
  if (!existsSync(script)) return 1; // in a package, not a clone
  const args = [script, `win32-${process.arch}`, "--into", path.join("build", "Release")];
  return spawnSync(process.execPath, args, { cwd: root, stdio: ["ignore", quiet ? "ignore" : "inherit", "inherit"] })
    .status;
}

/** Runs node-gyp rebuild in `directory`; returns its exit status. `extraFlags` reach the compiler and the linker. */
function buildAddon({ quiet = false, extraFlags = "" } = {}) {
  if (process.platform === "win32") return buildByZig(quiet);
  const headers = process.env.npm_config_nodedir ?? nodeHeaders();
  const env = { ...process.env };
  if (headers !== undefined) env.npm_config_nodedir = headers;
  if (extraFlags !== "") {
    env.CXXFLAGS = `${env.CXXFLAGS ?? ""} ${extraFlags}`;
    env.LDFLAGS = `${env.LDFLAGS ?? ""} ${extraFlags}`;
  }
  const args = [nodeGyp(), "rebuild", "--jobs", "max"];
  if (!quiet) return spawnSync(process.execPath, args, { cwd: root, env, stdio: "inherit" }).status;
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: "utf8" });
  if (status !== 0) process.stderr.write(`${stdout}\n${stderr}`);
  return status;
}

module.exports = { buildAddon, nodeHeaders };

if (require.main === module) process.exit(buildAddon() ?? 1);
