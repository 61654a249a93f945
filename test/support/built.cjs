// Processes that tests start run lib as it is built, as users do, and programs of this folder over it: what is made of both
// is brought up to date.
const { spawnSync } = require("node:child_process");
const { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "../..");
const programs = path.join(root, "build", "test-support");

/** The sources of a folder that are newer than what was made of them in another, or of which nothing was. */
function stale(from, to) {
  const sources = readdirSync(from, { recursive: true }).filter((name) => name.endsWith(".ts"));
  return sources.filter((name) => {
    const built = path.join(to, name.replace(/\.ts$/, ".js"));
    return !existsSync(built) || statSync(built).mtimeMs < statSync(path.join(from, name)).mtimeMs;
  });
}

function buildLibrary() {
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  // Sanitizers are for the addon. What the compiler says of types does not keep tests from running.
  const env = { ...process.env, LD_PRELOAD: "" };
  for (const args of [[tsc, "-p", root], [path.join(root, "scripts", "document-settings.mjs")]]) {
    spawnSync(process.execPath, args, { cwd: root, stdio: "inherit", env });
  }
}

/** build/test-support lies as deep as this folder. */
function buildProgram(name) {
  const options = {
    jsc: { parser: { syntax: "typescript" }, target: "es2023" },
    module: { type: "es6" },
    sourceMaps: "inline",
  };
  const source = readFileSync(path.join(__dirname, name), "utf8").replaceAll('"../../lib/', '"../../dist/');
  const { code } = require("@swc/core").transformSync(source, { ...options, filename: path.join(__dirname, name) });
  writeFileSync(path.join(programs, name.replace(/\.ts$/, ".js")), code);
}

module.exports = () => {
  if (stale(path.join(root, "lib"), path.join(root, "dist")).length > 0) buildLibrary();
  mkdirSync(programs, { recursive: true });
  stale(__dirname, programs).forEach(buildProgram);
};
