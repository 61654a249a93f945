import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { Command } from "commander";
import { EXIT, exitCodeOf } from "../../lib/cli/command.js";
import { registerScore, runScore, type ScoreOptions } from "../../lib/cli/score.js";
import { fixture } from "./support.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-score-"));
let files = 0;

function write(rows: readonly unknown[]): string {
  const path = join(folder, `${files++}.jsonl`);
  writeFileSync(path, rows.map((row) => (typeof row === "string" ? row : JSON.stringify(row))).join("\n"));
  return path;
}

function sink(): Writable & { text(): string } {
  let all = "";
  const stream = new Writable({
    write(chunk, _, done) {
      all += String(chunk);
      done();
    },
  });
  return Object.assign(stream, { text: () => all });
}

async function score(options: ScoreOptions) {
  const io = { stdout: sink(), stderr: sink() };
  const code = await runScore(options, io);
  return { code, out: io.stdout.text(), err: io.stderr.text() };
}

const rows = [
  { id: "a", gold: "1", completions: ["\\boxed{1}", "\\boxed{2}"] },
  { id: "b", gold: "\\frac12", completion: "The answer is 0.5." },
];

afterAll(() => rmSync(folder, { recursive: true }));

test("the summary gives the mean reward over every completion", async () => {
  const { code, out } = await score({ data: [write(rows)], verifier: "math", field: ["answer=gold"] });
  expect(code).toBe(0);
  expect(out).toMatch(/completions {2}3\nmean reward {2}0\.6667 over 3 judged/);
});

test("--explain says what was extracted, from where, and compared with what", async () => {
  const { out } = await score({ data: [write(rows)], verifier: "math", field: ["answer=gold"], explain: true });
  expect(out).toMatch(/:1, id a, completion 1: reward 0\n {2}extracted {2}2 {3}from: boxed\n {2}expected {3}1\n/);
  expect(out).toMatch(
    /:2, id b, completion 0: reward 1\n {2}extracted {2}0\.5 {3}from: phrase\n {2}expected {3}\\frac12/,
  );
});

test("--json prints one object a line, in the order of the file, then the summary", async () => {
  const { out } = await score({ data: [write(rows)], verifier: "math", field: ["answer=gold"], json: true });
  const lines = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.map(({ id, completion, reward }) => [id, completion, reward])).toEqual([
    ["a", 0, 1],
    ["a", 1, 0],
    ["b", 0, 1],
    [undefined, undefined, undefined],
  ]);
  expect(lines.at(-1).summary).toMatchObject({ rows: 2, completions: 3, judged: 3, undecided: 0 });
});

test("--json has what --explain prints, so that both are refused", async () => {
  const both = score({ data: [write(rows)], verifier: "math", field: ["answer=gold"], json: true, explain: true });
  await expect(both).rejects.toMatchObject({ code: "ERR_RLSD_USAGE", message: expect.stringContaining("--explain") });
});

test("undecided completions are counted by reason and left out of the mean", async () => {
  const verifier = JSON.stringify({ type: "module", path: fixture("misbehave.mjs"), deadlineMs: 2000, workers: 1 });
  const data = write([{ answer: "x", completions: ["x", "hang", "throw"] }]);
  const { out } = await score({ data: [data], verifier });
  expect(out).toMatch(/mean reward {2}1\.0000 over 1 judged\nundecided {4}2\n/);
  expect(out).toMatch(/timeout +1/);
  expect(out).toMatch(/error +1/);
});

test.each(["mth", '{"type": "math", "boxd": true}'])("%s is wrong usage", async (verifier) => {
  const error = await score({ data: [write(rows)], verifier }).catch((thrown: unknown) => thrown);
  expect(exitCodeOf(error)).toBe(EXIT.usage);
});

test("a field may lie inside an object", async () => {
  const data = write([{ reward_model: { ground_truth: "7" }, completion: "7" }]);
  const { out } = await score({ data: [data], verifier: "numeric", field: ["answer=reward_model.ground_truth"] });
  expect(out).toMatch(/mean reward {2}1\.0000/);
});

test("a specification may be read from a file", async () => {
  const spec = join(folder, "spec.json");
  writeFileSync(spec, JSON.stringify({ type: "numeric", absolute: 1 }));
  const { out } = await score({ data: [write([{ answer: 10, completion: "11" }])], verifier: `@${spec}` });
  expect(out).toMatch(/mean reward {2}1\.0000/);
});

test("a long file is judged in order with every completion once", async () => {
  const many = Array.from({ length: 1500 }, (_, i) => ({ answer: i, completion: String(i % 3 === 0 ? -1 : i) }));
  const { out } = await score({ data: [write(many)], verifier: "numeric", json: true });
  const lines = out
    .trim()
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));
  expect(lines.map(({ where }) => Number(where.split(":").at(-1)))).toEqual(many.map((_, i) => i + 1));
  expect(lines.every(({ reward }, i) => reward === (i % 3 === 0 ? 0 : 1))).toBe(true);
});

describe("errors name the file and the line, and nothing is printed before them", () => {
  test.each([
    [
      "a row that cannot be judged",
      [
        { answer: 1, completion: "1" },
        { answer: "?", completion: "1" },
      ],
      /:2: The verifier "numeric".*"answer"/,
    ],
    ["a line that is no JSON", [{ answer: 1, completion: "1" }, "", "{oops"], /:3: not JSON/],
    ["a line that is no object", ["[1]"], /:1: expected an object but found a list/],
    ["a row without completions", [{ answer: 1, output: "1" }], /:1: expected "completion".*among: answer, output/],
    ["a completion that is no text", [{ answer: 1, completions: [1] }], /:1: expected "completion"/],
    ["an empty file", [], /holds no completions/],
  ])("%s", async (_, data, message) => {
    const io = { stdout: sink(), stderr: sink() };
    await expect(runScore({ data: [write(data)], verifier: "numeric" }, io)).rejects.toThrow(message);
    expect(io.stdout.text()).toBe("");
  });

  test("a file that is not there, a field that no column has, a verifier that nobody knows", async () => {
    const data = write([{ answer: 1, completion: "1" }]);
    await expect(score({ data: [join(folder, "none.jsonl")], verifier: "numeric" })).rejects.toThrow(
      /cannot read .*none/,
    );
    await expect(score({ data: [data], verifier: "numeric", field: ["answer=gold"] })).rejects.toThrow(
      /:1: there is no column "gold"/,
    );
    await expect(score({ data: [data], verifier: "numeric", field: ["answer"] })).rejects.toThrow(/name=column/);
    await expect(score({ data: [data], verifier: "numerik" })).rejects.toThrow(/Did you mean "numeric"/);
    await expect(score({ data: [data], verifier: "{type: numeric}" })).rejects.toThrow(/does not parse/);
  });
});

test("the command's help shows examples and every verifier", () => {
  const program = new Command();
  registerScore(program);
  let help = "";
  const command = program.commands[0]!;
  command.configureOutput({
    writeOut: (text) => {
      help += text;
    },
  });
  command.outputHelp();
  expect(help).toMatch(/rlsd score data\.jsonl --verifier math/);
  expect(help).toMatch(/box-iou/);
});
