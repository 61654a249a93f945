import { cpSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readRunConfig } from "../lib/trainer/run-folder.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import { clockTask } from "./support/clock-task.js";

const allWeights = { lora: { rank: 0 }, optimizer: { learningRate: 2e-4 } };

async function traceOf(run: string) {
  const metrics: object[] = [];
  for await (const { time, ...rest } of readMetrics(run)) metrics.push(rest);
  const weights = readFileSync(join(run, "checkpoints/step-000004/model/model.safetensors"), "base64");
  return { metrics, weights, samples: readFileSync(join(run, "samples.jsonl"), "utf8") };
}

test("a run of all weights goes on from its checkpoint alone, to the bit, where its model's folder is gone", async () => {
  const { folder, settings } = clockTask();
  const whole = { ...settings, ...allWeights };
  await train({ ...whole, output: join(folder, "straight") });
  await train({ ...whole, steps: 2 });
  renameSync(settings.model, join(folder, "elsewhere"));
  expect(await train(whole, { resume: settings.output })).toMatchObject({ step: 4, stopped: "done" });
  expect(await traceOf(settings.output)).toEqual(await traceOf(join(folder, "straight")));
});

test("a run of all weights reads its prompts by the tokenizer that it was trained with, whatever its model's folder has now", async () => {
  const { folder, settings } = clockTask();
  const whole = { ...settings, ...allWeights };
  await train({ ...whole, output: join(folder, "straight") });
  await train({ ...whole, steps: 2 });
  writeFileSync(join(settings.model, "chat_template.jinja"), "{{ messages[0].content }}");
  await train(whole, { resume: settings.output });
  expect(await traceOf(settings.output)).toEqual(await traceOf(join(folder, "straight")));
});

test("another model is refused by a run that goes on with weights of its own, and nothing is changed", async () => {
  const { folder, settings } = clockTask();
  const whole = { ...settings, ...allWeights };
  await train({ ...whole, steps: 2 });
  const other = join(folder, "other");
  cpSync(settings.model, other, { recursive: true });
  const state = () => [
    readFileSync(join(settings.output, "config.json"), "utf8"),
    readdirSync(settings.output, { recursive: true, encoding: "utf8" }).sort(),
  ];
  const before = state();
  await expect(train({ ...whole, model: other }, { resume: settings.output })).rejects.toMatchObject({
    code: "ERR_RLSD_CONFIG",
    message: expect.stringMatching(
      /"model" is .*other, but the run goes on with its own weights .*step-000002.model: leave it at .*model, which need not/,
    ),
  });
  expect(state()).toEqual(before);
});

describe("a run that goes on with another run as its model", () => {
  /** A run of two steps, and one that began from its last checkpoint; then the first went on and has another best one. */
  async function begunAndMovedOn() {
    const { folder, settings } = clockTask();
    const first = { ...settings, ...allWeights, steps: 2, output: join(folder, "first") };
    await train(first);
    const second = { ...settings, ...allWeights, model: first.output };
    await train({ ...second, output: join(folder, "straight") });
    await train({ ...second, steps: 2 });
    await train({ ...first, steps: 6, checkpoint: { every: 2, keep: 1 } }, { resume: first.output });
    return { folder, first, second };
  }

  test("keeps the checkpoint that it began with, also where that run's best is another by now", async () => {
    const { folder, first, second } = await begunAndMovedOn();
    expect(readdirSync(join(first.output, "checkpoints"))).not.toContain("step-000002");
    expect(await train(second, { resume: second.output })).toMatchObject({ step: 4, stopped: "done" });
    expect(await traceOf(second.output)).toEqual(await traceOf(join(folder, "straight")));
    const { config } = await readRunConfig(second.output);
    expect(config.model).toBe(join(first.output, "checkpoints", "step-000002", "model"));
  });

  test("needs that run no more where it trains all weights", async () => {
    const { folder, first, second } = await begunAndMovedOn();
    rmSync(first.output, { recursive: true });
    await train(second, { resume: second.output });
    expect(await traceOf(second.output)).toEqual(await traceOf(join(folder, "straight")));
  });

  test("has adapters stand where they stood", async () => {
    const { folder, settings } = clockTask();
    const first = { ...settings, ...allWeights, steps: 2, output: join(folder, "first") };
    await train(first);
    const second = { ...settings, model: first.output };
    await train({ ...second, steps: 2 });
    await train({ ...first, steps: 4 }, { resume: first.output });
    expect(await train(second, { resume: second.output })).toMatchObject({ step: 4, stopped: "done" });
  });
});
