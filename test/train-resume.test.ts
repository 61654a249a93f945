import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { setTimeout } from "node:timers/promises";
import { RlsdError } from "../lib/errors.js";
import { backendInfo } from "../lib/ops/backend-info.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { randomStream } from "../lib/trainer/random.js";
import { readRunConfig } from "../lib/trainer/run-folder.js";
import { readMetrics, readSamples } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import type { RunStart } from "../lib/trainer/train-hooks.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { program } from "./support/child.js";
import { runOrKill } from "./support/killed.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { shareOfLetter, tinyTask } from "./support/tiny-task.js";

/** Everything of a run that must not depend on having been killed. */
async function traceOf(run: string): Promise<Record<string, unknown>> {
  const metrics: object[] = [];
  for await (const { time, ...rest } of readMetrics(run) as AsyncIterable<MetricsLine>) metrics.push(rest);
  const checkpoints = readdirSync(join(run, "checkpoints")).sort();
  const last = checkpoints.filter((name) => name.startsWith("step-")).at(-1)!;
  const bytes = (...path: string[]) => readFileSync(join(run, "checkpoints", last, ...path)).toString("base64");
  return {
    metrics,
    samples: readFileSync(join(run, "samples.jsonl"), "utf8"),
    checkpoints,
    weights: bytes("model", "tiny.bin"),
    optimizer: bytes("model", "tiny-optimizer.bin"),
    teacher: bytes("teacher", "tiny.bin"),
    state: JSON.parse(readFileSync(join(run, "checkpoints", last, "state.json"), "utf8")).state,
  };
}

/** Runs until it ends or, `delay` milliseconds after it began to train, is killed. */
function runFor(settingsFile: string, delay: number): Promise<"finished" | "killed"> {
  return runOrKill([program("train-child.ts"), settingsFile], delay);
}

/** Long enough that a kill has something to hit, with a teacher that must be restored. */
function longTask() {
  const task = tinyTask();
  const settings = {
    ...task.settings,
    steps: 16,
    teacher: { kind: "ema", rate: 0.9 } as const,
    rollout: { prompts: 3, count: 8, maxTokens: 4 },
    update: { epochs: 2, minibatches: 2 },
    checkpoint: { every: 3, keep: 2 },
    eval: { every: 5 },
  };
  return { folder: task.folder, settings };
}

test("a run killed at twenty random moments and resumed is the run that was never killed", async () => {
  const { folder, settings } = longTask();
  const straight = { ...settings, output: join(folder, "straight") };
  await train(straight, { loadPolicy: TinyPolicy.load });
  const expected = await traceOf(straight.output);

  const seed = Date.now();
  const random = randomStream(seed);
  const { reward: _, ...plain } = settings;
  const file = join(folder, "settings.json");
  writeFileSync(file, JSON.stringify(plain));
  let kills = 0;
  let finished = 0;
  while (kills < 20 || finished === 0) {
    const outcome = await runFor(file, kills < 20 ? random() * 250 : 60_000);
    if (outcome === "killed") {
      kills++;
      continue;
    }
    expect({ seed, kills, trace: await traceOf(settings.output) }).toEqual({ seed, kills, trace: expected });
    finished++;
    rmSync(settings.output, { recursive: true });
  }
}, 600_000);

test("what a checkpoint does not cover yet is logged again, once", async () => {
  const { folder, settings } = longTask();
  const straight = { ...settings, output: join(folder, "straight") };
  await train(straight, { loadPolicy: TinyPolicy.load });
  const control = new AbortController();
  const stopped = await train(settings, {
    loadPolicy: TinyPolicy.load,
    signal: control.signal,
    onStep: ({ step }) => step === 7 && control.abort(),
  });
  expect(stopped).toMatchObject({ stopped: "interrupted", step: 7 });
  // Lines that a killed run wrote after its checkpoint, the last one torn.
  writeFileSync(join(settings.output, "metrics.jsonl"), '{"step":8,"kind":"train","time":{}}\n{"st', { flag: "a" });
  writeFileSync(join(settings.output, "samples.jsonl"), '{"step":8', { flag: "a" });
  mkdirSync(join(settings.output, "checkpoints", "step-000008.partial"));
  const resumed = await train(settings, { loadPolicy: TinyPolicy.load, resume: settings.output });
  expect(resumed).toMatchObject({ stopped: "done", step: 16 });
  const [a, b] = [await traceOf(settings.output), await traceOf(straight.output)];
  expect({ ...a, checkpoints: [] }).toEqual({ ...b, checkpoints: [] });
});

test("verdicts given before a kill are kept, not asked for again", async () => {
  const { folder, settings } = longTask();
  const copy = join(folder, "killed");
  let calls = 0;
  // Another answer every time it is asked, as a judge model may give.
  const given = 2 * 24 + 9;
  const journal = join(settings.output, "checkpoints", "verdicts.jsonl");
  // What a kill in the middle of the third step's verdicts would leave, before any checkpoint.
  const copying = async () => {
    while (readFileSync(journal, "utf8").split("\n").length <= given) await setTimeout(5);
    cpSync(settings.output, copy, { recursive: true });
  };
  let copied: Promise<void> | undefined;
  const judge = async (sample: Sample) => {
    const call = ++calls;
    if (call > given) {
      copied ??= copying();
      await copied;
    }
    return shareOfLetter(sample) + call / 1e6;
  };
  const short = { ...settings, steps: 3, eval: { every: 0, atStart: false }, checkpoint: { every: 0 } };
  const data = { train: settings.data!.train!, eval: [] };
  await train({ ...short, data, reward: judge }, { loadPolicy: TinyPolicy.load });
  const rewards = async (run: string) => {
    const out: unknown[] = [];
    for await (const { step, id, reward } of readSamples(run)) out.push([step, id, reward]);
    return out;
  };
  let again = 0;
  const second = (sample: Sample) => {
    again++;
    return shareOfLetter(sample) + 1;
  };
  await train({ ...short, data, reward: second }, { loadPolicy: TinyPolicy.load, resume: copy });
  expect(again).toBe(24 - 9);
  expect((await rewards(copy)).slice(0, given)).toEqual((await rewards(settings.output)).slice(0, given));
});

test("settings changed when a run goes on are its settings from then on", async () => {
  const { settings } = tinyTask();
  const load = TinyPolicy.load;
  await train({ ...settings, steps: 2 }, { loadPolicy: load });
  await train({ ...settings, steps: 3 }, { loadPolicy: load, resume: settings.output });
  const { config } = await readRunConfig(settings.output);
  expect(config.steps).toBe(3);
  const again = { ...config, reward: settings.reward };
  expect((await train(again, { loadPolicy: load, resume: settings.output })).step).toBe(3);
});

test.each([
  [
    { teacher: { kind: "shared" } },
    { teacher: { kind: "frozen" } },
    /"teacher\.kind" frozen means .* had .*"kind":"shared"/,
  ],
  [{ teacher: { kind: "frozen" } }, { teacher: { kind: "ema" } }, /"teacher\.kind" ema means .* had .*"kind":"frozen"/],
  [{ objective: {} }, { objective: { klCoef: 0.1 } }, /"objective\.klCoef" above 0 means .* had .*"objective" \{\}/],
] as const)("a run that began with %j cannot go on with %j, and that is said", async (begun, other, message) => {
  const { settings } = tinyTask();
  const hooks = { loadPolicy: TinyPolicy.load };
  await train({ ...settings, ...begun, steps: 2 }, hooks);
  const files = () => readdirSync(settings.output, { recursive: true, encoding: "utf8" }).sort();
  const before = files();
  const on = train({ ...settings, ...other, steps: 3 }, { ...hooks, resume: settings.output });
  await expect(on).rejects.toMatchObject({ code: "ERR_RLSD_CONFIG", message: expect.stringMatching(message) });
  expect(files()).toEqual(before);
});

test("a finished run is left as it is: nothing is loaded, nothing written; one that was not evaluated yet is", async () => {
  const { settings } = tinyTask();
  const { output } = settings;
  const loaded: string[] = [];
  const load = (folder: string) => {
    loaded.push(folder);
    return TinyPolicy.load(folder);
  };
  const control = new AbortController();
  const onStep = ({ step }: MetricsLine) => void (step === 6 && control.abort());
  const stopped = await train(settings, { loadPolicy: load, onStep, signal: control.signal });
  expect(stopped).toMatchObject({ stopped: "interrupted", step: 6, best: { step: expect.any(Number) } });
  const done = await train(settings, { loadPolicy: load, resume: output });
  expect(done).toMatchObject({ stopped: "done", step: 6, accuracy: { last: expect.any(Number) } });
  const filesOf = () =>
    readdirSync(output, { recursive: true, encoding: "utf8" }).map((name) => {
      const { ino, mtimeMs } = statSync(join(output, name));
      return { name, ino, mtimeMs };
    });
  const [before, count] = [filesOf(), loaded.length];
  const again = await train(settings, {
    loadPolicy: load,
    resume: relative("", output),
    onStart: () => loaded.push(""),
  });
  expect(again).toEqual({ ...done, accuracy: null, seconds: expect.any(Number) });
  expect([filesOf(), loaded.length]).toEqual([before, count]);
  const longer = await train({ ...settings, steps: 7 }, { loadPolicy: load, resume: output });
  expect(longer).toMatchObject({ stopped: "done", step: 7 });
});

test("a run that ends where it was saved is not saved twice", async () => {
  const { settings } = tinyTask();
  const saves: string[] = [];
  const load = async (folder: string) => {
    const policy = await TinyPolicy.load(folder);
    const save = policy.save.bind(policy);
    policy.save = (directory, o) => {
      saves.push(directory);
      return save(directory, o);
    };
    return policy;
  };
  const { checkpoint } = await train(settings, { loadPolicy: load });
  expect(saves.filter((folder) => folder.startsWith(checkpoint))).toHaveLength(1);
});

test("a run that goes on under other instructions of the processor says so, and config.json has them", async () => {
  const { settings } = longTask();
  const file = join(settings.output, "config.json");
  const stopAt = (last: number, starts: RunStart[], resume?: string) => {
    const control = new AbortController();
    return train(settings, {
      loadPolicy: TinyPolicy.load,
      signal: control.signal,
      onStart: (start) => starts.push(start),
      onStep: ({ step }) => step === last && control.abort(),
      resume,
    });
  };
  const starts: RunStart[] = [];
  await stopAt(2, starts);
  const record = JSON.parse(readFileSync(file, "utf8"));
  expect(record.instructionSet).toBe(backendInfo().cpu.instructionSet);
  writeFileSync(file, JSON.stringify({ ...record, instructionSet: "avx" }));
  await stopAt(4, starts, settings.output);
  expect(await readRunConfig(settings.output)).toEqual(record);
  await stopAt(5, starts, settings.output);
  // Earlier versions did not tell.
  writeFileSync(file, JSON.stringify({ ...record, instructionSet: undefined }));
  await stopAt(6, starts, settings.output);
  expect(starts.map((start) => start.earlierInstructionSet)).toEqual([null, "avx", null, null]);
});

test("a run that goes on with other rows says which, once", async () => {
  const { settings, folder } = longTask();
  const starts: RunStart[] = [];
  const goOn = (steps: number, resume?: string) =>
    train({ ...settings, steps }, { loadPolicy: TinyPolicy.load, onStart: (start) => starts.push(start), resume });
  await goOn(2);
  await goOn(3, settings.output);
  const change = (name: string) => {
    const file = join(folder, name);
    writeFileSync(file, readFileSync(file, "utf8").replace('"trace":"aa"', '"trace":"ab"'));
  };
  change("train.jsonl");
  await goOn(4, settings.output);
  change("eval.jsonl");
  await goOn(5, settings.output);
  await goOn(6, settings.output);
  // Earlier versions did not tell.
  const file = join(settings.output, "config.json");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), rows: undefined }));
  await goOn(7, settings.output);
  expect(starts.map(({ otherRows }) => otherRows)).toEqual([[], [], ["train"], ["eval"], [], []]);
  expect((await readRunConfig(settings.output)).rows).toEqual({ train: expect.any(String), eval: expect.any(String) });
});

test("a run that already is there is not overwritten", async () => {
  const { settings } = tinyTask();
  await train(settings, { loadPolicy: TinyPolicy.load });
  await expect(train(settings, { loadPolicy: TinyPolicy.load })).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
});

test("a log that was cut by hand is an error, not a silent gap", async () => {
  const { settings } = tinyTask();
  await train(settings, { loadPolicy: TinyPolicy.load });
  writeFileSync(join(settings.output, "metrics.jsonl"), "");
  const again = train({ ...settings, steps: 8 }, { loadPolicy: TinyPolicy.load, resume: settings.output });
  await expect(again).rejects.toMatchObject({ code: "ERR_RLSD_RUN_FOLDER" });
});

test("a disk that refuses is one clear error and leaves the last checkpoint whole", async () => {
  const { settings } = longTask();
  const cause = Object.assign(new Error("no space"), { code: "ENOSPC" });
  const full = new RlsdError("ERR_RLSD_SAVE", "could not save the model: no space", { cause });
  let saves = 0;
  const failing = async (folder: string) => {
    const policy = await TinyPolicy.load(folder);
    const save = policy.save.bind(policy);
    policy.save = async (directory, o) => {
      await save(directory, o);
      if (directory.includes("step-") && ++saves > 1) throw full;
    };
    return policy;
  };
  const run = train(settings, { loadPolicy: failing });
  await expect(run).rejects.toMatchObject({
    code: "ERR_RLSD_WRITE",
    message: expect.stringContaining("no space left"),
  });
  const left = readdirSync(join(settings.output, "checkpoints")).filter((name) => name.startsWith("step-"));
  expect(left).toHaveLength(1);
  const resumed = await train(settings, { loadPolicy: TinyPolicy.load, resume: settings.output });
  expect(resumed.step).toBe(16);
});

test("a folder that cannot be written is refused before training", async () => {
  const { folder, settings } = tinyTask();
  writeFileSync(join(folder, "file"), "");
  const run = train({ ...settings, output: join(folder, "file", "run") }, { loadPolicy: TinyPolicy.load });
  await expect(run).rejects.toMatchObject({ code: "ERR_RLSD_WRITE" });
});

test("a run keeps the files that its pattern meant, whatever comes to lie beside them", async () => {
  const { folder, settings } = tinyTask();
  const whole = await train({ ...settings, output: join(folder, "whole") }, { loadPolicy: TinyPolicy.load });
  const data = { train: [join(folder, "tr*.jsonl")], eval: [join(folder, "eval*")] };
  await train({ ...settings, data, steps: 2 }, { loadPolicy: TinyPolicy.load });
  cpSync(join(folder, "eval.jsonl"), join(folder, "tr-new.jsonl"));
  const { config } = await readRunConfig(settings.output);
  expect(config.data).toMatchObject(settings.data!);
  const given = { ...config, reward: shareOfLetter, steps: settings.steps };
  const resumed = await train(given, { loadPolicy: TinyPolicy.load, resume: settings.output });
  const weights = (checkpoint: string) => readFileSync(join(checkpoint, "model", "tiny.bin"), "base64");
  expect(weights(resumed.checkpoint)).toBe(weights(whole.checkpoint));
});
