import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createPolicy, evaluateModel, loadPolicy } from "../lib/index.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { MODEL, MODEL_FILES } from "../lib/trainer/example/clock-model.js";
import { openAsked } from "../lib/trainer/generate-run.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { clockTask } from "./support/clock-task.js";

const { folder, settings } = clockTask();
const model = join(folder, "phi3");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Read at most 64 tokens before its positions were scaled. */
beforeAll(async () => {
  await using made = await createPolicy(
    { ...MODEL, modelType: "phi3" },
    { seed: 4, deviation: 0.2, files: MODEL_FILES },
  );
  await made.save(model);
  const file = join(model, "config.json");
  const { rope_parameters: _, rope_scaling: __, ...config } = JSON.parse(readFileSync(file, "utf8"));
  const rope_scaling = {
    type: "longrope",
    short_factor: new Array<number>(8).fill(1),
    long_factor: Array.from({ length: 8 }, (_v, i) => 1 + i),
  };
  writeFileSync(file, JSON.stringify({ ...config, original_max_position_embeddings: 64, rope_scaling }));
});

const named = (name: string, change: TrainConfig = {}) => {
  const shared = { model, steps: 2, checkpoint: { every: 1 }, lora: { rank: 2 }, eval: { every: 0 } };
  return { ...settings, ...shared, ...change, output: join(folder, name) };
};

async function metricsOf(run: string): Promise<object[]> {
  const lines: object[] = [];
  for await (const { time, ...rest } of readMetrics(run) as AsyncIterable<{ time: unknown }>) lines.push(rest);
  return lines;
}
const weights = (run: string): string =>
  readFileSync(join(run, "checkpoints/step-000002/model/adapter_model.safetensors"), "base64");

test("a run trains adapters of all matrices, the fused ones by their names, and goes on to the same bits", async () => {
  const straight = named("straight");
  await train(straight);
  const control = new AbortController();
  const stopped = named("stopped");
  await train(stopped, { onStep: ({ step }) => void (step === 1 && control.abort()), signal: control.signal });
  await train(stopped, { resume: stopped.output });
  expect(await metricsOf(stopped.output)).toEqual(await metricsOf(straight.output));
  expect(weights(stopped.output)).toBe(weights(straight.output));
  await using trained = await loadPolicy(join(straight.output, "checkpoints/step-000002/model"));
  expect(trained.lora?.targets).toEqual(["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]);
  const others = train({ ...stopped, steps: 3, lora: { rank: 2, targets: ["qkv_proj"] } }, { resume: stopped.output });
  await expect(others).rejects.toMatchObject({ code: "ERR_RLSD_CONFIG" });
});

test("a run's maxLength is that of its policies, also when it is evaluated", async () => {
  expect([(await dryRun(named("a"))).maxLength, (await dryRun(named("b", { maxLength: 100 }))).maxLength]).toEqual([
    64, 100,
  ]);
  const [short, long] = [named("short"), named("long", { maxLength: 100 })];
  await train(short);
  await train(long);
  expect(weights(long.output)).not.toBe(weights(short.output));
  const data = settings.data!.train!;
  const change = { eval: { limit: 2 }, rollout: { maxTokens: 4 } };
  const at = join(folder, "evaluated");
  await evaluateModel(long.output, data, at, change);
  const record = readFileSync(join(at, "evaluation.json"), "utf8");
  expect(JSON.parse(record)).toMatchObject({ settings: { maxLength: 100 } });
  const { policy } = await openAsked(long.output);
  expect(policy.maxLength).toBe(100);
  await policy.dispose();
});

test("a longer one than the model's is refused before there is a folder, and so is one beside a hook", async () => {
  await expect(train(named("c", { maxLength: 129 }))).rejects.toThrow(/at most 128, which .*phi3 reads, for maxLength/);
  await expect(train(named("d", { maxLength: 64 }), { loadPolicy })).rejects.toThrow(
    '"maxLength" is of the built-in engine, but hooks.loadPolicy makes the policy.',
  );
  await expect(train(named("e", { lora: { rank: 2, targets: ["q_proj"] } }))).rejects.toThrow(
    /a list of qkv_proj, o_proj, gate_up_proj, down_proj for targets/,
  );
});
