import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { signedAdvantages } from "../lib/trainer/credit-run.js";
import type { SampleLine } from "../lib/trainer/run-folder.js";
import { cliArgs, runCli } from "./support/cli.js";
import { fewRows } from "./support/clock-task.js";
import { jsonLines } from "./support/run-files.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-credit-"));
const clock = join(__dirname, "../assets/clock");
const rlsd = (...args: string[]) => runCli(args, folder);
const path = (name: string) => join(folder, name);
const write = (name: string, rows: readonly unknown[]) =>
  writeFileSync(path(name), `${rows.map((row) => JSON.stringify(row)).join("\n")}\n`);

const logged = path("logged");
/** The same settings and weights before the first step. */
const initial = path("initial");
let samples: SampleLine[];
let rows: Record<string, unknown>[];

const few = `data.train=${fewRows(folder)}`;

beforeAll(() => {
  const train = (output: string, ...set: string[]) =>
    rlsd("train", "--json", "--no-report", "--output", output, ...[few, ...set].flatMap((one) => ["--set", one]));
  expect(train(logged, "steps=2", "log.samples=64", "data.eval=[]").status).toBe(0);
  expect(train(initial, "steps=0", "data.eval=[]").status).toBe(0);
  samples = jsonLines<SampleLine>(readFileSync(join(logged, "samples.jsonl"), "utf8"));
  const questions = new Map(
    jsonLines<{ id: string }>(readFileSync(join(clock, "train.jsonl"), "utf8")).map((row) => [row.id, row]),
  );
  rows = samples
    .filter((sample) => sample.step === 1)
    .map((sample) => ({ ...questions.get(sample.id.split("#")[0]!), completion: sample.completion }));
  write("rows.jsonl", rows);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("of a run's log", () => {
  test("it shows the last step's most telling completions, in their order", () => {
    const { status, stdout, stderr } = rlsd("credit", logged, "--json");
    expect([status, stderr]).toEqual([0, ""]);
    const shown = jsonLines<SampleLine>(stdout);
    expect(shown.map((sample) => sample.step)).toEqual([2, 2, 2, 2]);
    const excess = (sample: SampleLine) => sample.evidenceWeights.reduce<number>((sum, w) => sum + Math.abs(w! - 1), 0);
    const last = samples.filter((sample) => sample.step === 2 && sample.evidenceWeights.length > 0);
    const best = last.toSorted((a, b) => excess(b) - excess(a)).slice(0, 4);
    expect(new Set(shown.map((sample) => sample.id))).toEqual(new Set(best.map((sample) => sample.id)));
    const places = shown.map((sample) => samples.findIndex((one) => one.step === 2 && one.id === sample.id));
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    // As they were logged, to the letter.
    expect(shown[0]).toEqual(samples[places[0]!]);
  });

  test("where there is nothing to show it says why", () => {
    const bare = path("bare");
    const set = [
      "--set",
      few,
      "--set",
      "algorithm=grpo",
      "--set",
      "steps=1",
      "--set",
      "log.samples=0",
      "--set",
      "data.eval=[]",
    ];
    expect(rlsd("train", "--no-report", "--output", bare, ...set).status).toBe(0);
    const whys: [string[], string][] = [
      [
        [bare],
        `its steps (algorithm grpo) ask no teacher, so that no token has credit: name completions that are to have it, rlsd credit ${bare} ROWS.`,
      ],
      [[initial], "no logged completion has credit (log.samples says how many are logged a step)."],
      [
        [logged, "--step", "9"],
        "no completion of that step or id was logged (log.samples says how many are logged a step).",
      ],
    ];
    for (const [args, why] of whys) {
      const { status, stderr } = rlsd("credit", ...args);
      expect([status, stderr]).toEqual([1, `rlsd: ${args[0]}: ${why}\n`]);
    }
  });

  test("where no completion has credit it shows what the last step drew, and what the verifier said", () => {
    const bare = path("uncredited");
    const set = ["--set", few, "--set", "algorithm=grpo", "--set", "steps=2", "--set", "data.eval=[]"];
    expect(rlsd("train", "--no-report", "--output", bare, ...set).status).toBe(0);
    const { status, stdout, stderr } = rlsd("credit", bare);
    expect([status, stderr]).toEqual([
      0,
      "rlsd: no logged completion has credit: here is what step 2 drew, and what the verifier said.\n",
    ]);
    expect(stdout.match(/^\S+#\d {2}step 2 {2}reward [01] .* no teacher was asked$/gm)).toHaveLength(4);
    expect(stdout.match(/^ {2}verdict {2}extracted \d+, said \d+, from phrase, expected \d+$/gm)).toHaveLength(4);
    expect(stdout).toMatch(/^\S+#0 .*\n4 completions, 0 of which a teacher has read\n$/s);
  });

  test("--step, --id and --limit choose", () => {
    const { id } = samples.find((sample) => sample.step === 1 && sample.evidenceWeights.length > 0)!;
    const question = id.split("#")[0]!;
    const all = jsonLines<SampleLine>(rlsd("credit", logged, "--json", "--id", question, "--limit", "100").stdout);
    expect(all.map((sample) => sample.id)).toEqual(Array.from({ length: 8 }, (_, i) => `${question}#${i}`));
    const one = jsonLines<SampleLine>(rlsd("credit", logged, "--json", "--id", id).stdout);
    expect(one.map((sample) => sample.id)).toEqual([id]);
    const first = jsonLines<SampleLine>(rlsd("credit", logged, "--json", "--step", "1", "--limit", "2").stdout);
    expect(first.map((sample) => sample.step)).toEqual([1, 1]);
  });

  test("people see a heat map; colours are there when asked for, and not otherwise", () => {
    const told = rlsd("credit", logged, "--limit", "1");
    expect(told.stdout).toMatch(/^\{weight\} follows/);
    expect(told.stdout).toMatch(/ {2}step 2 {2}reward [01] {2}A [+−]\d/);
    expect(told.stdout).toMatch(/\n1 completions?, 1 of which a teacher has read\n$/);
    const escapes = (args: string[], env: Record<string, string>) =>
      runCli(["credit", logged, "--limit", "1", ...args], folder, env).stdout.includes("\u001b[48;5;");
    expect([escapes([], {}), escapes([], { FORCE_COLOR: "1" }), escapes(["--color"], { NO_COLOR: "1" })]).toEqual([
      false,
      true,
      true,
    ]);
    expect(escapes(["--no-color"], { FORCE_COLOR: "1" })).toBe(false);
  });

  test("--html writes a page of the same completions", () => {
    const page = path("page.html");
    expect(rlsd("credit", logged, "--limit", "3", "--html", page).stdout).toContain(`page ${page}`);
    const text = readFileSync(page, "utf8");
    expect(text.match(/<article class="sample/g)).toHaveLength(3);
    expect(text).toContain("What the credit is given for");
  });
});

describe("of completions in a file", () => {
  test("it gives what training gave: the same log-probs, weights and advantages", () => {
    const { status, stdout, stderr } = rlsd("credit", initial, "rows.jsonl", "--json");
    expect([status, stderr]).toEqual([0, ""]);
    const found = jsonLines<SampleLine>(stdout);
    const trained = samples.filter((sample) => sample.step === 1);
    expect(found).toHaveLength(trained.length);
    let compared = 0;
    for (const [i, was] of trained.entries()) {
      const is = found.find((sample) => sample.id === was.id)!;
      expect([i, is.tokenIds, is.reward]).toEqual([i, was.tokenIds, was.reward]);
      if (was.advantage === 0) {
        expect([i, is.advantage]).toEqual([i, was.reward === 1 ? 1 : -1]);
        continue;
      }
      expect(is.advantage).toBeCloseTo(was.advantage, 6);
      for (const name of ["logProbs", "teacherLogProbs", "evidenceWeights", "tokenAdvantages"] as const) {
        const gaps = was[name].map((value, t) => Math.abs(value! - is[name][t]!));
        expect([i, name, Math.max(...gaps) < 1e-4]).toEqual([i, name, true]);
        compared += gaps.length;
      }
    }
    expect(compared).toBeGreaterThan(1000);
  });

  test("a model's folder needs a verdict: the column reward, or a verifier", () => {
    const model = ["credit", clock, "--json", "--set", "privileged.source=trace"];
    const missing = rlsd(...model, "rows.jsonl");
    expect([missing.status, JSON.parse(missing.stdout).error.code]).toEqual([1, "ERR_RLSD_DATA"]);
    expect(missing.stderr).toMatch(/rows\.jsonl:1: no verifier is set, so that "reward" must be a number or null/);
    write("judged.jsonl", [
      { ...rows[0], reward: 1 },
      { ...rows[8], reward: 0 },
      { ...rows[16], reward: null },
    ]);
    const found = jsonLines<SampleLine>(rlsd(...model, "judged.jsonl").stdout);
    expect(found.map(({ reward, advantage }) => [reward, advantage])).toEqual([
      [1, 1],
      [0, -1],
      [null, 0],
    ]);
    expect(found.map((sample) => sample.evidenceWeights.length > 0)).toEqual([true, true, false]);
    const verified = jsonLines<SampleLine>(rlsd(...model, "judged.jsonl", "--set", "reward=numeric").stdout);
    expect(verified.map((sample) => sample.detail)).toEqual([
      expect.objectContaining({ extracted: expect.anything() }),
      expect.objectContaining({ extracted: expect.anything() }),
      expect.objectContaining({ extracted: expect.anything() }),
    ]);
  });

  test("completions of one prompt are a group, in one row or in several; settings change what is credited", () => {
    const { completion, ...question } = rows[0]!;
    write("group.jsonl", [
      { ...question, reward: 1, completions: ["1 + 1 = 2\nAnswer: 2"] },
      { ...question, reward: 0, completion, finish: "length" },
    ]);
    const args = ["credit", clock, "group.jsonl", "--json", "--set", "privileged.source=trace"];
    const [good, bad] = jsonLines<SampleLine>(rlsd(...args).stdout);
    expect([good!.id, bad!.id]).toEqual([`${question.id}#0`, `${question.id}#1`]);
    expect(good!.advantage).toBeCloseTo(Math.SQRT1_2, 4);
    expect(bad!.advantage).toBeCloseTo(-Math.SQRT1_2, 4);
    // Cut off: the end token is not part of it.
    expect([good!.tokenText.at(-1), bad!.tokenText.at(-1)]).toEqual([
      "<|end|>",
      expect.not.stringContaining("<|end|>"),
    ]);
    const wide = jsonLines<SampleLine>(rlsd(...args, "--set", "objective.evidenceClip=0.9").stdout);
    const most = (sample: SampleLine) => Math.max(...sample.evidenceWeights.map((w) => Math.abs(w! - 1)));
    expect(most(bad!)).toBeCloseTo(0.2, 6);
    expect(most(wide[1]!)).toBeGreaterThan(0.5);
    const nothing = jsonLines<SampleLine>(rlsd(...args, "--set", "privileged.source=document").stdout);
    expect(nothing.map((sample) => [sample.privileged, sample.evidenceWeights])).toEqual([
      [null, []],
      [null, []],
    ]);
  });

  test("rows that cannot be credited are named before anything is printed", () => {
    write("none.jsonl", [{ question: "1 + 1?", answer: "2" }]);
    expect(rlsd("credit", initial, "none.jsonl")).toMatchObject({
      status: 1,
      stdout: "",
      stderr: expect.stringMatching(/none\.jsonl:1: expected "completion", a text/),
    });
    write("long.jsonl", [{ ...rows[0], completion: "1 + 1 = 2 ".repeat(500) }]);
    expect(rlsd("credit", initial, "long.jsonl").stderr).toMatch(
      /long\.jsonl:1: prompt and completion have \d+ tokens, but the model reads \d+/,
    );
    write("empty.jsonl", [{ ...rows[0], completion: "", finish: "length" }]);
    expect(rlsd("credit", initial, "empty.jsonl").stderr).toMatch(/empty\.jsonl:1: a completion has no tokens/);
  });
});

test("A of completions that were not drawn for this", () => {
  const o = { baseline: "mean", scale: "none", eps: 0, ddof: 1 } as const;
  // A group with a spread, one without, single ones, one without a verdict.
  const rewards = [1, 0, 1, 1, 0, 0.5, null];
  const groups = [0, 0, 1, 1, 2, 3, 4];
  expect([
    ...signedAdvantages(
      rewards,
      groups,
      o,
      rewards.map((reward) => reward === 1),
    ),
  ]).toEqual([0.5, -0.5, 1, 1, -1, -1, 0]);
  expect([...signedAdvantages([0.5], [0], o, [true])]).toEqual([1]);
});

test("a tokenizer that outgrows the model is refused, by eval too", () => {
  const model = path("outgrown");
  cpSync(clock, model, { recursive: true });
  const tokenizer = JSON.parse(readFileSync(join(model, "tokenizer.json"), "utf8"));
  tokenizer.model.vocab["\u2603"] = 999;
  writeFileSync(join(model, "tokenizer.json"), JSON.stringify(tokenizer));
  const set = ["--set", "reward=numeric", "--set", "privileged.source=trace", "--set", "rollout.maxTokens=32"];
  for (const args of [
    ["credit", model, "rows.jsonl"],
    ["eval", model, "rows.jsonl", "--output", path("unused")],
  ]) {
    const { status, stderr } = rlsd(...args, ...set);
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(/has 1000 tokens but the model only 48: they do not belong/),
    ]);
  }
});

test("colours are not for machines", () => {
  const { status, stderr } = rlsd("credit", logged, "--json", "--color");
  expect([status, stderr]).toEqual([2, "rlsd: --json has no colours: leave out --color.\n"]);
});

test.each([
  [["credit", "nowhere"], 1, /nowhere is not a run folder/],
  [["credit", clock], 2, /is a model, not a run, and has logged nothing: name the rows/],
  [["credit", "LOGGED", "--step", "77"], 1, /no completion of that step or id was logged/],
  [["credit", "LOGGED", "--limit", "0"], 2, /whole number of at least 1 for --limit/],
  [["credit", "LOGGED", "--set", "reward=math"], 2, /--set is for rows/],
  [
    ["credit", clock, "rows.jsonl", "--set", "leak.patterns=[x]"],
    2,
    /--set leak: rlsd credit has no use for it: leave/,
  ],
  [["credit", clock, "rows.jsonl", "--set", "algorithm=grpo"], 2, /--set algorithm: rlsd credit has no use for it/],
  [["credit", "LOGGED", "rows.jsonl", "--step", "1"], 2, /choose among a run's logged completions/],
  [["credit", "LOGGED", "rows.jsonl", "--set", "privileged.source=none"], 2, /needs privileged text/],
  [["credit", "LOGGED", "nothing.jsonl"], 1, /nothing\.jsonl/],
  [["credit", "LOGGED", "--html", "no/x.html"], 1, /cannot write --html no\/x\.html: there is no folder .*no: make it/],
  [["credit", "nowhere", "nothing.jsonl", "--html", "no/x.html"], 1, /cannot write --html/],
  [["credit", "LOGGED", "--html", "."], 1, /cannot write --html \.: that is a folder: name a file in it/],
])("%j is an error in one line", (args, status, message) => {
  const told = rlsd(...args.map((arg) => (arg === "LOGGED" ? logged : arg)));
  expect({ status: told.status, stdout: told.stdout }).toEqual({ status, stdout: "" });
  expect(told.stderr).toMatch(message);
});

test("Ctrl-C ends it with 130, and what was printed is whole lines", async () => {
  write("many.jsonl", Array.from({ length: 100 }, () => rows).flat());
  const child = spawn(process.execPath, cliArgs(["credit", initial, "many.jsonl", "--json"]), { cwd: folder });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    if (text === "") child.kill("SIGINT");
    text += chunk.toString();
  });
  expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(130);
  const shown = jsonLines<SampleLine>(text);
  expect(shown.length).toBeGreaterThan(0);
  expect(shown.length).toBeLessThan(6400);
}, 60_000);

test("--help has examples", () => {
  expect(rlsd("credit", "--help").stdout).toContain("$ rlsd credit runs/first --step 10");
  expect(existsSync(path("runs"))).toBe(false);
});
