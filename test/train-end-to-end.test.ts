import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { MetricsLine } from "../lib/trainer/metrics-line.js";
import type { SampleLine } from "../lib/trainer/run-folder.js";
import { readMetrics, readSamples } from "../lib/trainer/run-logs.js";
import { train } from "../lib/trainer/train.js";
import type { TrainHooks } from "../lib/trainer/train-hooks.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const hooks: TrainHooks = { loadPolicy: TinyPolicy.load };

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}

describe("a run", () => {
  test("learns, and leaves its settings, metrics, samples and checkpoints", async () => {
    const { settings } = tinyTask();
    const summary = await train(
      { ...settings, steps: 40, optimizer: { learningRate: 0.1 }, eval: { every: 20 } },
      hooks,
    );
    expect(summary).toMatchObject({ step: 40, stopped: "done" });
    const metrics = await all<MetricsLine>(readMetrics(settings.output));
    const evals = metrics.filter((line) => line.kind === "eval");
    expect(evals.map((line) => line.step)).toEqual([0, 20, 40]);
    const rewards = metrics.filter((line) => line.kind === "train").map((line) => Number(line.reward));
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(rewards.slice(-10))).toBeGreaterThan(1.5 * mean(rewards.slice(0, 10)));
    const config = JSON.parse(readFileSync(join(settings.output, "config.json"), "utf8"));
    expect(config.config).toMatchObject({ steps: 40, algorithm: "rlsd", teacher: { kind: "frozen" } });
    expect(existsSync(join(summary.checkpoint, "model", "tiny.bin"))).toBe(true);
  });

  test("logs what catches trouble early, and everything that depends on the clock under time", async () => {
    const { settings } = tinyTask();
    await train(settings, hooks);
    const metrics = await all<MetricsLine>(readMetrics(settings.output));
    const line = metrics.find((one) => one.kind === "train")!;
    for (const name of [
      "reward",
      "accuracy",
      "unjudged",
      "length",
      "truncatedFraction",
      "leakRate",
      "entropy",
      "zeroVarianceFraction",
      "noPrivilegeFraction",
      "loss",
      "ratioClippedHigh",
      "ratioClippedLow",
      "deltaMean",
      "deltaMeanPositive",
      "deltaMeanNegative",
      "evidenceWeightMean",
      "evidenceWeightP05",
      "evidenceWeightP95",
      "gradientNorm",
      "nonFiniteRows",
      "creditMix",
      "learningRate",
    ]) {
      expect([name, typeof line[name]]).toEqual([name, "number"]);
    }
    expect(Object.keys(line.time).sort()).toEqual([
      "rollout",
      "teacher",
      "tokensPerSecond",
      "total",
      "update",
      "verify",
    ]);
  });

  test("samples hold one entry a token in every list", async () => {
    const { settings } = tinyTask();
    await train(settings, hooks);
    const samples = await all<SampleLine>(readSamples(settings.output));
    expect(samples).toHaveLength(6 * 24);
    const taught = samples.filter((sample) => sample.privileged !== null);
    expect(taught.length).toBeGreaterThan(0);
    for (const sample of taught) {
      const lists = [
        sample.tokenText,
        sample.logProbs,
        sample.teacherLogProbs,
        sample.evidenceWeights,
        sample.tokenAdvantages,
      ];
      expect(lists.map((list) => list.length)).toEqual(lists.map(() => sample.tokenIds.length));
      expect(sample.privileged).toBe(sample.prompt.at(-12)!.repeat(2));
      expect(sample.tokenText.join("").replace(/<[a-z]+>/g, "")).toBe(sample.completion);
    }
    for (const sample of samples.filter((one) => one.advantage === 0)) expect(sample.teacherLogProbs).toEqual([]);
  });

  test("keeps the newest checkpoints and the best", async () => {
    const { settings } = tinyTask();
    const { best } = await train({ ...settings, steps: 14 }, hooks);
    const names = readdirSync(join(settings.output, "checkpoints")).filter((name) => name.startsWith("step-"));
    const kept = new Set(["step-000012", "step-000014"]);
    if (best !== null && best.step > 0) kept.add(`step-${String(best.step).padStart(6, "0")}`);
    expect(new Set(names)).toEqual(kept);
  });

  test("ends early without improvement, and at a target", async () => {
    const { settings } = tinyTask();
    const still = { ...settings, steps: 40, optimizer: { learningRate: 0 }, stop: { patience: 2 } };
    expect(await train(still, hooks)).toMatchObject({ stopped: "patience", step: 4 });
    const { settings: other } = tinyTask();
    expect(await train({ ...other, stop: { target: 0 } }, hooks)).toMatchObject({ stopped: "target", step: 0 });
  });

  test("that ended early goes on once its settings no longer end it, and stays as it is while they do", async () => {
    const { settings } = tinyTask();
    const still = { ...settings, steps: 8, optimizer: { learningRate: 0 }, stop: { patience: 2 } };
    const again = { ...hooks, resume: settings.output };
    expect(await train(still, hooks)).toMatchObject({ stopped: "patience", step: 4 });
    expect(await train({ ...still, steps: 9 }, again)).toMatchObject({ stopped: "patience", step: 4 });
    expect(await train({ ...still, stop: { patience: 3 } }, again)).toMatchObject({ stopped: "patience", step: 6 });
    expect(await train({ ...still, stop: { target: 0 } }, again)).toMatchObject({ stopped: "target", step: 6 });
    expect(await train({ ...still, stop: {} }, again)).toMatchObject({ stopped: "done", step: 8 });
  });

  test("that was only measured goes on as if it had begun with the steps that it is given then", async () => {
    const change = { steps: 3, objective: { creditMix: 1, klCoef: 0.1 } };
    const [{ settings }, { settings: straight }] = [tinyTask(), tinyTask()];
    await train({ ...settings, steps: 0 }, hooks);
    await train({ ...settings, ...change, steps: 2 }, { ...hooks, resume: settings.output });
    await train({ ...settings, ...change }, { ...hooks, resume: settings.output });
    await train({ ...straight, ...change }, hooks);
    const samples = ({ output }: { output: string }) => readFileSync(join(output, "samples.jsonl"), "utf8");
    expect(samples(settings)).toBe(samples(straight));
  });

  test("with the same seed gives the same run, and with another a different one", async () => {
    const samplesOf = async (seed: number) => {
      const { settings } = tinyTask();
      await train({ ...settings, seed }, hooks);
      return readFileSync(join(settings.output, "samples.jsonl"), "utf8");
    };
    const first = await samplesOf(5);
    expect(await samplesOf(5)).toBe(first);
    expect(await samplesOf(6)).not.toBe(first);
  });
});

describe("the teacher", () => {
  const calls = async (change: object): Promise<{ scored: number; lines: MetricsLine[] }> => {
    const { settings } = tinyTask();
    const policies: TinyPolicy[] = [];
    const watched = (policy: TinyPolicy) => {
      policies.push(policy);
      const snapshot = policy.snapshot.bind(policy);
      policy.snapshot = async () => watched(await snapshot());
      return policy;
    };
    await train({ ...settings, ...change }, { loadPolicy: async (folder) => watched(await TinyPolicy.load(folder)) });
    const lines = await all<MetricsLine>(readMetrics(settings.output));
    return { scored: policies.reduce((n, policy) => n + policy.probe.scored, 0), lines };
  };

  test("is asked about every sample that has an advantage and privileged text, and about no other", async () => {
    const { scored, lines } = await calls({});
    const asked = lines.filter((line) => line.kind === "train").map((line) => Number(line.teacherSequences));
    expect(scored).toBe(asked.reduce((a, b) => a + b, 0));
    expect(scored).toBeGreaterThan(0);
  });

  test("is not run by grpo, nor once creditMix is 0", async () => {
    expect((await calls({ algorithm: "grpo", objective: {} })).scored).toBe(0);
    const { lines } = await calls({ objective: { creditMix: 1 }, creditSchedule: { decay: 3 } });
    const asked = lines.filter((line) => line.kind === "train");
    expect(asked.slice(0, 2).every((line) => Number(line.teacherSequences) > 0)).toBe(true);
    expect(asked.slice(2).map((line) => [line.creditMix, line.teacherSequences])).toEqual(
      asked.slice(2).map(() => [0, 0]),
    );
  });

  test.each(["frozen", "shared", "periodic", "ema"] as const)("%s: gives evidence at every step", async (kind) => {
    const { lines } = await calls({ teacher: { kind, every: 2, rate: 0.5 } });
    const train = lines.filter((line) => line.kind === "train");
    expect(train.every((line) => typeof line.deltaMean === "number")).toBe(true);
  });

  test("contrast compares with a rejected sibling", async () => {
    const { lines } = await calls({ privileged: { template: "{{ content }}. {{ privileged }}", contrast: true } });
    expect(lines.some((line) => line.kind === "train" && Math.abs(Number(line.deltaMean)) > 0)).toBe(true);
  });
});
