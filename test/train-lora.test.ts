import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createPolicy, creditCompletions, evaluateModel, exportModel, loadPolicy } from "../lib/index.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import type { TrainHooks } from "../lib/trainer/train-hooks.js";
import { clockTask } from "./support/clock-task.js";

const ADAPTERS = ["adapter_config.json", "adapter_model.safetensors"];
const TEXT = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"];
const files = (...path: string[]) => readdirSync(join(...path)).sort();
const read = (...path: string[]) => readFileSync(join(...path), "base64");

const { folder, settings } = clockTask();
const { model } = settings;
/** Another run of the same task. */
const named = (name: string, change: TrainConfig = {}) => ({ ...settings, ...change, output: join(folder, name) });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What a run that was stopped must have in common with one that was not. */
async function traceOf(run: string, step = "step-000004"): Promise<Record<string, unknown>> {
  const metrics: object[] = [];
  for await (const { time, ...rest } of readMetrics(run) as AsyncIterable<MetricsLine>) metrics.push(rest);
  const checkpoint = join(run, "checkpoints", step);
  const teacher = join(checkpoint, "teacher", ADAPTERS[1]!);
  return {
    metrics,
    samples: readFileSync(join(run, "samples.jsonl"), "utf8"),
    adapters: read(checkpoint, "model", ADAPTERS[1]!),
    optimizer: read(checkpoint, "model", "optimizer.safetensors"),
    teacher: existsSync(teacher) ? read(teacher) : "none of its own",
  };
}

/** Runs `config` until `step`, and then goes on as another process would, maybe with other settings or hooks. */
async function stopped<T extends TrainConfig & { output: string }>(config: T, step: number): Promise<T> {
  const control = new AbortController();
  const onStep = (line: MetricsLine) => void (line.step === step && control.abort());
  expect(await train(config, { onStep, signal: control.signal })).toMatchObject({ stopped: "interrupted", step });
  return config;
}

const resume = (config: TrainConfig & { output: string }, hooks: TrainHooks = {}) =>
  train(config, { ...hooks, resume: config.output });

test("adapters learn the task; the model stays as it was, and no checkpoint has a copy of it", async () => {
  const before = read(model, "model.safetensors");
  const example = exampleSettings();
  const { accuracy, checkpoint } = await train({
    ...named("learns"),
    steps: 15,
    lora: { rank: 4 },
    rollout: example.rollout,
    data: example.data,
    eval: { every: 0, limit: 100 },
  });
  // Seen: 26 % to 91 %. All weights come as far in as many steps.
  expect(accuracy!.last).toBeGreaterThan(accuracy!.first + 0.3);
  expect(read(model, "model.safetensors")).toBe(before);
  expect(files(checkpoint)).toEqual(["model", "state.json"]);
  expect(files(checkpoint, "model")).toEqual([...ADAPTERS, TEXT[0], "optimizer.safetensors", ...TEXT.slice(1)]);
  expect(files(checkpoint, "..", "initial", "teacher")).toEqual([...ADAPTERS, ...TEXT]);
  await using trained = await loadPolicy(join(checkpoint, "model"));
  expect(trained.lora).toMatchObject({ rank: 4, alpha: 8, rankStabilized: false });
  const up = trained.parameterNames.filter((name) => name.includes("lora_B"));
  for (const name of up) expect((await trained.readParameter(name)).some((value) => value !== 0)).toBe(true);
}, 120_000);

describe("a run that was stopped and goes on is the run that was not, bit for bit", () => {
  const ends = new Map<string, Record<string, unknown>>();
  const objective = { ...settings.objective, klCoef: 0.1 };
  const kinds: NonNullable<TrainConfig["teacher"]>[] = [
    { kind: "frozen" },
    { kind: "base" },
    { kind: "shared" },
    { kind: "ema", rate: 0.5 },
    // Not at the step at which it is stopped: its teacher is an older one.
    { kind: "periodic", every: 2 },
  ];
  test.each(kinds)("teacher %j, with a KL term", async (teacher) => {
    const kind = teacher.kind!;
    const straight = named(`straight-${kind}`, { teacher, objective });
    await train(straight);
    const run = await stopped(named(`resumed-${kind}`, { teacher, objective }), 3);
    const loaded: string[] = [];
    await resume(run, {
      loadPolicy: (path) => {
        loaded.push(path);
        return loadPolicy(path);
      },
    });
    const end = await traceOf(straight.output);
    expect(await traceOf(run.output)).toEqual(end);
    const { klMean } = (end.metrics as MetricsLine[]).at(-1)!;
    expect(klMean).toBeGreaterThan(0);
    // The adapters of teacher and reference are put on the weights that the student has already.
    expect(loaded).toEqual([model]);
    ends.set(kind, end);
  });

  test("a frozen teacher is the model without its adapters; the others are other teachers", () => {
    expect(ends.get("base")).toEqual(ends.get("frozen"));
    expect(new Set([...ends.values()].map(({ adapters }) => adapters)).size).toBe(4);
  });
});

describe("a model folder that holds adapters already", () => {
  const folderOf = (name: string) => join(folder, name, "checkpoints/step-000004/model");

  test("takes no others on them", async () => {
    await train(named("first"));
    const again = train(named("others", { model: folderOf("first") }));
    await expect(again).rejects.toMatchObject({
      code: "ERR_RLSD_CONFIG",
      message: expect.stringMatching(/"lora\.rank" is 2, but .* holds adapters already: set it to 0 to train those/),
    });
    expect(existsSync(join(folder, "others"))).toBe(false);
  });

  test("with rank 0 has those trained, from where they are, and goes on as any run", async () => {
    const rest = { model: folderOf("first"), lora: {}, teacher: { kind: "base" } } as const;
    await train(named("more", rest));
    const [before, after] = [await traceOf(join(folder, "first")), await traceOf(join(folder, "more"))];
    expect(after.adapters).not.toBe(before.adapters);
    const description = (name: string) => JSON.parse(readFileSync(join(folderOf(name), ADAPTERS[0]!), "utf8"));
    expect(description("more")).toEqual(description("first"));
    expect(description("more").base_model_name_or_path).toBe(model);
    await resume(await stopped(named("more-resumed", rest), 1));
    expect(await traceOf(join(folder, "more-resumed"))).toEqual(after);
  });
});

test("a run goes on with the adapters that it has, or not at all", async () => {
  const adapters = await stopped(named("adapters"), 1);
  const weights = await stopped(named("weights", { lora: {}, optimizer: { learningRate: 1e-4 } }), 1);
  const { lora } = adapters;
  const configs = () => [adapters, weights].map(({ output }) => read(output, "config.json"));
  const before = configs();
  for (const other of [{ rank: 0 }, { ...lora, rank: 3 }, { ...lora, alpha: 5 }, { rank: 2 }]) {
    await expect(resume({ ...adapters, lora: other })).rejects.toMatchObject({
      code: "ERR_RLSD_CONFIG",
      message: expect.stringMatching(
        /"lora": .* \(rank 2, alpha 4 on q_proj, down_proj\), but the settings mean others/,
      ),
    });
  }
  await expect(resume({ ...weights, lora })).rejects.toMatchObject({
    code: "ERR_RLSD_CONFIG",
    message: expect.stringMatching(/"lora\.rank": the run trains all weights: leave it at 0/),
  });
  expect(configs()).toEqual(before);
  // The same said in other words.
  const same = { ...lora, alpha: 4, targets: ["down_proj", "q_proj", "q_proj"] as const };
  expect(await resume({ ...adapters, lora: same })).toMatchObject({ stopped: "done", step: 4 });
});

test("a hook answers itself for the weights under the adapters: the model's folder is not theirs", async () => {
  const shape = JSON.parse(readFileSync(join(model, "config.json"), "utf8"));
  const loadPolicy = () =>
    createPolicy({
      vocabSize: shape.vocab_size,
      hiddenSize: 32,
      numLayers: 1,
      numHeads: 2,
      maxLength: shape.max_position_embeddings,
    });
  const { checkpoint } = await train({ ...named("hooked"), steps: 1 }, { loadPolicy });
  expect(JSON.parse(readFileSync(join(checkpoint, "state.json"), "utf8"))).not.toHaveProperty("base");
  const own = join(folder, "first/checkpoints/step-000004/state.json");
  expect(JSON.parse(readFileSync(own, "utf8"))).toHaveProperty("base", expect.stringMatching(/^[0-9a-f]{64}$/));
  const base = { loadPolicy, base: model };
  await expect(evaluateModel(checkpoint, [], join(folder, "unused"), {}, base)).rejects.toMatchObject({
    code: "ERR_RLSD_INVALID_ARGUMENT",
    message: expect.stringMatching(/^"base" is for the built-in engine/),
  });
});

describe("the weights under the adapters", () => {
  const base = join(folder, "base");
  const run = named("on-base", { model: base });

  test("may have moved, once that is said", async () => {
    cpSync(model, base, { recursive: true });
    await stopped(run, 2);
    renameSync(base, join(folder, "moved"));
    await expect(resume(run)).rejects.toMatchObject({
      code: "ERR_RLSD_MODEL",
      message: expect.stringMatching(
        /stand on the weights in .*base, which cannot be read: .*Put them back, or let "model" name the folder/,
      ),
    });
    await resume({ ...run, model: join(folder, "moved") });
    const [is, wanted] = [await traceOf(run.output), await traceOf(join(folder, "first"))];
    expect(is).toEqual(wanted);
  });

  test("are those that the adapters were trained on, or nothing is made of them", async () => {
    const now = join(folder, "moved");
    const file = join(now, "model.safetensors");
    const bytes = readFileSync(file);
    // The values of one tensor, of the same shape.
    bytes.subarray(bytes.length - 64 * 4).fill(0);
    writeFileSync(file, bytes);
    const code = "ERR_RLSD_MODEL";
    const message = expect.stringMatching(/were trained on other weights than .*moved has now/);
    await expect(resume({ ...run, model: now, steps: 5 })).rejects.toMatchObject({ code, message });
    const output = join(folder, "evaluation");
    for (const directory of [run.output, join(run.output, "checkpoints/step-000004")]) {
      await expect(evaluateModel(directory, settings.data!.train!, output)).rejects.toMatchObject({ code, message });
    }
    // Nor where they are named apart from the run.
    renameSync(now, base);
    const hooks = { base: now };
    cpSync(base, now, { recursive: true });
    for (const body of [
      evaluateModel(run.output, settings.data!.train!, output, {}, hooks),
      exportModel(run.output, output, hooks),
      creditCompletions(run.output, [], {}, hooks).next(),
    ]) {
      await expect(body).rejects.toMatchObject({ code, message });
    }
    expect(existsSync(output)).toBe(false);
    rmSync(base, { recursive: true });
    mkdirSync(base);
    await expect(resume({ ...run, steps: 5 })).rejects.toMatchObject({ code });
  });
});
