// Packs the package as it would be published, installs it in empty projects, and calls it there: from ESM and CommonJS,
// with a prebuilt binary and scripts ignored, built from source by the install script, and with neither (the load error).
const { execFileSync, spawnSync } = require("node:child_process");
const {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} = require("node:fs");
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
  // The swap as README prints it, with the numbers that it takes for granted.
  "swap.mjs": `const [logProbs, teacherLogProbs] = [Float32Array.of(-1, -2), Float32Array.of(-0.5, -1.9)];
const [rewards, groupIds, oldLogProbs, cuSeqlens] = [[1, 0], [0, 0], logProbs, Int32Array.of(0, 1, 2)];
const backward = (gradient) => { if (gradient.length !== 2) throw new Error("wrong gradient"); };
${/^## The swap$.*?^```ts\n(.*?)^```/ms.exec(readFileSync(path.join(root, "README.md"), "utf8"))[1]}
if (!(before.loss !== after.loss && Number.isFinite(after.loss))) throw new Error("wrong loss");
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

/** All that a user has a use for: no developers' scripts, tests, stamps of builds or maps of sources that are not there. */
const PACKED = [
  /^dist\/[^.].*(\.js|\.d\.ts)$/,
  /^(assets|docs|prebuilds)\//,
  /^csrc\/(?!test\/)/,
  /^scripts\/(install|build-addon|build-cuda)\.cjs$/,
  /^(package\.json|binding\.gyp|README\.md|CHANGELOG\.md|LICENSE)$/,
];

function checkFiles(tarball) {
  const names = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" }).trim().split("\n");
  const paths = names.map((name) => name.replace(/^package\//, ""));
  const others = paths.filter((name) => !PACKED.some((pattern) => pattern.test(name)));
  check("only what a user needs is packed", others.length === 0, others.join("\n"));
}

const run = (folder, file) => spawnSync(process.execPath, [file], { cwd: folder, encoding: "utf8", env });

function checkCalls(label, folder) {
  for (const file of ["esm.mjs", "cjs.cjs", "swap.mjs"]) {
    const { stdout, stderr } = run(folder, file);
    check(`${label}: ${file}`, /^called$/m.test(stdout), stdout + stderr);
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

/** The commands that need files beside the code: the example's model and rows, workers of verifiers and of the bench. */
function checkCommands(label, folder) {
  const rlsd = (...args) => spawnSync("npx", ["--no-install", "rlsd", ...args], { cwd: folder, encoding: "utf8", env });
  const doctor = rlsd("doctor", "--json");
  check(`${label}: npx rlsd doctor`, doctor.status === 0 && JSON.parse(doctor.stdout).example.correct, doctor.stderr);
  const train = rlsd("train", "--set", "steps=2", "--set", "eval.limit=20", "--output", "run");
  check(
    `${label}: npx rlsd train`,
    train.status === 0 && existsSync(path.join(folder, "run", "report.html")),
    train.stderr,
  );
  const bench = rlsd("bench", "--quick", "--json");
  check(`${label}: npx rlsd bench --quick`, bench.status === 0, bench.stderr);
}

/** Makes prebuilds/ of the checkout's own build; prebuildify moves the addon there, so that it is put back. */
function prebuild() {
  const addon = path.join(root, "build", "Release", "rlsd.node");
  const kept = path.join(work, "rlsd.node");
  copyFileSync(addon, kept);
  const args = [path.join(__dirname, "prebuild.cjs"), "--node-gyp", path.join(__dirname, "gyp-again.cjs")];
  try {
    execFileSync(process.execPath, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  } finally {
    copyFileSync(kept, addon);
  }
}

try {
  rmSync(path.join(root, "prebuilds"), { recursive: true, force: true });
  const bare = pack("bare");
  checkFiles(bare);
  // The checkout's build, which is packed below, is optimised: here the sources and the script are what is looked at.
  env.CXXFLAGS = "-O1";
  const built = project("from-source", bare, ["--foreground-scripts"]);
  delete env.CXXFLAGS;
  checkCalls("from-source", built);
  checkCommands("from-source", built);
  const unbuilt = project("unbuilt", bare, ["--ignore-scripts"]);
  const { stderr } = run(unbuilt, "esm.mjs");
  check(
    "unbuilt: the load error says the way out",
    /ERR_RLSD_LOAD/.test(stderr) && /npm rebuild rlsd/.test(stderr),
    stderr,
  );

  prebuild();
  // Beside the one of another C library it is found by its name alone.
  const addons = readdirSync(path.join(root, "prebuilds", `${process.platform}-${process.arch}`));
  const tagged = addons.some((name) => /^rlsd\.(glibc|musl)\.node$/.test(name));
  check("prebuilt: its name says for which C library", process.platform !== "linux" || tagged, addons.join(" "));
  const prebuilt = project("prebuilt", pack("prebuilt"), ["--ignore-scripts"]);
  checkCalls("prebuilt", prebuilt);
  checkTypes(prebuilt);
  checkCommands("prebuilt", prebuilt);
} finally {
  rmSync(work, { recursive: true, force: true });
  rmSync(path.join(root, "prebuilds"), { recursive: true, force: true });
}
process.exit(failures === 0 ? 0 : 1);
