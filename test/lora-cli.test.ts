import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { runCli } from "./support/cli.js";
import { clockTask } from "./support/clock-task.js";

const { folder, settings } = clockTask();
const { model } = settings;
const [run, rows, yaml] = [join(folder, "run"), join(folder, "rows.jsonl"), join(folder, "run.yaml")];
const checkpoint = join(run, "checkpoints/step-000002");
/** Adapters alone, as the PEFT library leaves them: the tokenizer lies with their model. */
const bare = join(folder, "bare");
const rlsd = (...args: string[]) => runCli(args, folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function told(...args: string[]): string {
  const { status, stdout, stderr } = rlsd(...args);
  expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: "" });
  return stdout;
}

let stdout = "";
beforeAll(() => {
  const { output: _, lora: __, data, ...plain } = settings;
  const held = exampleSettings().data!.eval!;
  const few = { steps: 2, eval: { every: 0, limit: 4 }, data: { ...data, eval: held } };
  writeFileSync(yaml, `${JSON.stringify({ ...plain, ...few }, null, 1).slice(0, -2)},\n "lora": { rank: 4 } }\n`);
  stdout = told("train", yaml, "--output", run);
  mkdirSync(bare);
  for (const name of readdirSync(join(checkpoint, "model")).filter((one) => one.startsWith("adapter_"))) {
    writeFileSync(join(bare, name), readFileSync(join(checkpoint, "model", name)));
  }
  const lines = readFileSync(held[0]!, "utf8").split("\n").slice(0, 2);
  const completed = lines.map((line) => ({ ...JSON.parse(line), completions: ["12 + 4 = 4\nAnswer: 4", "Answer: 5"] }));
  writeFileSync(rows, completed.map((row) => JSON.stringify(row)).join("\n"));
});

/** 88,384 of the model, and 4 (inputs + outputs) of each of 7 matrices in 2 layers. */
const COUNTS = "97,088 parameters (8,704 trained)";

test("a run says how many parameters it trains; so does a plan, with memory for those alone", () => {
  expect(stdout).toContain(`rlsd: ${COUNTS}, 100 rows, 4 held out`);
  expect(readFileSync(join(run, "report.html"), "utf8")).toContain("</code>, adapters of rank 4, judged by");
  const plan = ["train", yaml, "--dry-run", "--set", "objective.klCoef=0.1"];
  expect(told(...plan)).toContain(`${model}: ${COUNTS}, 128 tokens`);
  const json = (...set: string[]) => JSON.parse(told(...plan, "--json", ...set.flatMap((one) => ["--set", one])));
  const bytes = 4 * 8704;
  const own = { gradient: bytes, optimizer: 2 * bytes, teacher: bytes, reference: bytes };
  expect(json()).toMatchObject({ parameters: 97088, trained: 8704, memory: { weights: 4 * 97088, ...own } });
  expect(json("teacher.kind=base").memory).toMatchObject({ ...own, teacher: 0 });
  const narrow = json("lora.rank=2", "lora.targets=[q_proj]");
  expect(narrow).toMatchObject({ trained: 2 * 2 * 128, config: { lora: { rank: 2, alpha: null } } });
  const { config, ...whole } = json("lora.rank=0");
  expect(whole).toMatchObject({ parameters: 88384, trained: 88384, memory: { teacher: 4 * 88384 } });
});

test("--settings lists those of the adapters; one that cannot be is one line", () => {
  const listed = told("train", "--settings");
  for (const name of ["rank", "alpha", "rankStabilized", "targets"]) expect(listed).toMatch(`\nlora.${name} `);
  const wrong = rlsd("train", yaml, "--set", "lora.targets=[q_prj]");
  expect([wrong.status, wrong.stderr]).toEqual([2, expect.stringMatching(/^rlsd: Expected .* "lora\.targets".*\n$/)]);
  const twice = rlsd("train", yaml, "--set", `model=${bare}`);
  expect([twice.status, twice.stderr]).toEqual([
    2,
    expect.stringMatching(/^rlsd: "lora\.rank" is 4.*set it to 0.*\n$/),
  ]);
  expect(existsSync(join(folder, "runs"))).toBe(false);
});

test("--json has the counts too, and a run on bare adapters goes on with them", () => {
  const output = join(folder, "more");
  const args = ["train", yaml, "--set", `model=${bare}`, "--set", "lora.rank=0", "--output", output, "--json"];
  const [start] = told(...args).split("\n");
  expect(JSON.parse(start!)).toMatchObject({ kind: "start", parameters: 97088, trained: 8704 });
  expect(told("train", "--resume", output, "--set", "steps=3")).toContain("done after step 3");
});

test("a run, its checkpoint and its bare adapters are evaluated and credited alike", () => {
  const given = [rows, "--set", "reward=numeric", "--set", "rollout.maxTokens=40", "--set", "eval.limit=0", "--json"];
  const judged = [run, checkpoint, bare].map((directory, i) => {
    const output = join(folder, `eval-${i}`);
    const { metrics } = JSON.parse(told("eval", directory, ...given, "--output", output));
    expect(metrics.rows).toBe(2);
    return [metrics, readFileSync(join(output, "predictions.jsonl"), "utf8")];
  });
  expect(judged[1]).toEqual(judged[0]);
  expect(judged[2]).toEqual(judged[0]);
  const template = readFileSync(yaml, "utf8");
  const privileged = JSON.parse(/"template": (".*")/.exec(template)![1]!) as string;
  const credit = (directory: string, ...set: string[]) =>
    told("credit", directory, rows, "--json", ...["reward=numeric", ...set].flatMap((one) => ["--set", one]));
  const alone = `privileged={source: trace, template: ${JSON.stringify(privileged)}}`;
  const base = ["teacher.kind=base", "objective.evidenceClip=0.5", "objective.creditMix=1", "rollout.maxTokens=68"];
  const credited = [run, checkpoint].map((directory) => credit(directory));
  expect(credited[1]).toBe(credited[0]);
  // The frozen teacher of the run is the model without its adapters.
  const parsed = (text: string) =>
    text
      .trim()
      .split("\n")
      .map((line) => ({ ...JSON.parse(line), step: 0 }));
  expect(parsed(credit(bare, alone, ...base))).toEqual(parsed(credited[0]!));
  const nothing = rlsd("credit", bare);
  expect([nothing.status, nothing.stderr]).toEqual([2, expect.stringMatching(/is a model, not a run/)]);
});

test("the model under the adapters may have moved, once --base says where it is", () => {
  const moved = join(folder, "moved");
  renameSync(model, moved);
  try {
    const set = ["--set", "reward=numeric", "--set", "rollout.maxTokens=40"];
    const out = (name: string) => ["--output", join(folder, `moved-${name}`)];
    const calls = [
      ["eval", run, rows, ...set, ...out("run")],
      ["eval", bare, rows, ...set, ...out("bare")],
      ["credit", run, rows, ...set],
      ["export", run, join(folder, "exported")],
    ];
    for (const call of calls) {
      const { status, stderr } = rlsd(...call);
      expect([call, status, stderr]).toEqual([call, 1, expect.stringMatching(/^rlsd: .*model, which .*"base"/)]);
      expect(told(...call, "--base", moved, "--json")).not.toBe("");
    }
    const refused = rlsd("eval", run, rows, ...set, ...out("nowhere"), "--base", join(folder, "nowhere"));
    expect([refused.status, refused.stderr]).toEqual([1, expect.stringMatching(/let "base" name .* \(--base\)/)]);
    expect(rlsd("credit", run, "--base", moved).status).toBe(2);
  } finally {
    renameSync(moved, model);
  }
});

test("reports and comparisons take runs with adapters", () => {
  expect(JSON.parse(told("report", run, "--json"))).toMatchObject({ step: 2, algorithm: "rlsd" });
  const output = join(folder, "compared");
  const arms = ["--arm", "whole:lora.rank=0", "--arm", "narrow:lora.rank=2"];
  told("compare", yaml, ...arms, "--seeds", "1", "--output", output);
  for (const [arm, kind] of [
    ["whole", "model"],
    ["narrow", "adapter_model"],
  ]) {
    const made = join(output, arm!, "seed-5/checkpoints/step-000002/model", `${kind}.safetensors`);
    expect([arm, existsSync(made)]).toEqual([arm, true]);
  }
  told("compare", run, join(output, "whole/seed-5"), "--output", join(folder, "again"));
});
