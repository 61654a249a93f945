import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCli } from "./support/cli.js";

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
