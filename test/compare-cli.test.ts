import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cliArgs, runCli } from "./support/cli.js";
import { fewRows } from "./support/clock-task.js";
import { jsonLines } from "./support/run-files.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-compare-"));
const rlsd = (...args: string[]) => runCli(args, folder);
const few = ["steps=2", "eval.limit=20", "eval.every=1", "rollout.prompts=2", `data.train=${fewRows(folder)}`];
const quick = few.flatMap((one) => ["--set", one]);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("without arms it trains with the credit and without it, seed by seed, and says how they compare", () => {
  const output = join(folder, "default");
  const { status, stdout, stderr } = rlsd("compare", "--output", output, "--seeds", "2", ...quick);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout.match(/^\[\d\/4\] .*?(?=:)/gm)).toEqual([
    "[1/4] grpo, seed 1",
    "[2/4] rlsd, seed 1",
    "[3/4] grpo, seed 2",
    "[4/4] rlsd, seed 2",
  ]);
  expect(stdout).toMatch(/^held-out accuracy {2}step 0 +step 1 +step 2$/m);
  expect(stdout).toMatch(/^rlsd - grpo at the end: .* points, 2 seeds in both$/m);
  const config = (arm: string) => JSON.parse(readFileSync(join(output, arm, "seed-2/config.json"), "utf8")).config;
  expect(config("grpo")).toMatchObject({ algorithm: "grpo", seed: 2, objective: { preset: "rlsd" } });
  expect(config("rlsd")).toMatchObject({ algorithm: "rlsd", seed: 2 });
  const page = readFileSync(join(output, "compare.html"), "utf8");
  const links = [...page.matchAll(/href="([^"]*)"/g)].map((match) => match[1]!);
  expect(links).toHaveLength(4);
  expect(links.filter((link) => !existsSync(join(output, link)))).toEqual([]);

  // The same call again trains nothing; with more seeds it trains what is missing.
  const weights = join(output, "rlsd/seed-1/checkpoints/step-000002/model/model.safetensors");
  const before = readFileSync(weights);
  const again = rlsd("compare", "--output", output, "--seeds", "3", ...quick, "--json");
  expect(again.status).toBe(0);
  expect(jsonLines(again.stdout).map((line) => [line.kind, line.arm, line.seed])).toEqual([
    ["run", "grpo", 1],
    ["run", "rlsd", 1],
    ["run", "grpo", 2],
    ["run", "rlsd", 2],
    ["run", "grpo", 3],
    ["run", "rlsd", 3],
    ["comparison", undefined, undefined],
  ]);
  const { report, kind, ...numbers } = jsonLines(again.stdout).at(-1);
  expect([kind, report]).toEqual(["comparison", join(output, "compare.html")]);
  expect(numbers).toEqual(JSON.parse(readFileSync(join(output, "compare.json"), "utf8")));
  expect(readFileSync(weights).equals(before)).toBe(true);
  const log = readFileSync(join(output, "rlsd/seed-1/metrics.jsonl"), "utf8");
  expect(log.trim().split("\n")).toHaveLength(5);

  // Other settings do not go into the same runs.
  const other = rlsd("compare", "--output", output, "--seeds", "1", ...quick, "--set", "optimizer.learningRate=1e-5");
  expect([other.status, other.stderr]).toEqual([
    1,
    expect.stringMatching(/differs from arm grpo with seed 1 in optimizer\.learningRate\. Choose another folder/),
  ]);

  // The same runs by their folders.
  const runs = ["grpo/seed-1", "grpo/seed-2", "rlsd/seed-1"].map((run) => join(output, run));
  const seen = rlsd("compare", ...runs, "--output", join(folder, "seen"), "--json");
  expect(jsonLines(seen.stdout)[0].arms.map((arm: { name: string; seeds: number }) => [arm.name, arm.seeds])).toEqual([
    ["algorithm=grpo objective.preset=rlsd", 2],
    ["algorithm=rlsd", 1],
  ]);
}, 60_000);

test("arms of one's own: several changes for one name, none for another; the first is the baseline", () => {
  const output = join(folder, "own");
  const arms = ["plain", "live:teacher.kind=shared", "live:objective.creditMix=0.25"].flatMap((arm) => ["--arm", arm]);
  const { status, stdout } = rlsd("compare", ...arms, "--output", output, "--seeds", "1", ...quick, "--json");
  expect(status).toBe(0);
  expect(jsonLines(stdout).at(-1)).toMatchObject({ baseline: "plain", arms: [{ name: "plain" }, { name: "live" }] });
  const { config } = JSON.parse(readFileSync(join(output, "live/seed-1/config.json"), "utf8"));
  expect(config).toMatchObject({ teacher: { kind: "shared" }, objective: { creditMix: 0.25, evidenceClip: 0.5 } });
}, 30_000);

test("Ctrl-C keeps what was trained, and the same call goes on", async () => {
  const output = join(folder, "stopped");
  const args = [
    "compare",
    "--output",
    output,
    "--seeds",
    "1",
    ...quick,
    "--set",
    "steps=100",
    "--set",
    "eval.every=100",
  ];
  const child = spawn(process.execPath, cliArgs([...args, "--json"]), { cwd: folder });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  const exited = new Promise((resolve) => child.on("exit", resolve));
  const metrics = join(output, "grpo/seed-1/metrics.jsonl");
  while (child.exitCode === null && (!existsSync(metrics) || statSync(metrics).size < 3000))
    await new Promise((go) => setTimeout(go, 20));
  child.kill("SIGINT");
  expect(await exited).toBe(130);
  expect(jsonLines(text)).toMatchObject([{ kind: "run", arm: "grpo", stopped: "interrupted" }]);
  // As where a machine with another processor goes on.
  const config = join(output, "grpo/seed-1/config.json");
  writeFileSync(config, JSON.stringify({ ...JSON.parse(readFileSync(config, "utf8")), instructionSet: "avx" }));
  const again = rlsd(...args);
  expect([again.status, again.stderr]).toEqual([0, ""]);
  expect(again.stdout).toMatch(
    /^grpo: its earlier steps were computed with avx instructions.*\n\[1\/2\] grpo, seed 1: done at step 100.*\n(?:grpo: look at .*\n)*\[2\/2\] rlsd, seed 1: done/m,
  );
  const { status, stdout } = rlsd(...args, "--json");
  expect(status).toBe(0);
  expect(jsonLines(stdout).map((line) => line.stopped)).toEqual(["done", "done", undefined]);
}, 120_000);

test.each([
  [["compare", "runs/only"], /Expected one settings file .* or at least two run folders/],
  [["compare", "--arm", "a"], /one arm alone has nothing to be compared with/],
  [["compare", "--arm", "../x:steps=1", "--arm", "b"], /expected a name of letters/],
  [["compare", "--arm", "..", "--arm", "b"], /expected a name of letters/],
  [["compare", "--arm", "a:steps", "--arm", "b"], /expected key=value/],
  [["compare", "--arm", "a:step=1", "--arm", "b"], /arm a: .*"steps"/],
  [
    ["compare", "--set", "data.eval=[]"],
    /arm grpo: arms are compared by held-out accuracy: expected files for "data.eval"/,
  ],
  [["compare", "--seeds", "0"], /whole number of at least 1 for --seeds/],
  [["compare", "x", "y", "--arm", "a"], /for settings that are to be trained/],
  [["compare", "x", "y", "--seeds", "4"], /for settings that are to be trained/],
  [["compare", "x/../y", "./y/"], /x\/\.\.\/y and \.\/y\/ are the same run: name it once/],
  [["compare", "--set", "seed=abc"], /arm grpo: .*integer.*"seed" but received "abc"/],
  [["compare", "--arm", "a:seed=7", "--arm", "b"], /arm a: "seed" cannot differ from arm to arm/],
  [["compare", "--arm", "b", "--arm", "a:output=x"], /arm a: "output" cannot differ from arm to arm/],
  [["compare", "--set", "output=x"], /"output" is .*x", but each run of a comparison has a folder of its own/],
])("%j is wrong usage, and nothing is written", (args, message) => {
  const { status, stderr } = rlsd(...args, "--output", join(folder, "wrong"));
  expect([status, stderr]).toEqual([2, expect.stringMatching(message)]);
  expect(existsSync(join(folder, "wrong"))).toBe(false);
});

test("of each run is said what to look at, behind the arm's name", () => {
  const args = ["compare", "--output", join(folder, "watched"), "--seeds", "1", ...quick];
  const rate = ["--arm", "as-it-is", "--arm", "ruined:optimizer.learningRate=1"];
  const { stdout } = rlsd(...args, ...rate);
  expect(stdout).toMatch(/^ruined: look at accuracy: No evaluation was better/m);
  expect(stdout).not.toMatch(/^as-it-is: look at accuracy/m);
  const lines = jsonLines(rlsd(...args, ...rate, "--json").stdout);
  expect(lines[1].warnings).toContainEqual(expect.objectContaining({ metric: "accuracy" }));
});

test("runs without an evaluation cannot be compared, and that is said", () => {
  const names = ["one", "two"].map((name) => join(folder, name));
  for (const [i, output] of names.entries()) {
    const set = [...quick, "--set", "data.eval=[]", "--set", `seed=${i}`, "--set", "steps=1"];
    expect(rlsd("train", "--output", output, ...set, "--json").status).toBe(0);
  }
  const { status, stderr } = rlsd("compare", ...names);
  expect([status, stderr]).toEqual([1, expect.stringContaining("There is nothing to compare by")]);
  expect(rlsd("compare", ...names, "nowhere").stderr).toContain("nowhere is not a run folder");
}, 30_000);
