import fs, { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { EnginePolicy } from "../lib/policy/engine-policy.js";
import { loadPolicy } from "../lib/policy/load.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import { type DiskPlan, diskShortage } from "../lib/trainer/disk.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { train } from "../lib/trainer/train.js";
import type { RunStart } from "../lib/trainer/train-hooks.js";
import { clockTask } from "./support/clock-task.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

function sizeOf(folder: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => statSync(join(folder, name)));
  return files.reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0);
}

afterEach(() => jest.restoreAllMocks());

const KINDS: [string, TrainConfig][] = [
  ["all weights, a frozen teacher", { lora: { rank: 0 } }],
  ["all weights, a frozen teacher and a KL reference", { lora: { rank: 0 }, objective: { klCoef: 0.1 } }],
  ["all weights, a teacher that moves", { lora: { rank: 0 }, teacher: { kind: "ema" } }],
  ["adapters", {}],
  ["adapters, a teacher that moves and a KL reference", { teacher: { kind: "periodic" }, objective: { klCoef: 0.1 } }],
  ["all weights, no teacher", { lora: { rank: 0 }, algorithm: "grpo" }],
  ["traces, adapters", { algorithm: "sft" }],
];

describe("the plan's disk", () => {
  test.each(KINDS)("is what the checkpoints of a run take: %s", async (_, o) => {
    const { settings } = clockTask();
    const config = { ...settings, ...o, output: settings.output, steps: 2 };
    const { disk } = await dryRun(config);
    await train(config);
    const checkpoints = join(config.output, "checkpoints");
    const real = sizeOf(join(checkpoints, "step-000002"));
    // What is not counted are headers and small JSON files: some kilobytes, whatever the model's size.
    expect(real - disk.checkpoint).toBeGreaterThanOrEqual(0);
    expect(real - disk.checkpoint).toBeLessThan(16_000);
    const names = readdirSync(checkpoints);
    const initial = names.includes("initial") ? sizeOf(join(checkpoints, "initial")) : 0;
    expect(initial - disk.initial).toBeGreaterThanOrEqual(0);
    expect(initial - disk.initial).toBeLessThan(12_000);
    // Of a run that goes on, what is there already is counted.
    const there = await dryRun({ ...config, steps: 4 });
    expect(there.disk).toMatchObject({ present: sizeOf(checkpoints), folder: config.output });
  });

  test("of a teacher held in 16 bits is its own", async () => {
    const { folder, settings } = clockTask();
    await using policy = await loadPolicy(settings.model);
    const half = join(folder, "half");
    await policy.save(half, { dtype: "bf16" });
    const config = { ...settings, model: half, lora: { rank: 0 }, steps: 1 };
    const { disk } = await dryRun(config);
    await train(config);
    const real = sizeOf(join(config.output, "checkpoints", "initial"));
    expect(Math.abs(real - disk.initial) / real).toBeLessThan(0.03);
  });

  test("counts the checkpoints that are there at once", async () => {
    const { settings } = clockTask();
    const config = {
      ...settings,
      steps: 6,
      // The best is the first one that is evaluated, and is kept beside the newest.
      data: { ...settings.data, eval: settings.data!.train! },
      eval: { every: 1, limit: 4, successThreshold: 0 },
      checkpoint: { every: 1, keep: 2 },
      rollout: { ...settings.rollout, maxTokens: 30 },
    };
    let most = 0;
    const save = EnginePolicy.prototype.save;
    jest.spyOn(EnginePolicy.prototype, "save").mockImplementation(function (this: EnginePolicy, directory, o) {
      if (directory.includes("step-")) {
        const names = readdirSync(join(config.output, "checkpoints"));
        most = Math.max(most, names.filter((name) => name.startsWith("step-")).length);
      }
      return save.call(this, directory, o);
    });
    const plan = await dryRun(config);
    await train({ ...config, eval: { ...config.eval, atStart: false } });
    expect([plan.disk.checkpoints, most]).toEqual([4, 4]);
    expect(plan.disk.total).toBe(plan.disk.initial + 4 * plan.disk.checkpoint);
    const short = { ...config, steps: 2, data: { ...settings.data, eval: [] }, checkpoint: { every: 0 } };
    expect((await dryRun(short)).disk.checkpoints).toBe(1);
  });
});

/** A file system with so much room. */
const withFree = (bytes: number) =>
  jest.spyOn(fs.promises, "statfs").mockResolvedValue({ bavail: bytes / 512, bsize: 512 } as never);

describe("a disk that is too small", () => {
  test("for the first checkpoint is an error before anything is written", async () => {
    const { folder, settings } = clockTask();
    withFree(512 * 40);
    const before = readdirSync(folder);
    await expect(train({ ...settings, steps: 1 })).rejects.toMatchObject({
      code: "ERR_RLSD_WRITE",
      message: expect.stringMatching(
        /run has 20\.0 KiB free, but the next checkpoint takes [\d.]+ KiB: free some, choose another folder \(--output\)/,
      ),
    });
    expect(readdirSync(folder)).toEqual(before);
  });

  test("for all of them is said in the plan and at the start, and the run begins", async () => {
    const { settings } = clockTask();
    const { disk } = await dryRun(settings);
    withFree(512 * Math.ceil((disk.initial + 1.5 * disk.checkpoint) / 512));
    const plan = await dryRun(settings);
    expect(dryRunText(plan)).toMatch(
      /^disk {7}[\d.]+ KiB at most: 3 checkpoints of [\d.]+ KiB, and [\d.]+ KiB once; [\d.]+ KiB free in .*run\n {11}checkpoints will take up to [\d.]+ KiB more, but .*run has [\d.]+ KiB free: lower "checkpoint\.keep"/m,
    );
    let told: DiskPlan | undefined;
    const onStart = (start: RunStart) => {
      told = start.disk;
    };
    await train({ ...settings, steps: 4 }, { onStart });
    expect(diskShortage(told!)).toMatch(/checkpoints will take up to/);
  });

  test("is no matter where nobody knows what a policy writes, or what is free", async () => {
    const { settings } = tinyTask();
    withFree(512);
    await train({ ...settings, steps: 1 }, { loadPolicy: TinyPolicy.load });
    jest.spyOn(fs.promises, "statfs").mockRejectedValue(Object.assign(new Error("no"), { code: "ENOSYS" }));
    const plan = await dryRun(settings, { loadPolicy: TinyPolicy.load });
    expect([plan.disk.free, diskShortage(plan.disk)]).toEqual([null, undefined]);
    expect(dryRunText(plan)).toMatch(/^disk .* once; [\d.]+ KiB are there$/m);
  });
});
