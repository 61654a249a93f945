import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createProgress, stdoutScreen } from "../lib/cli/progress.js";
import { clockTime } from "../lib/duration.js";
import type { RunStart } from "../lib/trainer/train-hooks.js";
import { cliArgs, runCli } from "./support/cli.js";
import { fewRows } from "./support/clock-task.js";
import { fixture, isAlive, until } from "./verifiers/support.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-cli-"));
const clock = join(__dirname, "../assets/clock");
const broken = join(folder, "broken.mjs");
writeFileSync(broken, 'throw new Error("boom");');
const neverReady = fixture("never-ready.mjs");
/** A file where a folder is wanted. */
const main = join(__dirname, "../lib/cli/main.ts");
const rlsd = (...args: string[]) => runCli(args, folder);

const few = ["--set", `data.train=${fewRows(folder)}`];
const quick = ["--set", "steps=2", "--set", "eval.limit=20", "--set", "rollout.prompts=2"];

describe("rlsd train", () => {
  test("without a settings file runs the built-in example, and ends with where everything is", () => {
    const output = join(folder, "example");
    const { status, stdout, stderr } = rlsd("train", "--output", output, ...quick);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/88,384 parameters, 2000 rows, 20 held out/);
    expect(stdout).toMatch(/step 0: held-out accuracy \d+\.\d%/);
    expect(stdout).toMatch(/step 2\/2 {2}reward/);
    expect(stdout).toContain(`run        ${output}`);
    expect(stdout).toMatch(
      /question {3}Clock at .*\n {2}before {3}.* \| Answer: \d+ {2}\(reward 0\)\n {2}after {4}\d+ /,
    );
    // Plain lines: nothing that only a terminal understands.
    expect(["\r", "\u001b"].filter((code) => stdout.includes(code))).toEqual([]);
    expect(JSON.parse(readFileSync(join(output, "config.json"), "utf8")).config.steps).toBe(2);
  });

  test("--json gives one object a line", () => {
    const { status, stdout } = rlsd("train", "--json", "--output", join(folder, "json"), ...quick, ...few);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(status).toBe(0);
    expect(lines.map((line) => line.kind)).toEqual(["start", "eval", "train", "train", "eval", "summary"]);
  });

  test("a run that learns nothing says so while it goes on and at its end, and why", () => {
    const blind = ["--set", 'reward={"type": "numeric", "tag": "answer"}', "--set", "steps=5"];
    const { stdout } = rlsd("train", "--json", "--output", join(folder, "blind"), ...quick, ...few, ...blind);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const warning = { metric: "zeroVarianceFraction", message: expect.stringContaining("says no-answer 100%") };
    expect(lines.filter(({ kind }) => kind === "warning")).toEqual([{ kind: "warning", step: 5, ...warning }]);
    expect(lines.at(-1)).toMatchObject({ kind: "summary", answers: { rows: 20, gained: 0, lost: 0, reworded: 0 } });
    expect(lines.at(-1).warnings).toEqual([expect.objectContaining({ metric: "accuracy" }), warning]);
    const text = rlsd("train", "--no-report", "--output", join(folder, "blind-2"), ...quick, ...few, ...blind).stdout;
    expect(text).toContain("-> 0.0%: not one of 20 answers changed\n");
    expect(text.match(/^look at zeroVarianceFraction: 100% of the groups/gm)).toHaveLength(2);
    expect(text).toMatch(/^step 5\/5 {2}reward 0\.000 {2}accuracy 0\.0% {2}flat groups 100% {2}loss /m);
  });

  test("of one's own model and rows nothing is taken from the example, also without a settings file", () => {
    const own = ["--set", `model=${clock}`, "--set", `data.train=${clock}/train.jsonl`];
    const plan = rlsd("train", ...own, "--set", "rollout.maxTokens=40", "--dry-run", "--json");
    expect(JSON.parse(plan.stdout)).toMatchObject({ config: { steps: 100, data: { eval: [] } } });
    expect(rlsd("compare", ...own).stderr).toContain('expected files for "data.eval"');
    for (const command of ["train", "compare"]) {
      const { status, stderr } = rlsd(command, `${clock}/train.jsonl`);
      expect([status, stderr]).toEqual([
        2,
        expect.stringContaining("is data, not settings (YAML or JSON): give it as --set"),
      ]);
    }
  });

  test("settings come from a file, and --set wins", () => {
    const file = join(folder, "run.yaml");
    writeFileSync(
      file,
      `model: ${clock}\ndata: { train: ${clock}/train.jsonl }\nsteps: 50\nalgorithm: grpo\nrollout: { maxTokens: 40 }\n`,
    );
    const { stdout, status } = rlsd("train", file, "--set", "steps=7", "--dry-run", "--json");
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      config: { steps: 7, algorithm: "grpo" },
      parameters: 88384,
      endings: ["<|end|>"],
    });
  });

  test("a dry run says with what the chat template ends a turn, where no completion ends with it", () => {
    const base = join(folder, "base-model");
    cpSync(clock, base, { recursive: true });
    const file = join(base, "config.json");
    const config = JSON.parse(readFileSync(file, "utf8"));
    writeFileSync(file, JSON.stringify({ ...config, eos_token_id: 0 }));
    const dryRun = (model: string, ...more: string[]) =>
      rlsd(
        "train",
        "--set",
        `model=${model}`,
        "--set",
        `data.train=${clock}/train.jsonl`,
        "--set",
        "rollout.maxTokens=40",
        ...more,
        "--dry-run",
      ).stdout;
    expect(dryRun(base)).toContain(
      'ends       "<|pad|>"\n           not "<|end|>", with which the chat template ends a turn: rollout.stopStrings=["<|end|>"] does\n',
    );
    expect(dryRun(base, "--set", 'rollout.stopStrings=["<|end|>"]')).toMatch(/ends {7}"<\|pad\|>", "<\|end\|>"\nstep /);
    expect(dryRun(clock)).toMatch(/ends {7}"<\|end\|>"\nstep /);
    rmSync(join(base, "chat_template.jinja"));
    expect(dryRun(base)).toMatch(/^prompts .*\n {11}the model has no chat template: /m);
  });

  test("Ctrl-C stops at the next safe point, saves and says how to go on; going on ends as if nothing had been", async () => {
    const output = join(folder, "stopped");
    const set = ["steps=40", "eval.limit=8", "rollout.prompts=2", "eval.every=0"].flatMap((one) => ["--set", one]);
    const long = [...set, ...few];
    const child = spawn(process.execPath, cliArgs(["train", "--json", "--output", output, ...long]), { cwd: folder });
    let text = "";
    let asked = false;
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (!asked && text.includes('"step":3,')) asked = child.kill("SIGINT");
    });
    const code = await new Promise((resolve) => child.on("exit", resolve));
    expect(code).toBe(130);
    const summary = JSON.parse(text.trim().split("\n").at(-1)!);
    expect(summary).toMatchObject({ kind: "summary", stopped: "interrupted" });
    expect(rlsd("train", "--resume", output).status).toBe(0);
    const straight = join(folder, "straight");
    rlsd("train", "--output", straight, ...long);
    const last = (run: string) => readFileSync(join(run, "checkpoints/step-000040/model/model.safetensors"));
    expect(last(output).equals(last(straight))).toBe(true);
    expect(readFileSync(join(output, "samples.jsonl"), "utf8")).toBe(
      readFileSync(join(straight, "samples.jsonl"), "utf8"),
    );
  });

  test.each([
    [["train", "--set", "stepz=3"], 2, /no setting "stepz"\. Did you mean "steps"/],
    [["train", "--set", "optimizer.learningrate=1"], 2, /Did you mean "optimizer\.learningRate"/],
    [["train", "--set", "__proto__.steps=3"], 2, /no setting "__proto__\.steps"/],
    [["train", "--set", "reward=mth"], 2, /"reward": There is no verifier "mth"\. Did you mean "math"/],
    [["train", "--resume", folder, "--output", "other"], 2, /own folder: leave out --output/],
    [["train", "--resume", folder, "--set", "output=other"], 2, /own folder: leave out --set output/],
    [["train", "nowhere.yaml"], 2, /nowhere\.yaml/],
    [["train", "--nonsense"], 2, /unknown option/],
    [["train", "--set", `reward={type: module, path: ${broken}}`], 2, /broken\.mjs could not be loaded: Error: boom/],
    [["train", "--resume", "nowhere"], 1, /nowhere is not a run folder/],
    [["train", "--output", join(main, "run")], 1, /cannot write .*a part of the path is a file/],
    [["eval", clock, join(clock, "eval.jsonl"), "--output", main], 1, /cannot write .*a file is in its place/],
    [["pretrain", "--output", main], 1, /cannot write .*a file is in its place/],
    [["eval", "nowhere"], 1, /neither a run, nor a checkpoint, nor a model/],
    [["pretrain"], 2, /--output/],
    [
      ["train", "run.yaml", "--settings", "--set", "steps=3", "--dry-run", "--no-report"],
      2,
      /--settings lists every setting and its default: leave out run\.yaml, --set, --dry-run, --no-report\./,
    ],
    [
      ["eval", clock, "e.jsonl", "--set", "rollout.temperature=0.7"],
      2,
      /--set rollout\.temperature: rlsd eval has no use for it: eval\.temperature does that here\./,
    ],
    [
      ["eval", clock, "e.jsonl", "--set", "optimizer.eps=1"],
      2,
      /--set optimizer: rlsd eval has no use for it: leave it/,
    ],
    [
      ["eval", clock, "e.jsonl", "--samples", "2", "--set", "eval.samples=3"],
      2,
      /--samples and --set eval\.samples say/,
    ],
  ])("%j ends with %i and one clear line", (args, expected, message) => {
    const { status, stderr } = rlsd(...args);
    expect(status).toBe(expected);
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("    at ");
  });

  test("lists every setting", () => {
    const { stdout } = rlsd("train", "--settings");
    expect(stdout).toMatch(/^optimizer\.learningRate +AdamW/m);
  });
});

test.each([
  ["train", "train --json", "rlsd: interrupted\n"],
  ["eval", `eval ${clock} ${join(clock, "eval.jsonl")} --json`, "rlsd: interrupted: nothing was written\n"],
])("Ctrl-C while the verifier of rlsd %s still starts ends it at once, its worker too", async (name, args, said) => {
  const pidFile = join(folder, `${name}.pid`);
  const output = join(folder, `${name}-unstarted`);
  const reward = ["--set", `reward={type: module, path: ${neverReady}}`, "--set", "rollout.maxTokens=40"];
  const child = spawn(process.execPath, cliArgs([...args.split(" "), "--output", output, ...reward]), {
    cwd: folder,
    env: { ...process.env, RLSD_TEST_PID_FILE: pidFile },
  });
  const told = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].on("data", (chunk: Buffer) => {
      told[stream] += chunk.toString();
    });
  }
  const ended = new Promise((resolve) => child.on("close", resolve));
  const pid = () => (existsSync(pidFile) ? Number(readFileSync(pidFile, "utf8")) : 0);
  await until(() => pid() > 0 || child.exitCode !== null);
  child.kill("SIGINT");
  expect(await ended).toBe(130);
  expect(told).toEqual({ stdout: "", stderr: said });
  expect(existsSync(output)).toBe(false);
  await until(() => !isAlive(pid()));
});

describe("rlsd eval", () => {
  const judged = /^rlsd: \d+ of \d+ completions judged(?:, [\d,]+ tokens drawn)?\n/gm;

  test("says every two seconds how far it has come", () => {
    const slow = join(folder, "slow.mjs");
    writeFileSync(slow, "export const verify = () => new Promise((done) => setTimeout(done, 2500, 1));");
    const reward = ["--set", `reward={type: module, path: ${slow}, workers: 1}`, "--set", "rollout.maxTokens=8"];
    const args = ["eval", clock, join(clock, "eval.jsonl"), "--set", "eval.limit=2", ...reward];
    const { status, stderr } = rlsd(...args, "--output", join(folder, "slow-eval"), "--json");
    expect([status, stderr.match(judged)?.at(-1)]).toEqual([
      0,
      expect.stringMatching(/^rlsd: 1 of 2 completions judged/),
    ]);
  });

  test("judges a run's best checkpoint and keeps every prediction", () => {
    const run = join(folder, "to-eval");
    rlsd("train", "--output", run, ...quick, ...few);
    const output = join(folder, "eval");
    const args = ["eval", run, "--samples", "2", "--set", "eval.limit=10", "--output", output, "--json"];
    const { status, stdout, stderr } = rlsd(...args);
    expect({ status, stderr: stderr.replaceAll(judged, "") }).toEqual({ status: 0, stderr: "" });
    const { metrics } = JSON.parse(stdout);
    expect(metrics.rows).toBe(10);
    expect(metrics["pass@2"]).toBeGreaterThanOrEqual(metrics["avg@2"]);
    const predictions = readFileSync(join(output, "predictions.jsonl"), "utf8").trim().split("\n");
    expect(predictions).toHaveLength(10 + 20);
    expect(existsSync(join(output, "metrics.json"))).toBe(true);
    const again = rlsd(...args);
    expect([again.status, again.stderr]).toEqual([
      0,
      `rlsd: ${output} has all 30 completions: none is drawn or judged again; another --output makes new ones\n`,
    ]);
    expect(JSON.parse(again.stdout)).toEqual({ ...JSON.parse(stdout), kept: 30 });
    const other = rlsd(...args, "--set", "seed=7");
    expect([other.status, other.stderr]).toEqual([
      1,
      expect.stringMatching(/holds an evaluation that is finished, and this one differs from it in seed\. Choose/),
    ]);
    expect(readFileSync(join(output, "predictions.jsonl"), "utf8").trim().split("\n")).toEqual(predictions);
    // Of its own held-out rows the run takes 20.
    const rows = (...more: string[]) =>
      JSON.parse(rlsd("eval", run, ...more, "--output", join(folder, `eval-${more.length}`), "--json").stdout).metrics
        .rows;
    expect([rows(), rows(join(clock, "eval.jsonl"))]).toEqual([20, 300]);
  });
});

describe("progress", () => {
  const start = {
    folder: "runs/x",
    config: { algorithm: "rlsd", steps: 4, privileged: { source: "trace" } },
    parameters: 1000,
    rows: { train: 2, eval: 1 },
    skipped: { train: 1, eval: 0 },
    heldOutInTraining: 0,
    withoutPrivileged: 2,
    earlierInstructionSet: null,
    otherRows: [],
    disk: { total: 3000, present: 0, free: 3000 },
    step: 0,
  } as unknown as RunStart;
  const step = (n: number) => ({
    step: n,
    kind: "train" as const,
    reward: 0.5,
    accuracy: 0.5,
    loss: -0.01,
    ratioClippedLow: 0.01,
    ratioClippedHigh: 0.02,
    time: { tokensPerSecond: 1234.5 },
  });

  test("in a terminal is one live line that is erased before a line that stays", () => {
    let text = "";
    let now = 0;
    const progress = createProgress({ live: true, columns: 60, write: (s) => (text += s) }, () => now);
    progress.start(start);
    now = 1000;
    progress.step(step(1));
    expect(text.split("\n").at(-1)).toBe("step 1/4  reward 0.500  accuracy 50.0%  0:03 left");
    expect(text).not.toContain("instructions");
    progress.start({ ...start, step: 1, earlierInstructionSet: "avx2" });
    expect(text).toContain(
      "its earlier steps were computed with avx2 instructions, which is the same to float32 tolerance",
    );
    expect(text).not.toContain("not those of the steps before");
    progress.start({ ...start, step: 1, otherRows: ["train"] });
    expect(text).toContain("the training rows, or their prompts, are not those of the steps before: the place in");
    progress.start({ ...start, step: 1, otherRows: ["train", "eval"] });
    expect(text).toContain(
      "the training rows and held-out rows, or their prompts, are not those of the steps before: acc",
    );
    progress.evaluation({ step: 1, kind: "eval", accuracy: 0.5, accuracyLow: 0.4, accuracyHigh: 0.6, time: {} });
    progress.end();
    expect(text).toContain("\r\u001b[2Kstep 1: held-out accuracy 50.0% (95 %: 40.0% to 60.0%)\n");
    expect(text.endsWith("\r\u001b[2K")).toBe(true);
  });

  test("a terminal that was never told its size is taken for one of 80 columns", () => {
    const before = Object.getOwnPropertyDescriptor(process.stdout, "columns");
    const widths = [0, undefined, 40].map((columns) => {
      Object.defineProperty(process.stdout, "columns", { value: columns, configurable: true });
      return stdoutScreen(true).columns;
    });
    if (before === undefined) Reflect.deleteProperty(process.stdout, "columns");
    else Object.defineProperty(process.stdout, "columns", before);
    expect(widths).toEqual([80, 80, 40]);
  });

  test("on a narrow terminal the line of a step keeps how long the run will take, also where the window changes", () => {
    let text = "";
    let columns = 200;
    const screen = {
      live: true,
      get columns() {
        return columns;
      },
      write(s: string) {
        text += s;
      },
    };
    const progress = createProgress(screen, () => 0);
    progress.expect(start);
    const at = (width: number) => {
      columns = width;
      text = "";
      progress.step({ ...step(2), evidenceClippedLow: 0.1, evidenceClippedHigh: 0.2 });
      return text.replace("\r\u001b[2K", "");
    };
    const whole = at(200);
    expect(whole).toMatch(/^step 2\/4 {2}reward .* clip .* credit clip 10\.0%\/20\.0% .* tok\/s {2}0:00 left$/);
    expect(at(whole.length)).toBe(whole.replace("  credit clip 10.0%/20.0%", ""));
    expect(at(80)).toMatch(/^step 2\/4 {2}reward \S+ {2}accuracy \S+ {2}loss .* 0:00 left$/);
    expect(at(50)).toMatch(/^step 2\/4 {2}reward \S+ {2}accuracy \S+ {2}0:00 left$/);
    expect(at(20)).toHaveLength(19);
  });

  test("a step's line has what taught nothing, an evaluation's what nobody judged, where there is any", () => {
    let text = "";
    const progress = createProgress({ live: false, columns: 80, write: (s) => (text += s) }, () => 5000);
    progress.expect(start);
    progress.step({ ...step(1), zeroVarianceFraction: 0.625, unjudged: 3, updates: 1 });
    expect(text).toMatch(/ {2}accuracy 50\.0% {2}flat groups 63% {2}unjudged 3 {2}loss -0\.0100 {2}1235 tok/);
    text = "";
    progress.evaluation({ ...step(1), kind: "eval", rows: 9, unjudged: 2 });
    progress.evaluation({ ...step(1), kind: "eval", rows: 9, unjudged: 0 });
    expect(text.match(/ {2}2 of 9 unjudged/g)).toHaveLength(1);
    expect(text.match(/unjudged/g)).toHaveLength(1);
  });

  test("a stage that lasts is told, on a terminal by a line that changes, and goes when it is over", () => {
    let text = "";
    let now = 0;
    const progress = createProgress({ live: true, columns: 80, write: (s) => (text += s) }, () => now);
    progress.expect(start);
    const at = (ms: number) => {
      now = ms;
      text = "";
      progress.tick();
      return text;
    };
    progress.stage({ step: 0, doing: "evaluation", done: 0, total: 9 });
    expect(at(1000)).toBe("");
    progress.stage({ step: 0, doing: "evaluation", done: 3, total: 9 });
    expect(at(5000)).toBe("step 0/4  held-out rows: 3 of 9 completions judged  0:05");
    text = "";
    progress.evaluation({ step: 0, kind: "eval", accuracy: 0.5, time: {} });
    expect(text).toContain("\r\u001b[2Kstep 0: held-out accuracy 50.0%");
    expect(text.endsWith("\n")).toBe(true);
    expect(at(20_000)).toBe("");
    progress.stage({ step: 1, doing: "rollout", total: 8 });
    expect(at(23_000)).toBe("step 1/4  drawing 8 completions  0:03");
    progress.stage({ step: 1, doing: "rollout", total: 8, tokens: 1234 });
    expect(at(23_200)).toBe("\r\u001b[2Kstep 1/4  drawing 8 completions, 1,234 tokens drawn  0:03");
    // Another stage begins its own time.
    progress.stage({ step: 1, doing: "verify", done: 2, total: 8 });
    expect(at(24_000)).toBe("");
    expect(at(26_000)).toBe("\r\u001b[2Kstep 1/4  2 of 8 completions judged  0:03");
    progress.step(step(1));
    expect(at(40_000)).toBe("");
  });

  test("elsewhere a stage is told where nothing was for half a minute", () => {
    let text = "";
    let now = 0;
    const progress = createProgress({ live: false, columns: 80, write: (s) => (text += s) }, () => now);
    progress.expect(start);
    progress.stage({ step: 1, doing: "update", total: 8 });
    for (let second = 1; second <= 65; second++) {
      now = 1000 * second;
      progress.tick();
    }
    expect(text).toBe("step 1/4  updating  0:30\nstep 1/4  updating  1:00\n");
  });

  test("elsewhere is plain lines, at most one a second, and the last", () => {
    let text = "";
    let now = 5000;
    const progress = createProgress({ live: false, columns: 80, write: (s) => (text += s) }, () => now);
    progress.start(start);
    for (const n of [1, 2, 3, 4]) {
      now += 400;
      progress.step(step(n));
    }
    const steps = text.split("\n").filter((line) => line.startsWith("step"));
    expect(steps.map((line) => line.slice(0, 8))).toEqual(["step 1/4", "step 4/4"]);
    expect(steps[0]).toContain("clip 1.0%/2.0%  1235 tok/s  0:01 left");
    expect(text).toContain("1 rows left out");
    expect(text).toContain("no training row has privileged text (privileged.source=trace): all credit is 1");
    expect(text).toContain("as without a teacher; --set data.fields.trace=COLUMN names it");
    text = "";
    progress.start({ ...start, withoutPrivileged: 1 });
    progress.start({ ...start, withoutPrivileged: null });
    expect(text.match(/privileged/g)).toHaveLength(1);
    expect(text).toContain("1 of 2 training rows have no privileged text");
    expect(text).not.toContain("training prompts too");
    progress.start({ ...start, rows: { train: 2, eval: 5 }, heldOutInTraining: 3 });
    expect(text).toContain("3 of 5 held-out prompts are training prompts too");
  });

  test("times are read as people write them", () => {
    expect([clockTime(5), clockTime(75), clockTime(3600)]).toEqual(["0:05", "1:15", "1:00:00"]);
  });
});
