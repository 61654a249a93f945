// Compiles lib to dist and copies what is not TypeScript beside it.
const { spawnSync } = require("node:child_process");
const { cpSync, rmSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");

/** Returns tsc's exit status. */
function buildTypeScript() {
  const dist = path.join(root, "dist");
  rmSync(dist, { recursive: true, force: true });
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", root], { cwd: root, stdio: "inherit" });
  if (status !== 0) return status;
  cpSync(path.join(root, "lib"), dist, { recursive: true, filter: (from) => !from.endsWith(".ts") });
  return spawnSync(process.execPath, [path.join(__dirname, "document-settings.mjs")], { stdio: "inherit" }).status;
}

module.exports = { buildTypeScript };

if (require.main === module) process.exit(buildTypeScript() ?? 1);
