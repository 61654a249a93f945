import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { dryRun, loadPolicy } from "../lib/index.js";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { clockTask } from "./support/clock-task.js";
import { readTensors } from "./support/safetensors.js";

const { folder, settings } = clockTask();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The task's model as bfloat16, and what it then is as float32. */
const models = { bf16: join(folder, "bf16"), f32: join(folder, "f32") };
beforeAll(async () => {
  await using policy = await loadPolicy(settings.model);
  await policy.save(models.bf16, { dtype: "bf16" });
  await using read = await loadPolicy(models.bf16);
  await read.save(models.f32);
});

const change = { steps: 3, lora: { rank: 0 }, objective: { klCoef: 0.1 } };
const run = (dtype: keyof typeof models, name: string) => ({
  ...settings,
  ...change,
  model: models[dtype],
  output: join(folder, name),
});

async function traceOf(output: string): Promise<object> {
  const metrics: object[] = [];
  for await (const { time, ...rest } of readMetrics(output) as AsyncIterable<MetricsLine>) metrics.push(rest);
  return { metrics, weights: readFileSync(join(output, "checkpoints/step-000003/model/model.safetensors"), "base64") };
}

test("a bfloat16 model trains as its float32 twin, also when stopped; teacher and reference stay bfloat16", async () => {
  await train(run("f32", "wide"));
  const stopped = run("bf16", "narrow");
  const control = new AbortController();
  const onStep = ({ step }: MetricsLine) => void (step === 1 && control.abort());
  expect(await train(stopped, { onStep, signal: control.signal })).toMatchObject({ stopped: "interrupted", step: 1 });
  for (const part of ["teacher", "reference"]) {
    const saved = readTensors(join(stopped.output, "checkpoints/initial", part, "model.safetensors"));
    expect(new Set([...saved.values()].map(({ dtype }) => dtype))).toEqual(new Set(["BF16"]));
  }
  await train(stopped, { resume: stopped.output });
  expect(await traceOf(stopped.output)).toEqual(await traceOf(join(folder, "wide")));
}, 120_000);

test("a dry run counts two bytes for what stays as it was, and four for what is trained", async () => {
  const bytes = async (dtype: keyof typeof models, lora = {}) =>
    (await dryRun({ ...run(dtype, "none"), lora })).memory as Record<string, number>;
  const count = 88384;
  expect(await bytes("f32")).toMatchObject({ weights: 4 * count, teacher: 4 * count, reference: 4 * count });
  expect(await bytes("bf16")).toMatchObject({ weights: 4 * count, teacher: 2 * count, reference: 2 * count });
  const { weights, gradient, teacher } = await bytes("bf16", { rank: 2 });
  expect([weights, teacher]).toEqual([2 * count + gradient!, gradient]);
});
