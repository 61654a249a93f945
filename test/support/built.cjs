// Commands and workers that tests start run lib as it is built, as users do: brings dist up to date.
const { spawnSync } = require("node:child_process");
const { existsSync, readdirSync, statSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "../..");

/** Whether a source is newer than what was made of it, or nothing was. */
function isStale() {
  const sources = readdirSync(path.join(root, "lib"), { recursive: true }).filter((name) => name.endsWith(".ts"));
  return sources.some((name) => {
    const built = path.join(root, "dist", name.replace(/\.ts$/, ".js"));
    return !existsSync(built) || statSync(built).mtimeMs < statSync(path.join(root, "lib", name)).mtimeMs;
  });
}

module.exports = () => {
  if (!isStale()) return;
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  // Sanitizers are for the addon. What the compiler says of types does not keep tests from running.
  const env = { ...process.env, LD_PRELOAD: "" };
  spawnSync(process.execPath, [tsc, "-p", root], { cwd: root, stdio: "inherit", env });
};
