import { execFileSync, spawn } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backendInfo } from "../lib/ops/backend-info.js";
import { loadPolicy } from "../lib/policy/load.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { LineFile } from "../lib/trainer/durable.js";
import { type EvalHooks, evaluateModel } from "../lib/trainer/eval-run.js";
import { randomStream } from "../lib/trainer/random.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { writeError } from "../lib/write-error.js";
import { cliArgs, runCli } from "./support/cli.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { shareOfLetter, tinyTask } from "./support/tiny-task.js";

const clock = join(__dirname, "../assets/clock");
const read = (...path: string[]) => readFileSync(join(...path), "utf8");
const RESULTS = ["predictions.jsonl", "metrics.json"] as const;
const resultsOf = (folder: string) => RESULTS.map((name) => read(folder, name));
const linesOf = (folder: string) => read(folder, "predictions.jsonl").trimEnd().split("\n");

/** An evaluation of a tiny model with three samples a row: 12 greedy completions, then 36. */
function tinyEvaluation() {
  const { folder, settings } = tinyTask();
  const evaluation = { samples: 3, passAt: [1, 3], temperature: 1.3, successThreshold: 0.4 };
  const reward = async (sample: Sample) => shareOfLetter(sample);
  const given = { ...settings, output: undefined, eval: evaluation, reward };
  const run = (output: string, o: TrainConfig = {}, hooks: EvalHooks = {}) =>
    evaluateModel(
      join(folder, "model"),
      [join(folder, "train.jsonl")],
      join(folder, output),
      { ...given, ...o },
      {
        loadPolicy: TinyPolicy.load,
        ...hooks,
      },
    );
  return { folder, given, run, at: (name: string) => join(folder, name) };
}

describe("an evaluation that was interrupted", () => {
  test("has on disk what was judged, and goes on to the same predictions and metrics, bit for bit", async () => {
    const { run, at } = tinyEvaluation();
    await run("straight");
    expect(linesOf(at("straight"))).toHaveLength(12 + 36);
    const asked: string[] = [];
    // At its first verdict, among the greedy ones, between the two kinds, among the sampled ones, at the last.
    for (const moment of [1, 7, 12, 13, 30, 48]) {
      const output = `stopped-${moment}`;
      const control = new AbortController();
      let judged = 0;
      const reward = async (sample: Sample) => {
        if (++judged === moment) control.abort(new Error("stop"));
        return shareOfLetter(sample);
      };
      await expect(run(output, { reward }, { signal: control.signal })).rejects.toThrow("stop");
      const there = existsSync(join(at(output), "predictions.jsonl")) ? read(at(output), "predictions.jsonl") : "";
      const kept = there.split("\n").length - 1;
      expect(kept).toBeLessThan(moment);
      // A line that a killed process wrote in part.
      appendFileSync(join(at(output), "predictions.jsonl"), '{"id":"11#2","greedy":fal');
      asked.length = 0;
      const counting = async (sample: Sample) => {
        asked.push(sample.id);
        return shareOfLetter(sample);
      };
      const starts: unknown[] = [];
      const summary = await run(output, { reward: counting }, { onStart: (start) => starts.push(start) });
      expect([summary.kept, starts]).toEqual([kept, [{ folder: at(output), kept, total: 48 }]]);
      expect(asked).toHaveLength(48 - kept);
      expect(resultsOf(at(output))).toEqual(resultsOf(at("straight")));
    }
  });

  test("keeps a completion once it is whole, while longer ones are drawn, and draws no more than is missing", async () => {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-eval-long-"));
    // Three moves are answered in half the tokens of eight.
    const rows = Array.from({ length: 8 }, (_, i) => ({
      question: `Clock at ${i + 1}, then + 2 - 5 + 1${i % 2 === 0 ? "" : " + 2 + 1 + 1 - 7 + 3"}.`,
      answer: "1",
    }));
    writeFileSync(join(folder, "rows.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
    const drawn: number[] = [];
    const load = async (directory: string) => {
      const policy = await loadPolicy(directory);
      const generate = policy.generate.bind(policy);
      policy.generate = (prompts, o) => {
        drawn.push(prompts.length);
        return generate(prompts, o);
      };
      return policy;
    };
    const evaluation = (output: string, reward: (sample: Sample) => number, hooks: EvalHooks = {}) =>
      evaluateModel(
        clock,
        [join(folder, "rows.jsonl")],
        join(folder, output),
        { reward, rollout: { maxTokens: 60 }, eval: { samples: 2 } },
        { loadPolicy: load, ...hooks },
      );
    const right = ({ completion, row }: Sample) => Number(completion.endsWith(`Answer: ${row.answer}`));
    await evaluation("straight", right);
    /** How many completions are kept where it is stopped after so many verdicts, in time; its folder. */
    const stopped = async (moment: number): Promise<readonly [folder: string, kept: number]> => {
      const all = moment < 8 ? 8 : 24;
      // Drawing does not wait for who stops it: on a busy machine it may be over by then.
      for (let attempt = 0; attempt < 20; attempt++) {
        const control = new AbortController();
        let judged = 0;
        const stopping = (sample: Sample) => {
          if (++judged === moment) setImmediate(() => control.abort(new Error("stop")));
          return right(sample);
        };
        drawn.length = 0;
        const output = `stopped-${moment}-${attempt}`;
        const ended = await evaluation(output, stopping, { signal: control.signal }).catch((error: Error) => error);
        if (!(ended instanceof Error)) continue;
        expect(ended.message).toBe("stop");
        const kept = linesOf(join(folder, output)).length;
        if (kept < all) return [output, kept];
      }
      throw new Error("It was never stopped in time.");
    };
    for (const moment of [3, 12]) {
      const [output, kept] = await stopped(moment);
      // Short ones at first, of the greedy ones and then of the samples.
      expect(kept).toBeGreaterThanOrEqual(moment);
      expect((await evaluation(output, right)).kept).toBe(kept);
      // Greedy ones alone are drawn apart: samples are the same draws only together.
      expect(drawn).toEqual(moment < 8 ? [8, 8 - kept, 8] : [8, 8, 8]);
      expect(resultsOf(join(folder, output))).toEqual(resultsOf(join(folder, "straight")));
    }
  });

  test("ends at once where what was judged cannot be kept", async () => {
    const { run, at } = tinyEvaluation();
    const append = jest.spyOn(LineFile.prototype, "append").mockImplementation(async function (this: LineFile) {
      throw writeError(this.path, Object.assign(new Error("full"), { code: "ENOSPC" }));
    });
    await expect(run("full")).rejects.toMatchObject({
      code: "ERR_RLSD_WRITE",
      message: expect.stringMatching(/predictions\.jsonl: there is no space left/),
    });
    append.mockRestore();
    expect((await run("full")).kept).toBe(0);
    await run("straight");
    expect(resultsOf(at("full"))).toEqual(resultsOf(at("straight")));
  });

  test("does not draw again what it has whole", async () => {
    const { run, at } = tinyEvaluation();
    await run("whole");
    rmSync(join(at("whole"), "metrics.json"));
    const before = read(at("whole"), "predictions.jsonl");
    // In another order, as verdicts may come.
    writeFileSync(join(at("whole"), "predictions.jsonl"), `${linesOf(at("whole")).reverse().join("\n")}\n`);
    let policy: TinyPolicy | undefined;
    const loadPolicy = async (directory: string) => {
      policy = await TinyPolicy.load(directory);
      return policy;
    };
    expect((await run("whole", {}, { loadPolicy })).kept).toBe(48);
    expect(policy!.probe.generated).toBe(0);
    expect(read(at("whole"), "predictions.jsonl")).toBe(before);
  });

  test("that is finished is told again: nothing is drawn or judged, and metrics are made as they are asked for now", async () => {
    const { run, at } = tinyEvaluation();
    const first = await run("done");
    const before = resultsOf(at("done"));
    let policy: TinyPolicy | undefined;
    const loadPolicy = async (directory: string) => {
      policy = await TinyPolicy.load(directory);
      return policy;
    };
    const reward = async (): Promise<number> => {
      throw new Error("asked again");
    };
    expect(await run("done", { reward }, { loadPolicy })).toEqual({ ...first, kept: 48 });
    expect(policy!.probe.generated).toBe(0);
    expect(resultsOf(at("done"))).toEqual(before);
    const evaluation = { samples: 3, passAt: [2], temperature: 1.3, successThreshold: 0.4 };
    const { metrics } = await run("done", { eval: evaluation });
    expect(Object.keys(metrics)).toContain("pass@2");
    expect(JSON.parse(read(at("done"), "metrics.json"))).toMatchObject(metrics);
    await expect(run("done", { seed: 4 })).rejects.toMatchObject({
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringContaining("holds an evaluation that is finished, and this one differs from it in seed."),
    });
  });

  test("goes on with the same weights, rows, settings and version alone, and says what differs", async () => {
    const { folder, run, at } = tinyEvaluation();
    await run("begun");
    rmSync(join(at("begun"), "metrics.json"));
    const before = read(at("begun"), "predictions.jsonl");
    const refused = (o: TrainConfig, message: RegExp) =>
      expect(run("begun", o)).rejects.toMatchObject({
        code: "ERR_RLSD_RUN_FOLDER",
        message: expect.stringMatching(message),
      });
    await refused({ matmulType: "bf16" }, /differs from it in matmulType\./);
    await refused({ maxLength: 100 }, /differs from it in maxLength\./);
    await refused({ seed: 4 }, /not finished, and this one differs from it in seed\. Choose another folder/);
    await refused({ eval: { samples: 2, passAt: [1] } }, /differs from it in eval\.samples, eval\.temperature\./);
    await refused(
      { data: { system: "be brief" } },
      /in the rows or their prompts \(.*train\.jsonl as they were then\)/,
    );
    await refused({ reward: { type: "choice", choices: "abcdefghijkl" } }, /in reward/);
    const record = JSON.parse(read(at("begun"), "evaluation.json"));
    writeFileSync(join(at("begun"), "evaluation.json"), JSON.stringify({ ...record, version: "0.0.0" }));
    await refused({}, /in the version of rlsd \(0\.0\.0\)/);
    writeFileSync(join(at("begun"), "evaluation.json"), JSON.stringify({ ...record, instructionSet: "avx" }));
    await refused({}, /in the instructions of the processor \(avx; RLSD_ISA asks for them where it has them\)/);
    expect(record.instructionSet).toBe(backendInfo().cpu.instructionSet);
    writeFileSync(join(at("begun"), "evaluation.json"), JSON.stringify(record));
    const rows = read(folder, "train.jsonl");
    writeFileSync(join(folder, "train.jsonl"), rows.replace('"answer":"a"', '"answer":"b"'));
    await refused({}, /in the rows or their prompts/);
    writeFileSync(join(folder, "train.jsonl"), rows);
    expect(read(at("begun"), "predictions.jsonl")).toBe(before);
    // What the predictions do not depend on may change: metrics are made of them at the end.
    const evaluation = { samples: 3, passAt: [2], temperature: 1.3, successThreshold: 0.2 };
    expect((await run("begun", { eval: evaluation })).metrics["pass@2"]).toBeDefined();
  });

  test("that is damaged, or of an earlier version, is an error and left as it is", async () => {
    const { run, at } = tinyEvaluation();
    await run("broken");
    const metrics = read(at("broken"), "metrics.json");
    const [first, ...rest] = linesOf(at("broken"));
    writeFileSync(join(at("broken"), "predictions.jsonl"), `${first}\n{"id":\n${rest.join("\n")}\n`);
    const error = {
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringContaining("predictions.jsonl:2 is no prediction"),
    };
    await expect(run("broken")).rejects.toMatchObject(error);
    rmSync(join(at("broken"), "evaluation.json"));
    await expect(run("broken")).rejects.toMatchObject({
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringContaining("has predictions.jsonl without evaluation.json"),
    });
    expect(readdirSync(at("broken")).sort()).toEqual(["metrics.json", "predictions.jsonl"]);
    expect(read(at("broken"), "metrics.json")).toBe(metrics);
  });

  test.each<[string, object]>([
    ["messages that are none", { messages: 5 }],
    ["a message without a text", { messages: [{ role: "assistant" }] }],
    ["a fine of nothing", { unfined: "1" }],
    ["a detail that is a list", { detail: [] }],
  ])("refuses a prediction with %s", async (_, change) => {
    const { run, at } = tinyEvaluation();
    await run("damaged");
    const [first, ...rest] = linesOf(at("damaged"));
    const text = `${JSON.stringify({ ...JSON.parse(first!), ...change })}\n${rest.join("\n")}\n`;
    writeFileSync(join(at("damaged"), "predictions.jsonl"), text);
    await expect(run("damaged")).rejects.toMatchObject({
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringContaining("predictions.jsonl:1 is no prediction"),
    });
    expect(read(at("damaged"), "predictions.jsonl")).toBe(text);
  });

  test.each<[string, object]>([
    ["data", { data: [{}] }],
    ["settings", { settings: null }],
    ["end tokens", { endTokenIds: "2" }],
    ["a version", { version: undefined }],
  ])("refuses a record with other %s than one writes", async (_, change) => {
    const { run, at } = tinyEvaluation();
    await run("damaged");
    const file = join(at("damaged"), "evaluation.json");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...change }));
    await expect(run("damaged")).rejects.toMatchObject({
      code: "ERR_RLSD_RUN_FOLDER",
      message: expect.stringContaining("evaluation.json cannot be used: no evaluation wrote it"),
    });
  });

  test("says where a folder or a pipe is in the place of its files", async () => {
    const { run, at } = tinyEvaluation();
    const make = [(path: string) => mkdirSync(path), (path: string) => void execFileSync("mkfifo", [path])];
    for (const [i, put] of make.entries()) {
      const name = `odd-${i}`;
      await run(name);
      rmSync(join(at(name), "predictions.jsonl"));
      put(join(at(name), "predictions.jsonl"));
      await expect(run(name)).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
    }
    await run("metrics");
    rmSync(join(at("metrics"), "metrics.json"));
    mkdirSync(join(at("metrics"), "metrics.json"));
    await expect(run("metrics")).rejects.toMatchObject({
      code: "ERR_RLSD_WRITE",
      message: expect.stringContaining("a folder is in its place"),
    });
  });

  test("goes on behind lines that an editor ended otherwise, and refuses those that are no longer UTF-8", async () => {
    const { run, at } = tinyEvaluation();
    await run("straight");
    const lines = linesOf(at("straight"));
    cpSync(at("straight"), at("edited"), { recursive: true });
    rmSync(join(at("edited"), "metrics.json"));
    const file = join(at("edited"), "predictions.jsonl");
    writeFileSync(file, `${lines.slice(0, 5).join("\r\n")}\r\n${lines[5]!.slice(0, 9)}`);
    await run("edited");
    expect(resultsOf(at("edited"))).toEqual(resultsOf(at("straight")));
    writeFileSync(file, Buffer.from(`${lines[0]!.replace('"prompt":"', '"prompt":"\xff')}\n`, "latin1"));
    await expect(run("edited")).rejects.toThrow(/predictions.jsonl:1 is no prediction/);
  });

  test("asks again for all of it where the verifier judged nothing", async () => {
    const { run, at } = tinyEvaluation();
    await run("straight");
    const reward = async () => {
      throw new Error("the judge is away");
    };
    await expect(run("away", { reward })).rejects.toMatchObject({ code: "ERR_RLSD_UNJUDGED" });
    expect((await run("away")).kept).toBe(0);
    expect(resultsOf(at("away"))).toEqual(resultsOf(at("straight")));
  });

  test("is written by one process at a time", async () => {
    const { run } = tinyEvaluation();
    let second: Promise<unknown> | undefined;
    const onStart = () => {
      second = expect(run("shared")).rejects.toThrow(/is being written by process/);
    };
    await run("shared", {}, { onStart });
    await second;
  });
});

test("a row of predictions.jsonl has what was asked, said, expected and judged", async () => {
  const { run, at } = tinyEvaluation();
  await run("rows", { overlong: { mode: "penalty", buffer: 0, penalty: 0.25 } });
  const lines = linesOf(at("rows")).map((line) => JSON.parse(line));
  expect(lines.filter(({ greedy }) => greedy).map(({ group, sample }) => [group, sample])).toEqual(
    Array.from({ length: 12 }, (_, group) => [group, 0]),
  );
  const cut = lines.find(({ greedy, finish }) => !greedy && finish === "length");
  expect(cut).toEqual({
    id: `${cut.group}#${cut.sample}`,
    group: expect.any(Number),
    sample: expect.any(Number),
    greedy: false,
    prompt: `<user>say ${"abcdefghijkl"[cut.group]}<assistant>`,
    answer: "abcdefghijkl"[cut.group],
    completion: expect.any(String),
    finish: "length",
    tokens: 6,
    reward: cut.unfined - 0.25,
    unfined: expect.any(Number),
    logProb: expect.any(Number),
    detail: { overlongFine: 0.25 },
  });
});

const COMMAND = ["eval", clock, join(clock, "eval.jsonl"), "--set", "reward=numeric", "--set", "rollout.maxTokens=60"];

describe("rlsd eval, killed", () => {
  test("at random moments and called again is the evaluation that was never killed", async () => {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-eval-kill-"));
    const args = [...COMMAND, "--set", "eval.limit=160", "--samples", "4", "--json"];
    expect(runCli([...args, "--output", "straight"], folder).status).toBe(0);
    const seed = Date.now();
    const random = randomStream(seed);
    const kill = (signal: "SIGINT" | "SIGKILL", delay: number) =>
      new Promise<{ ended: string | number | null; errors: string }>((resolve) => {
        const child = spawn(process.execPath, cliArgs([...args, "--output", "killed"]), { cwd: folder });
        let errors = "";
        child.stderr.on("data", (chunk: Buffer) => {
          errors += chunk.toString();
        });
        const timer = setInterval(() => {
          if (!existsSync(join(folder, "killed", "evaluation.json"))) return;
          clearInterval(timer);
          setTimeout(() => child.kill(signal), delay);
        }, 5);
        child.on("close", (code, by) => {
          clearInterval(timer);
          resolve({ ended: by ?? code, errors });
        });
      });
    expect(await kill("SIGINT", 0)).toEqual({
      ended: 130,
      errors: expect.stringContaining("rlsd: interrupted: killed has what was judged, and the same command goes on\n"),
    });
    const counts: number[] = [];
    for (let kills = 0; kills < 4; kills++) {
      if ((await kill("SIGKILL", random() * 300)).ended !== "SIGKILL") break;
      const file = join(folder, "killed", "predictions.jsonl");
      counts.push(existsSync(file) ? readFileSync(file, "utf8").split("\n").length - 1 : 0);
    }
    const last = runCli([...args, "--output", "killed"], folder);
    expect({ seed, status: last.status }).toEqual({ seed, status: 0 });
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect({ seed, results: resultsOf(join(folder, "killed")) }).toEqual({
      seed,
      results: resultsOf(join(folder, "straight")),
    });
  }, 120_000);

  test("without --output it finds itself again, by its weights, under runs/", () => {
    const folder = mkdtempSync(join(tmpdir(), "rlsd-eval-again-"));
    const model = join(folder, "model");
    cpSync(clock, model, { recursive: true });
    const args = ["eval", model, ...COMMAND.slice(2), "--set", "eval.limit=3", "--json"];
    const first = JSON.parse(runCli(args, folder).stdout);
    const straight = resultsOf(join(folder, first.folder));
    rmSync(join(folder, first.folder, "metrics.json"));
    const [line] = linesOf(join(folder, first.folder));
    writeFileSync(join(folder, first.folder, "predictions.jsonl"), `${line}\n`);
    // Of another model, of other settings: not that one.
    const weights = readFileSync(join(model, "model.safetensors"));
    const other = Buffer.from(weights);
    other[weights.length - 1] ^= 1;
    writeFileSync(join(model, "model.safetensors"), other);
    expect(JSON.parse(runCli(args, folder).stdout)).toMatchObject({ kept: 0 });
    writeFileSync(join(model, "model.safetensors"), weights);
    expect(JSON.parse(runCli([...args, "--set", "seed=2"], folder).stdout)).toMatchObject({ kept: 0 });
    const again = runCli(args, folder);
    expect(again.stderr).toContain(`rlsd: going on in ${first.folder}: 1 of 3 completions are there`);
    expect(JSON.parse(again.stdout)).toMatchObject({ folder: first.folder, kept: 1 });
    expect(resultsOf(join(folder, first.folder))).toEqual(straight);
    // Finished: the next one is a new one.
    expect(JSON.parse(runCli(args, folder).stdout).folder).not.toBe(first.folder);
  }, 60_000);
});
