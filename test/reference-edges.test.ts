import type { ObjectiveFields } from "../lib/objectives/objective.js";
import type { ReferenceBatch } from "../lib/reference/batch.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";
import { objectiveFields } from "./support/fields.js";

const NaNs = Number.NaN;
const INF = Number.POSITIVE_INFINITY;

describe("the policy loss", () => {
  const batch = (more: Partial<ReferenceBatch> = {}): ReferenceBatch => ({
    student: { logProbs: [-1, -2, -0.5, -1.5] },
    tokenIds: [0, 0, 0, 0],
    cuSeqlens: [0, 2, 2, 4],
    advantages: [1, 5, -2],
    ...more,
  });
  const gradient = (more: Partial<ReferenceBatch>, fields: Partial<ObjectiveFields> = {}): number[] =>
    Array.from(policyLossReference(batch(more), objectiveFields(fields)).gradient.logProbs);

  it.each([
    ["token-mean", null, [1 / 4, 1 / 4]],
    ["sequence-mean", null, [1 / 6, 1 / 6]],
    ["sequence-sum", null, [1 / 3, 1 / 3]],
    ["token-sum", null, [1, 1]],
    ["token-mean", 10, [1 / 10, 1 / 10]],
    ["sequence-mean", 10, [1 / 20, 1 / 20]],
    ["sequence-sum", 10, [1 / 10, 1 / 10]],
    ["token-sum", 10, [1 / 10, 1 / 10]],
  ] as const)("weighs tokens by %s over normalizer %s", (reduction, normalizer, [first, last]) => {
    const got = gradient({}, { reduction, normalizer });
    const expected = [-first, -first, 2 * last, 2 * last];
    for (const [i, g] of expected.entries()) expect(got[i]).toBeCloseTo(g, 15);
  });

  it("counts an empty sequence in the mean over sequences, and masked tokens in nothing", () => {
    const masked = { completionMask: [1, 0, 0, 0], student: { logProbs: [-1, NaNs, INF, NaNs] } };
    const got = policyLossReference(batch(masked), objectiveFields({ reduction: "sequence-mean" }));
    expect(got.loss).toBeCloseTo(-1 / 3, 15);
    expect(Array.from(got.gradient.logProbs)).toEqual([-1 / 3, 0, 0, 0]);
    expect(Array.from(got.logProbs)).toEqual([-1, 0, 0, 0]);
    expect(got.stats).toMatchObject({ tokens: 1, sequences: 3, nonFiniteRows: 0 });
  });

  it.each(["token-mean", "sequence-mean", "sequence-sum", "token-sum"] as const)(
    "is 0 under %s when no token counts, and when there is none",
    (reduction) => {
      const fields = objectiveFields({ reduction });
      const nothing = policyLossReference(batch({ completionMask: [0, 0, 0, 0] }), fields);
      expect(nothing.loss).toBe(0);
      expect(Array.from(nothing.gradient.logProbs)).toEqual([0, 0, 0, 0]);
      expect(Object.values(nothing.stats).every(Number.isFinite)).toBe(true);
      expect(nothing.stats).not.toHaveProperty("ratioMean");
      const none = { student: { logProbs: [] }, tokenIds: [], cuSeqlens: [0], advantages: [] };
      expect(policyLossReference(none, fields)).toMatchObject({ loss: 0, stats: { tokens: 0, sequences: 0 } });
    },
  );

  it("reads advantages by sequence when B equals N, else by token when there are N", () => {
    const two = { student: { logProbs: [-1, -2] }, cuSeqlens: [0, 0, 2], advantages: [3, -5] };
    expect(gradient(two, { reduction: "token-sum" })).toEqual([5, 5]);
    const three = { student: { logProbs: [-1, -2, -3] }, cuSeqlens: [0, 2, 3, 3], advantages: [1, 5, 7] };
    expect(gradient(three, { reduction: "token-sum" })).toEqual([-1, -1, -5]);
    expect(gradient({ advantages: [1, 2, 3, 4] }, { reduction: "token-sum" })).toEqual([-1, -2, -3, -4]);
  });

  it.each([
    ["a NaN log-prob", { student: { logProbs: [-1, NaNs, -0.5, -1.5] } }],
    ["a log-prob of -inf", { student: { logProbs: [-1, -INF, -0.5, -1.5] } }],
    ["a NaN old log-prob", { oldLogProbs: [-1, NaNs, -0.5, -1.5] }],
    ["an infinite reference log-prob", { refLogProbs: [-1, -INF, -0.5, -1.5] }],
    ["a NaN sampler log-prob", { samplerLogProbs: [-1, NaNs, -0.5, -1.5] }],
  ] as [string, Partial<ReferenceBatch>][])(
    "leaves out a row with %s, its divisor and its neighbours as they were",
    (_, more) => {
      for (const objective of ["ppo-clip", "gspo", "gmpo"] as const) {
        const fields = { objective, creditMix: 1, normalize: "sequence" } as const;
        const teacher = { logProbs: [-0.9, -0.9, -0.5, -1.5] };
        const got = policyLossReference(batch({ teacher, ...more }), objectiveFields(fields));
        expect(Array.from(got.gradient.logProbs)).toEqual([-1 / 4, 0, 2 / 4, 2 / 4]);
        expect(got.loss).toBeCloseTo(3 / 4, 15);
        expect(got.tokenAdvantages[1]).toBe(0);
        expect(got.evidenceWeights[1]).toBe(1);
        expect(got.stats).toMatchObject({ tokens: 4, nonFiniteRows: 1, nanTeacherRows: 0 });
      }
    },
  );

  it("takes the branch of autograd on the clip's boundary, beyond it, and at A = 0", () => {
    const at = (logRatio: number, advantages: number[], fields: Partial<ObjectiveFields> = {}): number =>
      gradient(
        { student: { logProbs: [-1] }, oldLogProbs: [-1 - logRatio], cuSeqlens: [0, 1], advantages },
        { reduction: "token-sum", ...fields },
      )[0];
    const high = Math.log(1 + 0.5);
    expect(at(high, [1], { clipHigh: 0.5 })).toBeCloseTo(-1.5, 14);
    expect(at(Math.log(1 - 0.5), [-1], { clipLow: 0.5 })).toBeCloseTo(0.5, 14);
    expect(at(high + 1e-9, [1], { clipHigh: 0.5 })).toBeCloseTo(0, 14);
    expect(at(high + 1e-9, [-1], { clipHigh: 0.5 })).toBeCloseTo(1.5, 8);
    expect(at(0, [0])).toBeCloseTo(0, 15);
    expect(at(0, [-0])).toBeCloseTo(0, 15);
    expect(at(Math.log(2.9), [-1], { dualClip: 3 })).toBeCloseTo(2.9, 14);
    expect(at(Math.log(3.1), [-1], { dualClip: 3 })).toBe(0);
    expect(at(0, [-1], { dualClip: 1 })).toBe(0.5);
    expect(at(20, [-1])).toBeCloseTo(Math.exp(20), 4);
    expect(at(21, [-1])).toBe(0);
    expect(at(-5, [-1], { clipLow: 2 })).toBeCloseTo(Math.exp(-5), 14);
    expect(at(9, [-1], { objective: "gspo" })).toBeCloseTo(Math.exp(9), 9);
    expect(at(11, [-1], { objective: "gspo" })).toBe(0);
    expect(at(19, [-1], { objective: "gmpo" })).toBeCloseTo(Math.exp(19), 4);
    expect(at(21, [-1], { objective: "gmpo" })).toBeCloseTo(0, 15);
  });

  it("bounds only the unclipped branch by ratioBound", () => {
    const bounded = (logRatio: number, advantage: number): number =>
      policyLossReference(
        {
          student: { logProbs: [-1] },
          tokenIds: [0],
          cuSeqlens: [0, 1],
          oldLogProbs: [-1 - logRatio],
          advantages: [advantage],
        },
        objectiveFields({ ratioBound: 4 }),
      ).loss;
    expect(bounded(Math.log(8), -1)).toBe(4);
    expect(bounded(Math.log(3), -1)).toBeCloseTo(3, 14);
    expect(bounded(Math.log(8), 1)).toBeCloseTo(-1.2, 14);
  });

  it("reports what was clipped, by side", () => {
    const more = { oldLogProbs: [-2, -2, -1.5, -0.5] };
    const { stats } = policyLossReference(batch(more), objectiveFields({ dualClip: 2 }));
    expect(stats).toMatchObject({ ratioClippedHigh: 1 / 4, ratioClippedLow: 1 / 4, dualClipped: 1 / 4 });
    expect(stats.ratioMean).toBeCloseTo((Math.E + 1 + Math.E + Math.exp(-1)) / 4, 14);
    expect([stats.advantageMean, stats.advantageAbsMean]).toEqual([-0.5, 1.5]);
  });

  it("counts nothing as clipped on a bound itself", () => {
    const onBounds = {
      student: { logProbs: [0, 0, 0, 0] },
      advantages: [1, -1, -1, 1],
      oldLogProbs: [-Math.log(1.5), -Math.log(0.5), 0, 0],
    };
    const { stats } = policyLossReference(
      batch(onBounds),
      objectiveFields({ clipLow: 0.5, clipHigh: 0.5, dualClip: 1 }),
    );
    expect(stats).toMatchObject({ ratioClippedHigh: 0, ratioClippedLow: 0, dualClipped: 0 });
  });

  it.each([
    ["k1", 10, [-0.5, 2, -30, 30], [1, 1, 1, 1]],
    ["k2", 10, [0.125, 2, 450, 450], [-0.5, 2, -30, 30]],
    ["abs", 10, [0.5, 2, 30, 30], [-1, 1, -1, 1]],
    ["k3", 10, [Math.exp(0.5) - 1.5, Math.exp(-2) + 1, 10, 10], [1 - Math.exp(0.5), 1 - Math.exp(-2), 0, 0]],
    [
      "k3",
      1000,
      [Math.exp(0.5) - 1.5, Math.exp(-2) + 1, 1000, Math.exp(-20) + 19],
      [1 - Math.exp(0.5), 1 - Math.exp(-2), 0, 0],
    ],
    [
      "k3",
      null,
      [Math.exp(0.5) - 1.5, Math.exp(-2) + 1, Math.exp(30) - 31, Math.exp(-30) + 29],
      [1 - Math.exp(0.5), 1 - Math.exp(-2), 1 - Math.exp(30), 1 - Math.exp(-30)],
    ],
  ] as const)("estimates KL by %s, clamp %s", (klEstimator, klClamp, values, slopes) => {
    [0.5, -2, 30, -30].forEach((d, i) => {
      const one = { student: { logProbs: [-1] }, refLogProbs: [-1 + d], cuSeqlens: [0, 1], advantages: [0] };
      const { stats, gradient, loss } = policyLossReference(
        batch(one),
        objectiveFields({ klEstimator, klClamp, klCoef: 0.5 }),
      );
      expect(stats.klMean! / values[i]).toBeCloseTo(1, 13);
      expect(loss).toBe(0.5 * stats.klMean!);
      expect(gradient.logProbs[0] - 0.5 * slopes[i]).toBeCloseTo(0, slopes[i] < -1e6 ? 1 : 12);
    });
  });

  it.each([
    ["none", [1, 1, 1, 1]],
    ["token-truncate", [0.5, 2, 1, 2]],
    ["token-mask", [0, 0, 1, 2]],
    ["sequence-truncate", [0.75, 0.75, 2, 2]],
    ["sequence-mask", [0.75, 0.75, 2, 2]],
  ] as const)("corrects for the sampler by %s", (importanceCorrection, weights) => {
    const ratios = [0.25, 3, 1, 2];
    const logProbs = [-2, -2, -2, -2];
    const more = { student: { logProbs }, samplerLogProbs: ratios.map((ratio) => -2 - Math.log(ratio)) };
    const fields = {
      importanceCorrection,
      importanceMin: 0.5,
      importanceMax: 2 + 1e-9,
      reduction: "token-sum",
    } as const;
    const expected = [-1, -1, 2, 2].map((g, i) => g * weights[i]);
    const got = gradient(more, fields);
    for (const [i, g] of expected.entries()) expect(got[i]).toBeCloseTo(g, 8);
    const outside = { importanceCorrection, importanceMin: 0.8, importanceMax: 1.9 } as const;
    const beyond = gradient(more, { ...fields, ...outside });
    if (importanceCorrection === "sequence-mask") expect(beyond.map(Math.abs)).toEqual([0, 0, 0, 0]);
    if (importanceCorrection === "sequence-truncate") expect(beyond).toEqual([-0.8, -0.8, 3.8, 3.8]);
  });

  it("takes coefficients for gradients, credited against their sign", () => {
    const more = { advantages: [0.5, -0.25, 0, 1], teacher: { logProbs: [0, 0, 0, 0] }, refLogProbs: [-9, -9, -9, -9] };
    const fields = { objective: "row-coefficient", creditMix: 1, klCoef: 3 } as const;
    const got = policyLossReference(batch(more), objectiveFields(fields));
    expect(Array.from(got.gradient.logProbs)).toEqual([0.5 * 0.8, -0.25 * 1.2, 0, 0.8]);
    expect(got.loss).toBeCloseTo(0.4 * -1 + -0.3 * -2 + 0.8 * -1.5, 14);
    expect(Array.from(got.tokenAdvantages)).toEqual(Array.from(got.gradient.logProbs));
    expect(got.stats).not.toHaveProperty("ratioMean");
    expect(got.stats).not.toHaveProperty("klMean");
  });
});
