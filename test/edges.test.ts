import { readdirSync } from "node:fs";
import { join } from "node:path";
import {
  cispo,
  gmpo,
  grpo,
  gspo,
  type ObjectiveOptions,
  type PolicyBatch,
  type PolicyResult,
  policyLoss,
  policyLossSync,
  RlsdError,
  rlsd,
  rowCoefficient,
  sapo,
} from "../lib/index.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";

const f32 = (...values: number[]): Float32Array => Float32Array.from(values);
const near = Math.fround;
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** One token with a log-ratio and an advantage: its loss and slope. The reduction's weight is 1. */
function token(x: number, a: number, options: ObjectiveOptions = {}, make = grpo) {
  const result = policyLossSync(
    {
      student: { logProbs: f32(-2 + x) },
      oldLogProbs: f32(-2),
      cuSeqlens: Int32Array.of(0, 1),
      advantages: f32(a),
    },
    make({ reduction: "token-sum", ...options }),
  );
  return { loss: result.loss, slope: result.gradient.logProbs[0]!, stats: result.stats };
}

/** A log-ratio of which float32 keeps every bit: -2 + x and -2 differ by x exactly. */
const X = 0.25;
const R = Math.exp(X);

const batchOf = (n: number, cuSeqlens: number[], more: Partial<PolicyBatch> = {}): PolicyBatch => ({
  student: { logProbs: new Float32Array(n).fill(-1) },
  teacher: { logProbs: new Float32Array(n).fill(-0.5) },
  oldLogProbs: new Float32Array(n).fill(-1.1),
  refLogProbs: new Float32Array(n).fill(-1.3),
  cuSeqlens: Int32Array.from(cuSeqlens),
  advantages: new Float32Array(cuSeqlens.length - 1).fill(1),
  ...more,
});

function expectNothing(r: PolicyResult, n: number): void {
  expect(Object.is(r.loss, 0)).toBe(true);
  expect([...r.gradient.logProbs]).toEqual(new Array(n).fill(0));
  for (const value of Object.values(r.stats)) expect(value).not.toBeNaN();
}

const objectives = [
  grpo(),
  rlsd({ klCoef: 0.1, normalize: "sequence" }),
  gspo(),
  gmpo(),
  sapo(),
  cispo(),
  rlsd({}, gmpo()),
];

describe("1. a masked token", () => {
  it("may hold anything and gives exactly +0 everywhere", () => {
    for (const objective of [...objectives, grpo({ importanceCorrection: "sequence-mask" })]) {
      const poison = f32(nan, -1, inf, -1);
      const r = policyLossSync(
        {
          student: { logProbs: poison },
          teacher: { logProbs: f32(-inf, -1.5, inf, nan).map((x, i) => (i === 3 ? -1 : x)) },
          oldLogProbs: poison,
          refLogProbs: poison,
          samplerLogProbs: poison,
          tokenIds: Int32Array.of(2147483647, 5, -2147483648, 0),
          completionMask: Uint8Array.of(0, 1, 0, 1),
          cuSeqlens: Int32Array.of(0, 2, 4),
          advantages: f32(1, -1),
        },
        objective,
      );
      const results = [r.logProbs, r.teacherLogProbs!, r.tokenAdvantages, r.evidenceWeights!, r.gradient.logProbs];
      for (const values of results) expect([Object.is(values[0], 0), Object.is(values[2], 0)]).toEqual([true, true]);
      expect(Number.isFinite(r.loss)).toBe(true);
      expect(r.stats.tokens).toBe(2);
    }
  });

  it("may have an advantage of NaN when every token of its sequence is masked", () => {
    const r = policyLossSync(
      batchOf(2, [0, 1, 2], { advantages: f32(nan, 1), completionMask: Uint8Array.of(0, 1) }),
      grpo(),
    );
    expect(r.tokenAdvantages[0]).toBe(0);
  });
});

describe("2. values are checked before anything is written", () => {
  const cases: [string, Partial<PolicyBatch>, RegExp][] = [
    ["cuSeqlens from 1", { cuSeqlens: Int32Array.of(1, 2, 4) }, /cuSeqlens\[0\] to be 0 but received 1/],
    ["cuSeqlens that falls", { cuSeqlens: Int32Array.of(0, 5, 4) }, /cuSeqlens\[2\] is 4, after 5/],
    ["negative cuSeqlens", { cuSeqlens: Int32Array.of(0, -1, 4) }, /cuSeqlens\[1\] is -1, after 0/],
    ["cuSeqlens that ends early", { cuSeqlens: Int32Array.of(0, 1, 3) }, /end at N = 4 but it ends at 3/],
    ["cuSeqlens that ends late", { cuSeqlens: Int32Array.of(0, 1, 2147483647) }, /it ends at 2147483647/],
    ["a mask of 2", { completionMask: Uint8Array.of(1, 0, 2, 1) }, /completionMask\[2\] is 2/],
    ["a span of 255", { spanMask: Uint8Array.of(1, 0, 1, 255) }, /spanMask\[3\] is 255/],
    ["an advantage of NaN", { advantages: f32(0, nan) }, /advantages\[1\] is -?nan/],
    ["an infinite advantage", { advantages: f32(0, 1, inf, 0) }, /advantages\[2\] is inf/],
  ];

  it.each(cases)("%s", async (_, change, words) => {
    const fresh = () => new Float32Array(4).fill(7);
    const out = {
      logProbs: fresh(),
      teacherLogProbs: fresh(),
      tokenAdvantages: fresh(),
      evidenceWeights: fresh(),
      gradientLogProbs: fresh(),
    };
    const batch = batchOf(4, [0, 2, 4], change);
    expect(() => policyLossSync(batch, grpo(), { out })).toThrow(words);
    await expect(policyLoss(batch, grpo(), { out })).rejects.toThrow(words);
    await expect(policyLoss(batch, grpo(), { out })).rejects.toMatchObject({
      name: "RlsdError",
      code: "ERR_RLSD_INVALID_ARGUMENT",
      index: expect.any(Number),
    });
    for (const values of Object.values(out)) expect(values).toEqual(fresh());
  });
});

describe("3. a bad row", () => {
  const bad = (objective = grpo()) => ({
    batch: batchOf(4, [0, 4], { student: { logProbs: f32(-1, nan, -1, -inf) } }),
    objective,
  });

  it("leaves the loss, then fails the call with its first token and the count", async () => {
    const { batch, objective } = bad();
    const out = { gradientLogProbs: new Float32Array(4).fill(7) };
    let error: unknown;
    try {
      policyLossSync(batch, objective, { out });
    } catch (e) {
      error = e;
    }
    expect(error).toBeInstanceOf(RlsdError);
    expect(error).toMatchObject({ code: "ERR_RLSD_NON_FINITE", index: 1, count: 2 });
    const skipped = policyLossSync(batch, grpo({ nonFinite: "skip" }));
    expect(out.gradientLogProbs).toEqual(skipped.gradient.logProbs);
    await expect(policyLoss(batch, objective)).rejects.toMatchObject({
      code: "ERR_RLSD_NON_FINITE",
      index: 1,
      count: 2,
    });
  });

  it("is counted under skip, has gradient 0 and stays in the divisor", () => {
    const { batch } = bad();
    const r = policyLossSync(batch, grpo({ nonFinite: "skip", klCoef: 0 }));
    expect([...r.gradient.logProbs].map((g) => g === 0)).toEqual([false, true, false, true]);
    expect(r.stats).toMatchObject({ nonFiniteRows: 2, tokens: 4 });
    expect(r.loss).toBeCloseTo((2 / 4) * -Math.min(Math.exp(near(-1) - near(-1.1)), 1.2), 6);
  });
});

describe("3. evidence", () => {
  const credit = (teacher: number, student = -5, a = 1) => {
    const r = policyLossSync(
      {
        student: { logProbs: f32(student) },
        teacher: { logProbs: f32(teacher) },
        cuSeqlens: Int32Array.of(0, 1),
        advantages: f32(a),
      },
      rlsd({ creditMix: 1 }),
    );
    return [r.tokenAdvantages[0], r.evidenceWeights![0], r.stats.nanTeacherRows];
  };

  it("that overflows exp is clipped to exactly the bound", () => {
    expect(credit(3e38, -3e38)).toEqual([near(1.2), near(1.2), 0]);
    expect(credit(3e38, -3e38, -1)).toEqual([near(-0.8), near(0.8), 0]);
    expect(credit(-inf)).toEqual([near(0.8), near(0.8), 0]);
  });

  it("of a NaN or +inf teacher is none: rho is 1 and it is counted", () => {
    expect(credit(nan)).toEqual([1, 1, 1]);
    expect(credit(inf)).toEqual([1, 1, 1]);
  });

  it("of a contrast with both at -inf is none", () => {
    const r = policyLossSync(
      {
        student: { logProbs: f32(-1) },
        teacher: { logProbs: f32(-inf) },
        contrast: { logProbs: f32(-inf) },
        cuSeqlens: Int32Array.of(0, 1),
        advantages: f32(-1),
      },
      rlsd({ creditMix: 1 }),
    );
    expect([r.tokenAdvantages[0], r.evidenceWeights![0], r.stats.nanTeacherRows]).toEqual([-1, 1, 1]);
  });

  it("against a NaN or +inf contrast is none, in the kernel and in the reference", () => {
    for (const contrast of [nan, inf]) {
      const views = {
        student: { logProbs: f32(-1) },
        teacher: { logProbs: f32(-2) },
        contrast: { logProbs: f32(contrast) },
      };
      const batch = { ...views, tokenIds: new Int32Array(1), cuSeqlens: Int32Array.of(0, 1), advantages: f32(1) };
      for (const loss of [policyLossSync, policyLossReference]) {
        const r = loss(batch, rlsd({ creditMix: 1 }));
        expect([r.tokenAdvantages[0], r.evidenceWeights?.[0], r.stats.nanTeacherRows]).toEqual([1, 1, 1]);
      }
    }
  });
});

describe("4. a teacher equal to the student", () => {
  it("weighs exactly 1, so that the credit changes no bit", () => {
    const logProbs = Float32Array.from({ length: 300 }, (_, i) => -((i * 0.37) % 11) - 1e-3);
    const batch: PolicyBatch = {
      student: { logProbs },
      oldLogProbs: logProbs.map((x, i) => x + ((i % 7) - 3) / 10),
      cuSeqlens: Int32Array.of(0, 100, 300),
      advantages: f32(0.3, -1.7),
    };
    for (const base of [grpo(), gspo(), gmpo(), sapo()]) {
      for (const options of [{ creditMix: 1 }, { normalize: "sequence" }, { clipMode: "pessimistic" }] as const) {
        const with_ = policyLossSync({ ...batch, teacher: { logProbs: logProbs.slice() } }, rlsd(options, base));
        const without = policyLossSync(batch, base);
        expect(with_.evidenceWeights).toEqual(new Float32Array(300).fill(1));
        expect(with_.gradient.logProbs).toEqual(without.gradient.logProbs);
        expect([with_.loss, with_.stats.evidenceWeightMean]).toEqual([without.loss, 1]);
      }
    }
  });
});

describe("6. nothing to learn from", () => {
  it.each([
    ["no sequence", 0, [0]],
    ["sequences without tokens", 0, [0, 0, 0]],
    ["every token masked", 4, [0, 2, 4]],
  ])("%s: loss 0, gradient 0, no NaN", async (_, n, cuSeqlens) => {
    const batch = batchOf(n, cuSeqlens, { completionMask: new Uint8Array(n) });
    for (const objective of objectives) {
      expectNothing(policyLossSync(batch, objective), n);
      expectNothing(await policyLoss(batch, objective), n);
    }
    const { klMean, ratioMean, deltaMean, tokens } = policyLossSync(batch, grpo({ klCoef: 1 })).stats;
    expect([klMean, ratioMean, deltaMean, tokens]).toEqual([undefined, undefined, undefined, 0]);
  });

  it("an empty sequence counts in sequence-mean and adds 0", () => {
    const alone = policyLossSync(batchOf(3, [0, 3]), grpo());
    const beside = policyLossSync(batchOf(3, [0, 0, 3, 3]), grpo());
    expect(beside.loss).toBeCloseTo(alone.loss / 3, 12);
  });

  it("a wholly masked sequence counts in sequence-mean and adds 0", () => {
    const mask = Uint8Array.of(0, 0, 1, 1);
    const r = policyLossSync(batchOf(4, [0, 2, 4], { completionMask: mask }), grpo());
    expect(r.loss).toBeCloseTo(policyLossSync(batchOf(2, [0, 2]), grpo()).loss / 2, 12);
  });
});

// Autograd's branches (torch.clamp passes the gradient at its bounds, torch.min and torch.max halve it on a tie).
describe("8. on a boundary the branch is autograd's", () => {
  // clip() chosen so that log(1 + clipHigh) is the log-ratio itself, to the last bit.
  const high = Math.expm1(X);

  it("ratio on the upper bound, A > 0: a tie of two passing branches", () => {
    const { slope, stats } = token(X, 1, { clipHigh: high });
    expect(Math.log1p(high)).toBe(X);
    expect(slope).toBe(near(-R));
    expect(stats.ratioClippedHigh).toBe(0);
  });

  it("ratio just beyond the upper bound, A > 0: no gradient", () => {
    const { slope, stats } = token(X, 1, { clipHigh: high - 1e-9 });
    expect([slope, stats.ratioClippedHigh]).toEqual([0, 1]);
    expect(Object.is(token(X, -1, { clipHigh: high - 1e-9 }).slope, near(R))).toBe(true);
  });

  it("ratio on the lower bound, A < 0: the gradient passes; beyond it: none", () => {
    const low = -Math.expm1(-X);
    expect(Math.log1p(-low)).toBe(-X);
    expect(token(-X, -1, { clipLow: low }).slope).toBe(near(Math.exp(-X)));
    expect(token(-X, -1, { clipLow: low - 1e-9 }).slope).toBe(0);
    expect(token(-X, -1, { clipLow: low - 1e-9 }).stats.ratioClippedLow).toBe(1);
    expect(token(-X, 1, { clipLow: low - 1e-9 }).slope).toBe(near(-Math.exp(-X)));
  });

  it("ratio 1 with both clips 0: a tie, the whole gradient", () => {
    for (const a of [1, -1]) expect(token(0, a, { clipLow: 0, clipHigh: 0 }).slope).toBe(-a);
  });

  it("A = 0 and A = -0: no gradient, no clip, no loss", () => {
    for (const make of [grpo, gspo, sapo, gmpo, cispo]) {
      for (const a of [0, -0]) {
        const { loss, slope, stats } = token(2, a, {}, make);
        expect([loss + 0, slope + 0]).toEqual([0, 0]);
        expect((stats.ratioClippedHigh ?? 0) + (stats.ratioClippedLow ?? 0)).toBe(0);
      }
    }
  });

  it("dual clip: beyond it no gradient, on a tie half of it, below it all", () => {
    // A = -1, ratio e^2 beyond the dual clip of 3.
    expect(token(2, -1, { dualClip: 3 })).toMatchObject({ loss: 3, slope: 0, stats: { dualClipped: 1 } });
    const tie = token(X, -1, { dualClip: R });
    expect([tie.loss, tie.slope, tie.stats.dualClipped]).toEqual([R, near(R / 2), 0]);
    expect(token(X, -1, { dualClip: 1.3 })).toMatchObject({ slope: near(R), stats: { dualClipped: 0 } });
    expect(token(2, 1, { dualClip: 3 }).stats.dualClipped).toBe(0);
    expect(token(2, -1, { dualClip: null }).loss).toBe(Math.exp(2));
  });

  it("ratio on the ratio bound: the gradient passes; beyond it: none", () => {
    expect(token(X, -1, { ratioBound: R }).slope).toBe(near(R));
    expect(token(X, -1, { ratioBound: R - 1e-9 })).toMatchObject({ slope: 0 });
    expect(token(X, -1, { ratioBound: 1.25 }).loss).toBe(1.25);
  });

  it("log-ratio on its clamp of 20: the gradient passes; beyond it: none", () => {
    expect(token(20, -1).slope).toBe(near(Math.exp(20)));
    expect(token(20.5, -1)).toMatchObject({ loss: Math.exp(20), slope: 0 });
    expect(token(-20.5, 1).slope + 0).toBe(0);
    expect(token(10.5, -1, {}, gspo)).toMatchObject({ loss: Math.exp(10), slope: 0 });
  });

  it("cispo weighs by the clipped ratio and its gradient passes at and beyond the bounds", () => {
    expect(token(X, 1, { clipHigh: high }, cispo).slope).toBe(near(-R));
    expect(token(2, 1, { clipHigh: 0.28 }, cispo).slope).toBe(near(-1.28));
    expect(token(-2, 1, { clipLow: 1 }, cispo).slope).toBe(near(-Math.exp(-2)));
  });

  it("gmpo's ratio, where it multiplies the KL, does not move with a token that is cut, nor where A = 0", () => {
    const slope = (x: number, a: number, klImportanceCorrection: boolean) =>
      policyLossSync(
        {
          student: { logProbs: f32(-2 + x) },
          oldLogProbs: f32(-2),
          refLogProbs: f32(-2 + x + 0.5),
          cuSeqlens: Int32Array.of(0, 1),
          advantages: f32(a),
        },
        gmpo({ klCoef: 1, klEstimator: "k1", klImportanceCorrection, reduction: "token-sum", clipHigh: 0.5 }),
      ).gradient.logProbs[0]!;
    // k1 = -d = -0.5, its slope 1.
    const uncut = Math.exp(0.25);
    expect(slope(0.25, 1, true)).toBeCloseTo(-uncut + uncut * (1 - 0.5), 6);
    expect(slope(0.75, 1, true)).toBeCloseTo(Math.exp(0.5), 6);
    expect(slope(0.75, 0, true)).toBeCloseTo(1, 6);
    expect(slope(0.75, 1, false)).toBeCloseTo(1, 6);
  });

  it("gspo's ratio, where it multiplies the KL and where it is counted, is held as the surrogate holds it", () => {
    const fields = gspo({ klCoef: 1, klEstimator: "k1", klImportanceCorrection: true, reduction: "token-sum" });
    const at = (x: number) => {
      const batch = {
        student: { logProbs: f32(-2 + x) },
        oldLogProbs: f32(-2),
        refLogProbs: f32(-2 + x - 0.5),
        tokenIds: new Int32Array(1),
        cuSeqlens: Int32Array.of(0, 1),
        advantages: f32(0),
      };
      const results = [policyLossSync(batch, fields), policyLossReference(batch, fields)];
      return results.map((r) => [r.stats.ratioMean, r.stats.klMean, r.gradient.logProbs[0]]);
    };
    // k1 = -d = 0.5, its slope 1; as fractions of what they should be.
    const expectRatio = (x: number, ratio: number, moves: boolean): void => {
      for (const [mean, kl, slope] of at(x)) {
        const fractions = [mean! / ratio, kl! / (0.5 * ratio), slope! / (ratio * (moves ? 1.5 : 1))];
        for (const fraction of fractions) expect(fraction).toBeCloseTo(1, 6);
      }
    };
    expectRatio(0.5, Math.exp(0.5), true);
    expectRatio(-30, Math.exp(-30), true);
    expectRatio(12, Math.exp(10), false);
  });

  it("gmpo cuts the log-ratio at its own bounds, on the side of A", () => {
    expect(token(0.5, 1, { clipHigh: 0.5 }, gmpo).slope).toBe(near(-Math.exp(0.5)));
    expect(token(0.75, 1, { clipHigh: 0.5 }, gmpo)).toMatchObject({ loss: -Math.exp(0.5), slope: 0 });
    expect(token(0.75, -1, { clipHigh: 0.5 }, gmpo).slope).toBe(near(Math.exp(0.75)));
    expect(token(-0.75, -1, { clipLow: 0.5 }, gmpo)).toMatchObject({ loss: Math.exp(-0.5), slope: 0 });
  });

  it("sapo's gate has slope 1 at ratio 1 and its temperature by the sign of A", () => {
    expect(token(0, 2, {}, sapo).slope).toBe(-2);
    const tau = 1.05;
    const gate = 1 / (1 + Math.exp(-tau * (R - 1)));
    expect(token(X, -1, {}, sapo).slope).toBeCloseTo(4 * gate * (1 - gate) * R, 6);
  });
});

describe("KL of one token", () => {
  const kl = (d: number, options: ObjectiveOptions) => {
    const r = policyLossSync(
      {
        student: { logProbs: f32(-2) },
        refLogProbs: f32(-2 + d),
        cuSeqlens: Int32Array.of(0, 1),
        advantages: f32(0),
      },
      grpo({ klCoef: 2, ...options }),
    );
    return [r.loss, r.gradient.logProbs[0], r.stats.klMean];
  };

  it.each([
    ["k1", -0.5, 1],
    ["k2", 0.125, -0.5],
    ["k3", Math.exp(0.5) - 1.5, 1 - Math.exp(0.5)],
    ["abs", 0.5, -1],
  ] as const)("%s", (klEstimator, value, slope) => {
    expect(kl(0.5, { klEstimator })).toEqual([2 * value, near(2 * slope), value]);
  });

  it("k3 is clamped to klClamp with gradient 0 beyond it, and not at all when that is null", () => {
    expect(kl(4, {})).toEqual([20, 0, 10]);
    expect(kl(4, { klClamp: null })[2]).toBe(Math.exp(4) - 5);
    expect(kl(4, { klClamp: null })[1]).toBe(near(2 * (1 - Math.exp(4))));
  });

  it("abs at a difference of 0 has gradient 0", () => {
    expect(kl(0, { klEstimator: "abs" }).map((x) => x! + 0)).toEqual([0, 0, 0]);
  });

  it("that overflows where klCoef is 0 leaves the loss alone", () => {
    const r = policyLossSync(
      {
        student: { logProbs: f32(-1000) },
        refLogProbs: f32(0),
        cuSeqlens: Int32Array.of(0, 1),
        advantages: f32(1),
      },
      grpo({ klClamp: null }),
    );
    expect([r.loss, r.gradient.logProbs[0]]).toEqual([-1, -1]);
  });
});

describe("importance correction of one token", () => {
  const corrected = (difference: number, options: ObjectiveOptions) =>
    policyLossSync(
      {
        student: { logProbs: f32(-2, -2) },
        oldLogProbs: f32(-2, -2),
        samplerLogProbs: f32(-2 - difference, -2),
        cuSeqlens: Int32Array.of(0, 2),
        advantages: f32(-1),
      },
      grpo({ reduction: "token-sum", ...options }),
    ).gradient.logProbs[0];

  it("truncates to 3 by tokens as the presets do", () => {
    expect(corrected(0.5, {})).toBe(near(Math.exp(0.5)));
    expect(corrected(2, {})).toBe(3);
  });

  it.each([
    ["token-truncate", 2, 1.5],
    ["token-truncate", -2, 0.5],
    ["token-mask", 2, 0],
    ["token-mask", -2, 0],
    ["token-mask", 0.25, Math.exp(0.25)],
    ["sequence-truncate", 2, 1.5],
    ["sequence-mask", 2, 0],
    ["none", 2, 1],
  ] as const)("%s of log-ratio %d weighs %d", (importanceCorrection, difference, weight) => {
    expect(corrected(difference, { importanceCorrection, importanceMin: 0.5, importanceMax: 1.5 })).toBe(near(weight));
  });
});

describe("row-coefficient", () => {
  it("gives its coefficients back as the gradient, credited by the sign they stand for", () => {
    const r = policyLossSync(
      {
        student: { logProbs: f32(-1, -1) },
        teacher: { logProbs: f32(0, 0) },
        cuSeqlens: Int32Array.of(0, 2),
        advantages: f32(0.5, -0.5),
      },
      rlsd({ creditMix: 1 }, rowCoefficient()),
      { lossScale: 2 },
    );
    // dL/dlogP > 0 pushes the token down, as a negative advantage does: the teacher's approval takes from it.
    expect([...r.gradient.logProbs]).toEqual([near(0.8), near(-1.2)]);
    expect(r.loss).toBeCloseTo(-0.4 + 0.6, 6);
  });

  it("has a coefficient for each token also where there are as many sequences as tokens", () => {
    const coefficients = f32(0.5, -0.25, 2);
    const batch = { student: { logProbs: f32(-1, -2, -3) }, cuSeqlens: Int32Array.of(0, 0, 1, 3) };
    const r = policyLossSync({ ...batch, advantages: coefficients }, rowCoefficient());
    expect(r.gradient.logProbs).toEqual(coefficients);
  });
});

describe("the fixtures", () => {
  it("are all read: none was left out of the tests", () => {
    expect(readdirSync(join(__dirname, "fixtures/vectors")).filter((f) => f.endsWith(".json"))).toHaveLength(24);
  });
});
