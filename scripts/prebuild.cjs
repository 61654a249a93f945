// Builds prebuilds/<platform>-<arch>/ with prebuildify: the addon and every backend library beside it.
const { spawnSync } = require("node:child_process");
const path = require("node:path");
const { nodeHeaders } = require("./build-addon.cjs");

const root = path.resolve(__dirname, "..");
const env = { ...process.env };
env.npm_config_nodedir ??= nodeHeaders();
const prebuildify = path.join(root, "node_modules", "prebuildify", "bin.js");
// Between its build, which empties build/Release, and its copy of everything in there.
const cuda = `"${process.execPath}" "${path.join(__dirname, "build-cuda.cjs")}"`;
const args = [prebuildify, "--napi", "--strip", "--tag-libc", "--postinstall", cuda, ...process.argv.slice(2)];
process.exit(spawnSync(process.execPath, args, { cwd: root, env, stdio: "inherit" }).status ?? 1);
