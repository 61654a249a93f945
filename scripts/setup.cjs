// Brings a checkout to where its commands run: packages installed, addon built, lib compiled. Each step is skipped while
// what it reads has not changed. Needs Node's own modules only, as it runs before anything is installed.
const { spawnSync } = require("node:child_process");
const { createHash } = require("node:crypto");
const { existsSync, readdirSync, readFileSync, statSync, writeFileSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const force = process.argv.includes("--force");

function files(at) {
  const full = path.join(root, at);
  if (!existsSync(full)) return [];
  if (statSync(full).isFile()) return [at];
  return readdirSync(full)
    .sort()
    .flatMap((name) => files(path.join(at, name)));
}

/** One hash of the names and contents of files and folders. */
function fingerprint(sources) {
  const hash = createHash("sha256").update(process.version).update(process.arch);
  for (const file of sources.flatMap(files))
    hash
      .update(file)
      .update("\0")
      .update(readFileSync(path.join(root, file)));
  return hash.digest("hex");
}

/** Runs `work` unless `stamp` holds the fingerprint of `sources` and `product` is there. */
function step(label, sources, stamp, product, work) {
  const stampPath = path.join(root, stamp);
  const current = fingerprint(sources);
  const fresh = existsSync(path.join(root, product)) && existsSync(stampPath);
  if (fresh && !force && readFileSync(stampPath, "utf8") === current) return;
  process.stderr.write(`rlsd: ${label}\n`);
  const status = work();
  if (status !== 0) {
    const needs = process.platform === "win32" ? "Zig (ziglang.org) is" : "a C++ compiler, make and python3 are";
    process.stderr.write(`rlsd: ${label}: failed. Node 20.19 or newer and ${needs} needed.\n`);
    process.exit(status ?? 1);
  }
  writeFileSync(stampPath, current);
}

function installPackages() {
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  // npm is a script of cmd.exe on Windows, which only a shell runs.
  const shell = process.platform === "win32";
  return spawnSync("npm", args, { cwd: root, shell, stdio: ["ignore", "ignore", "inherit"] }).status;
}

step("installing packages", ["package-lock.json"], "node_modules/.rlsd-setup", "node_modules", installPackages);
step(
  "building the native addon",
  ["binding.gyp", "csrc", "scripts/build-addon.cjs", "package-lock.json"],
  "build/.rlsd-setup",
  "build/Release/rlsd.node",
  () => require("./build-addon.cjs").buildAddon({ quiet: true }),
);
step(
  "compiling",
  ["lib", "tsconfig.json", "scripts/build-ts.cjs", "scripts/document-settings.mjs", "package-lock.json"],
  "dist/.rlsd-setup",
  "dist/index.js",
  () => require("./build-ts.cjs").buildTypeScript(),
);
// Only on demand (npm run build): it takes minutes. Where there is no nvcc it says so and goes on.
if (process.argv.includes("--cuda")) {
  const { status } = spawnSync(process.execPath, [path.join(__dirname, "build-cuda.cjs")], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
