// Packs the package as it would be published, installs it in empty projects, and calls it there: from ESM and CommonJS,
// with a prebuilt binary and scripts ignored, built from source by the install script, and with neither (the load error).
const { execFileSync, spawnSync } = require("node:child_process");
const { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const work = mkdtempSync(path.join(tmpdir(), "rlsd-package-"));

// An empty npm configuration: nothing of this machine helps the install but the registry it would use anyway.
const env = { ...process.env };
for (const name of Object.keys(env)) {
  if (/^npm_config_(nodedir|node_gyp|ignore_scripts)$/i.test(name)) delete env[name];
}
env.npm_config_userconfig = path.join(work, "npmrc");
writeFileSync(env.npm_config_userconfig, "");

let failures = 0;
function check(name, passed, detail = "") {
  console.log(`${passed ? "ok  " : "FAIL"} ${name}`);
  if (passed) return;
  failures += 1;
  if (detail !== "") console.log(detail);
}

function pack(label) {
  const to = path.join(work, label);
  mkdirSync(to);
  execFileSync("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", to], { cwd: root, env });
  return path.join(to, readdirSync(to)[0]);
}

const BATCH = `{ student: { logProbs: Float32Array.of(-1, -2) }, teacher: { logProbs: Float32Array.of(-0.5, -3) },
  cuSeqlens: Int32Array.of(0, 1, 2), advantages: Float32Array.of(1, -1) }`;
const PROGRAMS = {
  "esm.mjs": `import { policyLoss, rlsd } from "rlsd";
const result = await policyLoss(${BATCH}, rlsd());
if (Math.abs(result.evidenceWeights[0] - 1.2) > 1e-6) throw new Error("wrong weight");
console.log("called");`,
  "cjs.cjs": `const { policyLossSync, rlsd } = require("rlsd");
const result = policyLossSync(${BATCH}, rlsd());
if (Math.abs(result.evidenceWeights[0] - 1.2) > 1e-6) throw new Error("wrong weight");
console.log("called");`,
  "types.cts": `import rlsd = require("rlsd");
import interop = require("rlsd/interop");
export const handle: typeof interop.exportHandle = interop.exportHandle;
const objective: rlsd.Objective = rlsd.grpo({ clipHigh: 0.28 });
const loss: number = rlsd.policyLossSync(${BATCH}, objective).loss;
export { loss };`,
};

function project(label, tarball, flags) {
  const folder = path.join(work, `project-${label}`);
  mkdirSync(folder);
  writeFileSync(path.join(folder, "package.json"), JSON.stringify({ name: label, private: true }));
  for (const [file, text] of Object.entries(PROGRAMS)) writeFileSync(path.join(folder, file), text);
  const args = ["install", "--no-audit", "--no-fund", "--loglevel=error", ...flags, tarball];
  const { status, stderr } = spawnSync("npm", args, { cwd: folder, env, encoding: "utf8" });
  check(`${label}: npm install ${flags.join(" ")}`, status === 0, stderr);
  return folder;
}

const run = (folder, file) => spawnSync(process.execPath, [file], { cwd: folder, encoding: "utf8", env });

function checkCalls(label, folder) {
  for (const file of ["esm.mjs", "cjs.cjs"]) {
    const { stdout, stderr } = run(folder, file);
    check(`${label}: ${file}`, stdout.trim() === "called", stderr);
  }
}

function checkTypes(folder) {
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  // Every declaration is read, and those of Node are not there: nobody has to install them.
  const config = { strict: true, noEmit: true, target: "es2023", module: "node20", types: [], skipLibCheck: false };
  const text = JSON.stringify({ compilerOptions: config, files: ["types.cts"] });
  writeFileSync(path.join(folder, "tsconfig.json"), text);
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", "."], { cwd: folder, encoding: "utf8" });
  check("types from CommonJS", status === 0, stdout);
}

function checkCommand(folder) {
  const { status, stdout, stderr } = spawnSync("npx", ["--no-install", "rlsd", "doctor", "--json"], {
    cwd: folder,
    encoding: "utf8",
    env,
  });
  check("npx rlsd doctor", status === 0 && JSON.parse(stdout).example.correct, stderr);
}

try {
  rmSync(path.join(root, "prebuilds"), { recursive: true, force: true });
  const bare = pack("bare");
  const built = project("from-source", bare, ["--foreground-scripts"]);
  checkCalls("from-source", built);
  const unbuilt = project("unbuilt", bare, ["--ignore-scripts"]);
  const { stderr } = run(unbuilt, "esm.mjs");
  check(
    "unbuilt: the load error says the way out",
    /ERR_RLSD_LOAD/.test(stderr) && /npm rebuild rlsd/.test(stderr),
    stderr,
  );

  execFileSync(process.execPath, [path.join(__dirname, "prebuild.cjs")], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const prebuilt = project("prebuilt", pack("prebuilt"), ["--ignore-scripts"]);
  checkCalls("prebuilt", prebuilt);
  checkTypes(prebuilt);
  checkCommand(prebuilt);
} finally {
  rmSync(work, { recursive: true, force: true });
  rmSync(path.join(root, "prebuilds"), { recursive: true, force: true });
}
process.exit(failures === 0 ? 0 : 1);
