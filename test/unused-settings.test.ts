import { readFileSync } from "node:fs";
import { join } from "node:path";
import { resolveConfig, type TrainConfig } from "../lib/trainer/config.js";
import { merge } from "../lib/trainer/config-file.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import { resolveSettings } from "../lib/trainer/schema.js";
import { trainSchema } from "../lib/trainer/settings.js";
import { train } from "../lib/trainer/train.js";
import { unusedSettings } from "../lib/trainer/unused-settings.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

const defaults = resolveSettings(trainSchema, {});
const unusedOf = (o: object) => unusedSettings(resolveConfig(o), defaults);
const given = { model: "m", data: { train: ["t.jsonl"] } };
const external = { kind: "external", model: "other" };

test.each<[object, readonly (readonly [string, string])[]]>([
  [{}, []],
  [{ steps: 5, objective: { creditMix: 1 }, privileged: { source: "trace" }, optimizer: { eps: 1e-6 } }, []],
  [
    {
      algorithm: "grpo",
      objective: { creditMix: 1 },
      teacher: { kind: "ema", rate: 0.5 },
      span: { open: "a", close: "b" },
    },
    [
      ["teacher.kind, teacher.rate, span.open, span.close", "no step asks a teacher"],
      ["objective.creditMix", "algorithm grpo gives no credit"],
    ],
  ],
  [
    {
      algorithm: "sft",
      rollout: { count: 4, maxTokens: 9 },
      objective: { preset: "grpo" },
      advantage: { scale: "none" },
    },
    [["rollout.count, advantage.scale, objective.preset", "algorithm sft learns from traces"]],
  ],
  [{ sft: { turns: "all" } }, [["sft.turns", "algorithm rlsd learns from what is drawn"]]],
  [
    { algorithm: "opd", teacher: external, privileged: { maxTokens: 9 }, distill: { weight: 2, beta: 0.2 } },
    [
      ["privileged.maxTokens", "the teacher reads the student's own prompts"],
      ["distill.weight", "the divergence is all of the loss"],
    ],
  ],
  [
    { algorithm: "opsd", objective: { clipLow: 0.1, klCoef: 0.1 }, update: { epochs: 2 } },
    [["objective.clipLow", "no advantage is learned from"]],
  ],
  [
    {
      algorithm: "opsd",
      distill: { divergence: "sampled-reverse-kl" },
      objective: { clipLow: 0.1 },
      update: { epochs: 2 },
    },
    [],
  ],
  [{ objective: { clipLow: 0.1 } }, [["objective.clipLow", "a step has one update, whose ratios are 1"]]],
  [
    { algorithm: "grpo+opsd", distill: { weight: 0, divergence: "forward-kl" } },
    [["distill.divergence", "distill.weight is 0"]],
  ],
  [{ eval: { every: 3 } }, [["eval.every", "data.eval is empty"]]],
  [
    { teacher: { kind: "shared", every: 3, rate: 0.5, model: "x" } },
    [
      ["teacher.every", "teacher.kind is not periodic"],
      ["teacher.rate", "teacher.kind is not ema"],
      ["teacher.model", "teacher.kind is not external"],
    ],
  ],
  [{ lora: { rank: 0, alpha: 4 } }, [["lora.alpha", "lora.rank is 0"]]],
])("settings that a run has no use for: %j", (o, expected) => {
  const told = unusedOf({ ...given, ...o });
  expect(told.map(({ settings, because }) => [settings.join(", "), because])).toEqual(expected);
});

describe("a setting that is told to be without use", () => {
  const { folder, settings } = tinyTask();
  const base = {
    ...settings,
    steps: 2,
    data: { train: settings.data!.train },
    eval: {},
    rollout: { prompts: 2, count: 4, maxTokens: 6 },
  };
  let runs = 0;
  const seen = new Map<string, string>();
  /** All that a run logs and learns. */
  async function outcome(o: Record<string, unknown>): Promise<string> {
    const known = seen.get(JSON.stringify(o));
    if (known !== undefined) return known;
    const output = join(folder, `run-${runs++}`);
    await train({ ...(merge(base, o) as TrainConfig), output }, { loadPolicy: TinyPolicy.load });
    const read = (name: string) => readFileSync(join(output, name), "utf8");
    const metrics = read("metrics.jsonl").replaceAll(/"time":\{[^}]*\}/g, "");
    const told = metrics + read("samples.jsonl") + read("checkpoints/step-000002/model/tiny.bin");
    seen.set(JSON.stringify(o), told);
    return told;
  }

  const changes: [setting: object, beside?: object][] = [
    [{ teacher: { kind: "shared" } }],
    [{ teacher: { rate: 0.2 } }, { teacher: { kind: "shared" } }],
    [{ teacher: { every: 1 } }, { teacher: { kind: "ema" } }],
    [{ privileged: { source: "answer" } }],
    [{ privileged: { maxTokens: 1 } }],
    [{ span: { open: "a", close: "b" } }],
    [{ creditSchedule: { warmup: 4 } }],
    [{ creditSchedule: { hold: 4 } }, { creditSchedule: { decay: 0 } }],
    [{ creditSchedule: { stepBase: 0 } }, { creditSchedule: { decay: 0 } }],
    [{ objective: { evidenceClip: 0.9 } }],
    [{ objective: { negativeOnly: true } }],
    [{ objective: { normalize: "sequence" } }],
    [{ objective: { studentSource: "old" } }],
    [{ objective: { clipLow: 0.001, clipHigh: 0.001 } }],
    [{ objective: { clipLow: 0.001, clipHigh: 0.001 } }, { update: { epochs: 2 } }],
    [{ objective: { dualClip: 1.01 } }],
    [{ objective: { klEstimator: "k1" } }, { objective: { klCoef: 0 } }],
    [{ objective: { klEstimator: "k1" } }, { objective: { klCoef: 1 } }],
    [{ objective: { preset: "drGrpo" } }],
    [{ distill: { valueClamp: 0.01 } }],
    [{ sft: { turns: "all" } }],
    [{ rollout: { count: 3 } }],
    [{ rollout: { temperature: 0.5 } }],
    [{ advantage: { baseline: "leave-one-out" } }],
    [{ groups: { zeroVariance: "drop" } }],
    [{ overlong: { penalty: 3 } }, { overlong: { mode: "mask" } }],
    [{ overlong: { penalty: 3 } }, { overlong: { mode: "penalty" } }],
    [{ eval: { every: 1 } }],
    [{ lora: { alpha: 3 } }, { lora: { rank: 0 } }],
    [{ optimizer: { minRatio: 0.5 } }, { optimizer: { schedule: "constant" } }],
    [{ optimizer: { minRatio: 0.5 } }, { optimizer: { schedule: "linear" } }],
  ];
  const sampled = { algorithm: "opsd", distill: { divergence: "sampled-reverse-kl" } };
  test.each([{ algorithm: "rlsd" }, { algorithm: "grpo" }, { algorithm: "sft" }, sampled])(
    "changes nothing: %j",
    async (algorithm) => {
      const kinds = new Set<boolean>();
      for (const [setting, beside = {}] of changes) {
        const before = merge(algorithm, beside as Record<string, unknown>);
        const after = merge(before, setting as Record<string, unknown>);
        const names = Object.entries(setting).flatMap(([section, o]) =>
          Object.keys(o as object).map((name) => `${section}.${name}`),
        );
        const told = unusedOf(merge(base, after)).flatMap((one) => one.settings);
        const unused = names.every((name) => told.includes(name));
        kinds.add(unused);
        if (unused) expect([names, (await outcome(after)) === (await outcome(before))]).toEqual([names, true]);
      }
      expect(kinds).toEqual(new Set([true, false]));
    },
  );
});

test("a plan lists them", async () => {
  const { folder, settings } = tinyTask();
  const o = { ...settings, algorithm: "grpo" as const, data: { train: [join(folder, "train.jsonl")] } };
  const plan = await dryRun(o, { loadPolicy: TinyPolicy.load });
  expect(plan.unused).toContainEqual({ settings: ["privileged.template"], because: "no step asks a teacher" });
  expect(dryRunText(plan)).toContain("\nunused     privileged.template: no step asks a teacher\n");
});
