// One folder for the temporary files of all tests and of the processes that they start, killed ones too; it goes with the last.
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const bringUpToDate = require("./built.cjs");

module.exports = () => {
  bringUpToDate();
  const folder = mkdtempSync(path.join(tmpdir(), "rlsd-tests-"));
  process.env.TMPDIR = folder; // what tmpdir() says from here on, also in jest's workers
  globalThis.removeTemporary = () => rmSync(folder, { recursive: true, force: true });
};
