import { cpSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exitCodeOf } from "../lib/cli/command.js";
import { RlsdError } from "../lib/errors.js";
import { lastCheckpoint } from "../lib/trainer/checkpoint.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { readMetrics } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { fewRows } from "./support/clock-task.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { shareOfLetter, tinyTask } from "./support/tiny-task.js";

const hooks = { loadPolicy: TinyPolicy.load };

async function rewardsOf(run: string): Promise<unknown[]> {
  const all: unknown[] = [];
  for await (const { step, kind, reward, unjudged } of readMetrics(run)) all.push([step, kind, reward, unjudged]);
  return all;
}

describe("a verifier that is out of order", () => {
  /** Judges so many completions, then none any more until it is mended. */
  function failing(after: number) {
    let calls = 0;
    const state = { down: true };
    const reward = (sample: Sample) => {
      if (state.down && calls++ >= after) throw new Error("no connection.");
      return shareOfLetter(sample);
    };
    return { state, reward };
  }

  test.each([
    ["a step", 24 + 6, 1],
    ["an evaluation", 6 + 48, 2],
  ])("in %s stops the run, and is asked again when that goes on", async (_, after, every) => {
    const { settings } = tinyTask();
    const whole = tinyTask().settings;
    const evaluation = { every: 2, atStart: true };
    const common = { steps: 4, eval: evaluation, checkpoint: { every } };
    const { state, reward } = failing(after);
    const stopped = train({ ...settings, ...common, reward }, hooks);
    await expect(stopped).rejects.toMatchObject({
      code: "ERR_RLSD_UNJUDGED",
      message: expect.stringMatching(/judged none of the (24|6) completions of .*no connection\. Once.*--resume/s),
    });
    state.down = false;
    await train({ ...settings, ...common, reward }, { ...hooks, resume: settings.output });
    await train({ ...whole, ...common, reward: shareOfLetter }, hooks);
    expect(await rewardsOf(settings.output)).toEqual(await rewardsOf(whole.output));
  });
});

test("a model without finite log-probs is told as such, with what to do", async () => {
  const { settings } = tinyTask();
  const broken = async (folder: string) => {
    const policy = await TinyPolicy.load(folder);
    policy.generate = async () => {
      throw new RlsdError("ERR_RLSD_NON_FINITE", "sample: row 3 has no finite distribution.");
    };
    return policy;
  };
  await expect(train(settings, { loadPolicy: broken })).rejects.toMatchObject({
    code: "ERR_RLSD_NON_FINITE",
    message: expect.stringMatching(/row 3.*files are damaged.*"optimizer\.learningRate"/),
  });
});

test("a verifier that fails is no wrong setting: a run that it ended may be called again", () => {
  expect(exitCodeOf(new RlsdError("ERR_RLSD_UNJUDGED", ""))).toBe(1);
  expect(exitCodeOf(new RlsdError("ERR_RLSD_VERIFIER", ""))).toBe(2);
});

describe("a damaged checkpoint", () => {
  test.each([
    ["half a state", (folder: string) => truncateSync(join(folder, "state.json"), 40), /Remove .*step-000004, and the/],
    ["no state", (folder: string) => writeFileSync(join(folder, "state.json"), '{"version":1}'), /from step-000002/],
    ["a null", (folder: string) => writeFileSync(join(folder, "state.json"), "null"), /from step-000002/],
  ])("with %s is an error that says what to go on from", async (_, damage, mend) => {
    const { settings } = tinyTask();
    await train({ ...settings, steps: 4 }, hooks);
    const last = join(settings.output, "checkpoints/step-000004");
    damage(last);
    const next = { ...settings, steps: 5 };
    const failed = train(next, { ...hooks, resume: settings.output });
    await expect(failed).rejects.toMatchObject({ code: "ERR_RLSD_CHECKPOINT", message: expect.stringMatching(mend) });
  });

  test("with half of its weights or without an optimizer is told likewise", async () => {
    const output = mkdtempSync(join(tmpdir(), "rlsd-damaged-"));
    const settings = {
      ...exampleSettings(),
      output,
      steps: 2,
      data: { train: [fewRows(mkdtempSync(join(tmpdir(), "rlsd-rows-")))] },
    };
    await train({ ...settings, rollout: { prompts: 1, count: 2, maxTokens: 32 }, checkpoint: { every: 1 } });
    const model = join(output, "checkpoints/step-000002/model");
    const resumed = () => train({ ...settings, steps: 3 }, { resume: output });
    const told = { code: "ERR_RLSD_MODEL_FILE", message: expect.stringMatching(/Remove .*2, and .* step-000001/) };
    rmSync(join(model, "optimizer.safetensors"));
    await expect(resumed()).rejects.toMatchObject(told);
    truncateSync(join(model, "model.safetensors"), 1000);
    await expect(resumed()).rejects.toMatchObject(told);
    rmSync(join(output, "checkpoints/step-000002"), { recursive: true });
    expect(await resumed()).toMatchObject({ step: 3 });
  });

  test("of a later version is not to be removed", async () => {
    const { settings } = tinyTask();
    await train({ ...settings, steps: 4 }, hooks);
    const checkpoints = join(settings.output, "checkpoints");
    writeFileSync(join(checkpoints, "step-000004/state.json"), '{"version":2}');
    await expect(lastCheckpoint(settings.output)).rejects.toMatchObject({
      code: "ERR_RLSD_UNSUPPORTED",
      message: expect.not.stringContaining("Remove"),
    });
    cpSync(join(checkpoints, "step-000002"), join(checkpoints, "step-000004"), { recursive: true });
    expect(readdirSync(checkpoints)).toContain("step-000002");
    expect((await lastCheckpoint(settings.output))?.state.step).toBe(2);
  });
});
