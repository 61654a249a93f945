import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reportRun } from "../lib/index.js";
import { runCli } from "./support/cli.js";
import { fewRows } from "./support/clock-task.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-report-"));
const rlsd = (...args: string[]) => runCli(args, folder);
const few = ["steps=3", "eval.limit=20", "rollout.prompts=2", `data.train=${fewRows(folder)}`];
const quick = few.flatMap((one) => ["--set", one]);
const run = join(folder, "a run");

beforeAll(() => {
  expect(rlsd("train", "--output", run, ...quick, "--json").status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("rlsd train leaves a report and says where; --no-report leaves it out", () => {
  const page = readFileSync(join(run, "report.html"), "utf8");
  expect(page).toContain("<h1>a run</h1>");
  expect(page).toContain("Credit, token by token");
  const without = join(folder, "without");
  const told = rlsd("train", "--output", without, ...quick, "--no-report");
  expect([told.status, existsSync(join(without, "report.html")), /^report /m.test(told.stdout)]).toEqual([
    0,
    false,
    false,
  ]);
  const summary = JSON.parse(rlsd("train", "--resume", without, "--json").stdout.trim().split("\n").at(-1)!);
  expect(summary).toMatchObject({ kind: "summary", report: join(without, "report.html") });
  expect(existsSync(summary.report)).toBe(true);
});

test("a report that cannot be written fails no training", () => {
  const blocked = join(folder, "\u001b[2Jblocked");
  mkdirSync(join(blocked, "report.html", "in the way"), { recursive: true });
  const { status, stdout, stderr } = rlsd("train", "--output", blocked, ...quick);
  expect(status).toBe(0);
  expect(stdout).toContain("done after step 3");
  expect(stderr).toMatch(/^rlsd: no report: .*\u241b\[2Jblocked.*: that is a folder/);
  expect(stderr).not.toContain("\u001b");
});

test("rlsd report writes the page again, elsewhere, and in numbers", () => {
  const file = join(folder, "page.html");
  const { status, stdout } = rlsd("report", run, "--output", file, "--json");
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ report: file, name: "a run", step: 3, steps: 3, algorithm: "rlsd" });
  expect(readFileSync(file, "utf8")).toBe(readFileSync(join(run, "report.html"), "utf8"));
  expect(rlsd("report", run, "--output", file, "--steps", "1").status).toBe(0);
  const steps = new Set([...readFileSync(file, "utf8").matchAll(/data-step="(\d+)"/g)].map((match) => match[1]));
  expect(steps.size).toBe(1);
});

test("code gets the same page and numbers", async () => {
  const output = join(folder, "from-code.html");
  const counts: number[] = [];
  const told = await reportRun(run, { output, onSample: (count) => counts.push(count) });
  expect(told).toMatchObject({ report: output, step: 3, warnings: expect.any(Array) });
  expect(counts).toEqual(Array.from({ length: counts.length }, (_, i) => i + 1));
  expect(counts.length).toBeGreaterThan(10);
  expect(readFileSync(output, "utf8")).toBe(readFileSync(join(run, "report.html"), "utf8"));
  await expect(reportRun(run, { steps: 0 })).rejects.toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT" });
  await expect(reportRun(folder)).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
});

test("a run that is still going on has a report; one with a damaged file says which line", () => {
  const going = join(folder, "going");
  expect(rlsd("train", "--output", going, ...quick).status).toBe(0);
  appendFileSync(join(going, "metrics.jsonl"), '{"step":4,"ki');
  appendFileSync(join(going, "samples.jsonl"), '{"st');
  expect(rlsd("report", going).status).toBe(0);
  appendFileSync(join(going, "samples.jsonl"), '\n{"step":5}\n');
  const { status, stderr } = rlsd("report", going);
  expect([status, /samples\.jsonl:\d+ is not JSON/.test(stderr)]).toEqual([1, true]);
  for (const odd of ['{"step":5}', "null", "3", '{"tokenIds":[]}']) {
    writeFileSync(join(going, "samples.jsonl"), `${odd}\n`);
    expect(rlsd("report", going).stderr).toMatch(/^rlsd: .*samples\.jsonl:1 is no line that a run writes/);
  }
  rmSync(join(going, "samples.jsonl"));
  rmSync(join(going, "metrics.jsonl"));
  expect(rlsd("report", going).status).toBe(0);
});

test("what is wrong is said in one line", () => {
  const empty = join(folder, "empty");
  mkdirSync(empty);
  expect(rlsd("report", empty)).toMatchObject({ status: 1, stdout: "" });
  expect(rlsd("report", empty).stderr).toMatch(/^rlsd: .*is not a run folder.*\n$/);
  writeFileSync(join(empty, "config.json"), JSON.stringify({ model_type: "llama", version: 1 }));
  expect(rlsd("report", empty).stderr).toMatch(/is not a run folder: no run wrote its config\.json/);
  expect(existsSync(join(empty, "report.html"))).toBe(false);
  expect(rlsd("report", run, "--steps", "0")).toMatchObject({ status: 2, stdout: "" });
  expect(rlsd("report")).toMatchObject({ status: 2 });
  // Before the samples are read: this run's are damaged.
  const damaged = join(folder, "damaged");
  cpSync(run, damaged, { recursive: true });
  writeFileSync(join(damaged, "samples.jsonl"), "null\n");
  writeFileSync(join(folder, "file"), "");
  const output = (...path: string[]) => rlsd("report", damaged, "--output", join(folder, ...path)).stderr;
  expect(output("file", "page.html")).toMatch(/^rlsd: cannot write .*: there is no folder .*file: make it/);
  expect(output("nodir", "page.html")).toMatch(/^rlsd: cannot write .*: there is no folder .*nodir: make it/);
  expect(output(".")).toMatch(/^rlsd: cannot write .*: that is a folder/);
  expect(rlsd("report", "--help").stdout).toContain("$ rlsd report runs/first");
});
