// What can be known of the CUDA library without a GPU: it compiles, no kernel spills registers, it has the one export and
// asks for no CUDA library of the machine, and without a driver it answers instead of failing.
const { spawnSync } = require("node:child_process");
const { readdirSync, readFileSync } = require("node:fs");
const path = require("node:path");
const { buildCuda, folder } = require("./build-cuda.cjs");

/** [kernel, architecture, registers, spilled bytes] of each function in the compiler's report. */
function functionsOf(report) {
  const found = [];
  let name = "";
  let architecture = "";
  for (const line of report.split("\n")) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (entry !== null) architecture = entry[2];
    name = (entry ?? /Function properties for (\w+)/.exec(line))?.[1] ?? name;
    const spills = /(\d+) bytes spill stores/.exec(line);
    if (spills !== null) found.push({ name, architecture, registers: 0, spilled: Number(spills[1]) });
    const registers = /Used (\d+) registers/.exec(line);
    if (registers !== null && found.length > 0) found[found.length - 1].registers = Number(registers[1]);
  }
  return found;
}

/** What `nm` or `readelf` says of the library, as lines. */
function inspect(tool, args) {
  const { status, stdout } = spawnSync(tool, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${tool} failed on the library`);
  return stdout.split("\n").filter((line) => line !== "");
}

function check(library) {
  const problems = [];
  const reports = readdirSync(folder).filter((file) => file.endsWith(".report"));
  const functions = reports.flatMap((file) => functionsOf(readFileSync(path.join(folder, file), "utf8")));
  if (functions.length === 0) problems.push("the compiler reported no kernel");
  for (const f of functions.filter((f) => f.spilled > 0)) {
    problems.push(`${f.name} for ${f.architecture} spills ${f.spilled} bytes`);
  }
  const kernels = functions.filter((f) => f.registers > 0);
  for (const f of kernels) console.log(`${f.architecture} ${String(f.registers).padStart(3)} registers  ${f.name}`);
  const exported = inspect("nm", ["-D", "--defined-only", library]).map((line) => line.split(" ").at(-1));
  if (exported.join() !== "rlsd_backend_get") problems.push(`it exports ${exported.join(", ")}`);
  const needed = inspect("readelf", ["-d", library]).filter((line) => line.includes("NEEDED") && /cuda/i.test(line));
  if (needed.length > 0) problems.push(`it needs ${needed.join(", ")}`);
  return problems;
}

buildCuda().then(
  (library) => {
    if (library === undefined) {
      console.log("not run: CUDA build (no nvcc)");
      return;
    }
    const problems = check(library);
    for (const problem of problems) console.error(`librlsd_cuda.so: ${problem}`);
    if (problems.length === 0) console.log("librlsd_cuda.so: no spills, one export, no CUDA library needed");
    console.log("not run: CUDA kernels on a GPU (npm run gpu:check does, where there is one)");
    process.exit(problems.length > 0 ? 1 : 0);
  },
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
