import { rlsd } from "../lib/objectives/presets.js";
import { spread } from "../lib/trainer/dry-run.js";
import type { LossRow } from "../lib/trainer/loss-rows.js";
import {
  createLeakDetector,
  distillMetrics,
  quantiles,
  rolloutMetrics,
  updateMetrics,
} from "../lib/trainer/metrics.js";
import type { Rollout } from "../lib/trainer/rollout.js";
import { rightBy } from "../lib/trainer/success.js";
import type { UpdateResult } from "../lib/trainer/update.js";
import { createVerifier } from "../lib/verifiers/registry.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { configOf, rolloutOf } from "./support/rollouts.js";

const atLeast = (successThreshold: number) => rightBy(configOf({ eval: { successThreshold } }));

describe("figures", () => {
  test("quantiles are values of the data", () => {
    expect(quantiles(Float64Array.of(3, 1, 2, 4), [0, 0.5, 1])).toEqual([1, 3, 4]);
  });

  test("take more values than a call has arguments", () => {
    const rollouts = new Array<Rollout>(200_000).fill(rolloutOf("abc"));
    const verdicts = rollouts.map(() => ({ reward: 1, detail: {} }));
    expect(spread(rollouts.map((_, i) => i))).toEqual({ min: 0, median: 100_000, p95: 190_000, max: 199_999 });
    expect(rolloutMetrics(rollouts, verdicts, { leaks: () => false, isRight: atLeast(1) })).toMatchObject({
      lengthMax: 3,
    });
  });

  test("the parts of a reward are told apart, each over the completions that it judged", async () => {
    const numeric = ({ completion }: Sample) => completion === "4";
    const form = ({ completion }: Sample) => (completion === "" ? null : 0.5);
    const verifier = createVerifier({
      type: "sum",
      parts: [
        { verifier: numeric as unknown as string, weight: 2, name: "numeric" },
        { verifier: { type: "gate", gate: form, verifier: numeric }, name: "gated" },
      ],
    });
    const told = ["4", "5", ""].map(async (completion) => {
      const sample = { id: "s", prompt: "", completion, finish: "stop" as const, row: {} };
      const { reward, detail = {} } = await verifier.verify(sample);
      return { reward, detail };
    });
    const verdicts = await Promise.all(told);
    const all = rolloutMetrics(
      verdicts.map(() => rolloutOf("4")),
      verdicts,
      { leaks: () => false, isRight: atLeast(2) },
    );
    expect(all).toMatchObject({ reward: 1, accuracy: 0.5, unjudged: 1 });
    expect(all).toMatchObject({ "reward/numeric": 1 / 3, "reward/gated": 0, "reward/gated/gate": 0.5 });
    const other = verdicts.map((_, i) => ({ reward: 1, detail: { [`item ${i}`]: 3, list: [1], none: null } }));
    const names = Object.keys(rolloutMetrics([rolloutOf("4")], other, { leaks: () => false, isRight: atLeast(1) }));
    expect(names.filter((name) => name.includes("/"))).toEqual([]);
  });

  test("a leak is what the patterns say", () => {
    const leaks = createLeakDetector(["reference", "given (hint|answer)"]);
    expect(leaks(rolloutOf("By the Reference, 4"))).toBe(true);
    expect(leaks(rolloutOf("from the given hint"))).toBe(true);
    expect(leaks(rolloutOf("2 + 2 = 4"))).toBe(false);
  });
});

describe("figures of an update", () => {
  const f32 = (...values: number[]) => Float32Array.from(values);
  const row = (advantage: number, teacherLogProbs: Float32Array, more: Partial<LossRow> = {}): LossRow => ({
    rollout: rolloutOf("abc"),
    advantage,
    evidence: { privileged: "", truncated: false, teacherLogProbs },
    span: undefined,
    ...more,
  });
  const told = (evidenceWeights: Float32Array | undefined, logProbs = f32(-1, -1, -2)) => ({
    logProbs,
    evidenceWeights,
    tokenAdvantages: f32(0, 0, 0),
  });
  const result = (rows: UpdateResult["rows"], more: object = {}): UpdateResult =>
    ({ rows, calls: [], distilled: [], divergences: [], steps: [], loss: 0.5, ...more }) as UpdateResult;

  test("are of the tokens that a teacher spoke about, inside the span", () => {
    const rows = [
      row(1, f32(-0.5, -2, -Infinity)),
      row(-2, f32(-1.125, -5, Number.NaN), { span: Uint8Array.of(1, 0, 1) }),
      row(1, f32(0, 0, 0), { evidence: undefined }),
      row(1, f32(0, 0, 0)),
    ];
    const results = [told(f32(1.25, 0.5, 0.75)), told(f32(1.125, 9, 1)), told(f32(9, 9, 9)), undefined];
    expect(updateMetrics(rows, result(results), rlsd())).toEqual({
      loss: 0.5,
      updates: 0,
      skippedUpdates: 0,
      nonFiniteRows: 0,
      nanTeacherRows: 0,
      deltaMean: (0.5 - 1 - 0.125) / 3,
      deltaMeanPositive: (0.5 - 1) / 2,
      deltaMeanNegative: -0.125,
      evidenceWeightMean: 0.925,
      evidenceWeightP05: 0.5,
      evidenceWeightP25: 0.75,
      evidenceWeightP50: 1,
      evidenceWeightP75: 1.125,
      evidenceWeightP95: 1.25,
      evidenceClippedLow: 2 / 4,
      evidenceClippedHigh: 1 / 4,
    });
  });

  test("measure evidence against what the objective says", () => {
    const oldLogProbs = f32(-0.25, -0.25, -0.25);
    const delta = (studentSource: "old" | "current", contrastLogProbs?: Float32Array) => {
      const evidence = { privileged: "", truncated: false, teacherLogProbs: f32(0, 0, 0), contrastLogProbs };
      const rows = [row(1, f32(), { oldLogProbs, evidence: evidence as LossRow["evidence"] })];
      return updateMetrics(rows, result([told(f32(1, 1, 1), f32(-1, -1, -1))]), rlsd({ studentSource })).deltaMean;
    };
    expect([delta("current"), delta("old"), delta("old", f32(-3, -3, -3))]).toEqual([1, 0.25, 3]);
  });

  test("are means over its calls by their tokens, and sums of counts", () => {
    const call = (tokens: number, klMean?: number) => ({
      stats: { tokens, nonFiniteRows: 1, nanTeacherRows: 2, ...(klMean !== undefined && { klMean }) },
    });
    const masked = { stats: { tokens: 0, dualClipped: 0, nonFiniteRows: 0, nanTeacherRows: 0 } };
    const calls = [call(1, 1), call(3, 5), call(7), masked];
    const distilled = [{ stats: { nonFiniteRows: 4 } }];
    const steps = [
      { gradientNorm: 1, skipped: false },
      { gradientNorm: 4, skipped: true },
    ];
    expect(updateMetrics([], result([], { calls, distilled, steps }), rlsd())).toEqual({
      loss: 0.5,
      klMean: (1 + 3 * 5) / 4,
      gradientNorm: 2.5,
      updates: 2,
      skippedUpdates: 1,
      nonFiniteRows: 7,
      nanTeacherRows: 6,
    });
  });

  test("have the divergence at the drawn tokens from their advantages, inside the span", () => {
    const rows = [
      row(1, f32(), { tokenAdvantages: f32(0.5, 9, 2), span: Uint8Array.of(1, 0, 1) }),
      row(-1, f32(), { tokenAdvantages: f32(-2) }),
    ];
    expect(distillMetrics(rows, result([]), 0.25)).toEqual({ divergenceMean: (2 - 4 + 4) / 3 });
  });
});
