// Runs jest and ends with one line that a machine can read: "N passed, N failed".
const { spawnSync } = require("node:child_process");
const { mkdtempSync, readFileSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const folder = mkdtempSync(path.join(tmpdir(), "rlsd-jest-"));
const report = path.join(folder, "report.json");
const jest = path.join(root, "node_modules", "jest", "bin", "jest.js");
const args = [jest, "--json", `--outputFile=${report}`, ...process.argv.slice(2)];
const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ["inherit", "ignore", "inherit"] });

let line = "0 passed, 1 failed";
try {
  const result = JSON.parse(readFileSync(report, "utf8"));
  // A file that cannot even be loaded fails no test, but is a failure.
  const failed = result.numFailedTests + result.numRuntimeErrorTestSuites;
  const skipped = result.numPendingTests > 0 ? `, ${result.numPendingTests} skipped` : "";
  line = `${result.numPassedTests} passed, ${failed} failed${skipped}`;
} catch {
  // jest ended without a report: the line above stands.
}
rmSync(folder, { recursive: true, force: true });
console.log(line);
process.exit(status ?? 1);
