import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newFolder } from "../lib/trainer/new-folder.js";
import { cliArgs, runCli } from "./support/cli.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-output-"));
/** Sets the title of the window, clears the screen, in both of its spellings, turns the direction of writing round. */
const EVIL = "\u001b]0;owned\u0007\u001b[2J\u009b2J\u202eleft";
const SHOWN = "\u241b]0;owned\u2407\u241b[2J\ufffd2J\ufffdleft";
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const OBEYED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/;

function rlsd(rows: readonly unknown[], ...args: string[]) {
  writeFileSync(join(folder, "rows.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
  const told = runCli([...args, "rows.jsonl"], folder);
  expect(told.stdout).not.toMatch(OBEYED);
  expect(told.stderr).not.toMatch(OBEYED);
  return told;
}

const score = ["score", "--verifier", "numeric"];

test("names in an error are shown, not obeyed", () => {
  const { status, stderr } = rlsd([{ answer: 1, [EVIL]: 1 }], ...score);
  expect(status).toBe(1);
  expect(stderr).toContain(`among: answer, ${SHOWN}`);
  expect(rlsd([], ...score, "--nonsense", EVIL).stderr).toMatch(/unknown option/);
  const { error } = JSON.parse(rlsd([{ answer: 1, [EVIL]: 1 }], ...score, "--json").stdout);
  expect(error.message).toContain(EVIL);
});

test("so is what a completion says; lines stay lines, and JSON is read as it was written", () => {
  const rows = [{ id: EVIL, answer: 7, completion: `The answer is 7 ${EVIL}` }];
  const { status, stdout } = rlsd(rows, ...score, "--explain");
  expect(status).toBe(0);
  expect(stdout).toContain(`rows.jsonl:1, id ${SHOWN}, completion 0`);
  expect(stdout.split("\n").length).toBeGreaterThan(4);
  const [first] = rlsd(rows, ...score, "--json").stdout.split("\n");
  expect(JSON.parse(first!).id).toBe(EVIL);
});

/** A run that never ends by itself, and whose output is lost. */
function lose(name: string, tail: string) {
  const run = join(folder, name);
  const args = ["train", "--set", "steps=100000", "--set", "eval.every=0", "--set", "checkpoint.every=0"];
  const words = [process.execPath, ...cliArgs([...args, "--json", "--output", run])];
  const command = words.map((word) => `'${word}'`).join(" ");
  const { stderr } = spawnSync("sh", ["-c", `{ ${command}; echo "status $?" >&2; } ${tail}`], {
    encoding: "utf8",
    cwd: folder,
  });
  return { stderr, checkpoints: readdirSync(join(run, "checkpoints")), files: readdirSync(run) };
}

const onLinux = process.platform === "linux" ? test : test.skip;

onLinux.each([
  ["a reader that went away", "gone", "| head -n 1"],
  ["a full disk", "full", "> /dev/full"],
])("training saves when its output is lost: %s", (_, name, tail) => {
  const { stderr, checkpoints, files } = lose(name, tail);
  expect(stderr).toMatch(/^rlsd: the output can no longer be written: stopping at the next safe point and saving\n/);
  expect(stderr).toMatch(/status 130\n$/);
  expect(checkpoints.filter((entry) => entry.startsWith("step-")).length).toBe(1);
  expect(files).not.toContain("run.lock");
});

onLinux("what has nothing to save ends at once, and says why where nobody chose it", () => {
  const list = [process.execPath, ...cliArgs(["train", "--settings"])].map((word) => `'${word}'`).join(" ");
  const sh = (tail: string) =>
    spawnSync("sh", ["-c", `{ ${list}; echo "status $?" >&2; } ${tail}`], { encoding: "utf8" });
  expect(sh("| head -n 1").stderr).toBe("status 0\n");
  expect(sh("> /dev/full").stderr).toMatch(/^rlsd: cannot write the output: ENOSPC.*\nstatus 1\n$/);
});

test("with --json a command line that is not understood is one object as well", () => {
  const { status, stdout } = runCli(["train", "--json", "--nonsense"], folder);
  expect(status).toBe(2);
  expect(JSON.parse(stdout)).toEqual({
    kind: "error",
    error: { code: "ERR_RLSD_USAGE", message: "unknown option '--nonsense'" },
  });
});

test("a folder for something that is done now is a new one", () => {
  const before = process.cwd();
  process.chdir(folder);
  try {
    const first = newFolder("x");
    mkdirSync(first, { recursive: true });
    for (let i = 0; i < 3; i++) {
      const next = newFolder("x");
      expect(existsSync(next)).toBe(false);
      mkdirSync(next);
    }
  } finally {
    process.chdir(before);
  }
});
