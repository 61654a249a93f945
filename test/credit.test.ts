import fc from "fast-check";
import { type CreditOptions, grpo, gspo, policyLossSync, RlsdError, rlsd, rlsdCredit } from "../lib/index.js";
import { creditReference } from "../lib/reference/credit.js";
import { batches, poisonBatch, runs } from "./support/batches.js";
import { objectiveFields } from "./support/fields.js";
import { loadVector, poisoned, relativeError, unmasked, vectorNames } from "./support/vectors.js";

const f32 = (...values: number[]): Float32Array => Float32Array.from(values);
const one = (delta: number, a: number, options: CreditOptions = {}) => {
  const r = rlsdCredit(
    { logProbs: f32(-5), teacherLogProbs: f32(-5 + delta), advantages: f32(a), cuSeqlens: Int32Array.of(0, 1) },
    options,
  );
  return { a: r.tokenAdvantages[0]!, c: r.evidenceWeights[0]!, stats: r.stats };
};
const near = (x: number): number => Math.fround(x);

beforeAll(() => {
  jest.spyOn(process, "emitWarning").mockImplementation(() => undefined);
});

describe.each(vectorNames)("rlsdCredit against the official code, %s, masked entries poisoned", (name) => {
  const vector = poisoned(loadVector(name));
  const { expected, fields, completionMask: mask } = vector;

  it("gives its token advantages", () => {
    const poison = (values: Float64Array) => Float32Array.from(values, (x, i) => (mask[i] === 1 ? x : Number.NaN));
    const got = rlsdCredit(
      {
        logProbs: poison(expected.logProbs),
        teacherLogProbs: poison(expected.teacherLogProbs),
        advantages: Float32Array.from(expected.advantages),
        cuSeqlens: vector.cuSeqlens,
        completionMask: mask,
        spanMask: vector.spanMask,
      },
      { creditMix: fields.creditMix, evidenceClip: fields.evidenceClip, negativeOnly: fields.negativeOnly },
    );
    expect(relativeError(got.tokenAdvantages, unmasked(expected.tokenAdvantages, mask))).toBeLessThan(2e-5);
    expect(relativeError([got.stats.deltaMean!], [expected.metrics.delta_mean!], 1e-2)).toBeLessThan(2e-5);
  });
});

describe("rlsdCredit", () => {
  const options = fc.record({
    creditMix: fc.constantFrom(0, 0.5, 1),
    evidenceClip: fc.constantFrom(0, 0.2, 0.9, 1, 2),
    negativeOnly: fc.boolean(),
    clipMode: fc.constantFrom("symmetric", "pessimistic"),
    normalize: fc.constantFrom("none", "sequence"),
  } as const);

  it("equals the reference within float32 rounding, and policyLoss's own credit bit for bit", () => {
    fc.assert(
      fc.property(batches, options, (plain, o) => {
        const b = poisonBatch({ ...plain, teacherLogProbs: plain.teacherLogProbs ?? plain.logProbs.slice() });
        const { logProbs, contrastLogProbs, advantages, cuSeqlens, completionMask, spanMask } = b;
        const input = { logProbs, contrastLogProbs, advantages, cuSeqlens, completionMask, spanMask };
        const got = rlsdCredit({ ...input, teacherLogProbs: b.teacherLogProbs! }, o);
        const given = Object.entries(b).filter(([, value]) => value !== undefined);
        const expected = creditReference(Object.fromEntries(given) as never, objectiveFields(o));
        for (const key of ["tokenAdvantages", "evidenceWeights"] as const) {
          const largest = expected[key].reduce((most, x) => Math.max(most, Math.abs(x)), 1);
          for (const [i, x] of expected[key].entries()) {
            expect(Math.abs(got[key][i]! - x)).toBeLessThanOrEqual(2 ** -24 * Math.abs(x) + 1e-12 * largest);
          }
        }
        const loss = policyLossSync(
          {
            student: { logProbs },
            teacher: { logProbs: b.teacherLogProbs! },
            contrast: contrastLogProbs && { logProbs: contrastLogProbs },
            cuSeqlens,
            completionMask,
            spanMask,
            advantages,
          },
          rlsd(o),
        );
        expect(got.tokenAdvantages).toEqual(loss.tokenAdvantages);
        expect(got.evidenceWeights).toEqual(loss.evidenceWeights);
        for (const [name, value] of Object.entries(got.stats)) {
          expect([name, value]).toEqual([name, loss.stats[name as keyof typeof loss.stats]]);
        }
      }),
      runs(150),
    );
  });

  it("weighs by exp(sign(A) delta) between its bounds", () => {
    expect(one(0.1, 2)).toMatchObject({ c: near(Math.exp(near(-5 + 0.1) + 5)) });
    expect(one(0.125, 2, { creditMix: 1 }).a).toBe(near(2 * Math.exp(0.125)));
    expect(one(0.125, -2, { creditMix: 1 }).a).toBe(near(-2 * Math.exp(-0.125)));
    expect(one(0.125, 2, { creditMix: 0.25 }).a).toBe(near(2 * (0.75 + 0.25 * Math.exp(0.125))));
    expect(one(0.125, 2, { creditMix: 0 }).a).toBe(2);
  });

  it("is exactly 1 +- evidenceClip beyond them, also where exp overflows", () => {
    for (const delta of [0.25, 4, 1e6, 3e38]) {
      expect(one(delta, 1).c).toBe(near(1.2));
      expect(one(delta, -1).c).toBe(near(0.8));
      expect(one(-delta, 1).c).toBe(near(0.8));
      expect(one(-delta, -1).c).toBe(near(1.2));
    }
    expect(one(Number.POSITIVE_INFINITY, 1)).toMatchObject({ c: 1, a: 1 }); // a log-prob of +inf is no evidence
    expect(one(Number.NEGATIVE_INFINITY, 1).c).toBe(near(0.8));
    expect(one(Number.NEGATIVE_INFINITY, -1).c).toBe(near(1.2));
  });

  it("leaves the means of what is not clipped infinite where the teacher rules a token out, and nothing else", () => {
    const batch = { cuSeqlens: Int32Array.of(0, 2), advantages: f32(-1) };
    const [student, teacher] = [{ logProbs: f32(-1, -1) }, { logProbs: f32(Number.NEGATIVE_INFINITY, -0.875) }];
    const { loss, gradient, stats } = policyLossSync({ ...batch, student, teacher }, rlsd({ creditMix: 1 }));
    const { deltaMean, evidenceWeightMean, clippedWeightMean, evidenceClippedHigh, nanTeacherRows } = stats;
    expect([deltaMean, evidenceWeightMean]).toEqual([Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]);
    expect([loss, clippedWeightMean].map(Number.isFinite)).toEqual([true, true]);
    expect([...gradient.logProbs]).toEqual([near(0.6), near(Math.exp(-0.125) / 2)]);
    expect([evidenceClippedHigh, nanTeacherRows]).toEqual([0.5, 0]);
  });

  it("takes the credit of an objective, whatever its surrogate", () => {
    const input = {
      logProbs: f32(-1, -1, -2),
      teacherLogProbs: f32(-0.5, -2, -1.5),
      advantages: f32(1, -1),
      cuSeqlens: Int32Array.of(0, 1, 3),
    };
    const fields = { creditMix: 0.75, evidenceClip: 0.4, negativeOnly: true, normalize: "sequence" } as const;
    const expected = rlsdCredit(input, fields);
    expect(rlsdCredit(input, rlsd(fields, gspo({ clipHigh: 0.1, klCoef: 0.5 })))).toEqual(expected);
    expect(rlsdCredit(input, grpo()).tokenAdvantages).toEqual(f32(1, -1, -1)); // which has none
    expect(expected.tokenAdvantages).not.toEqual(f32(1, -1, -1));
  });

  it("clips one side only under pessimistic, its exponent within +-20", () => {
    const pessimistic = { clipMode: "pessimistic", creditMix: 1 } as const;
    expect(one(4, 1, pessimistic).a).toBe(near(1.2));
    expect(one(-4, 1, pessimistic).a).toBe(near(Math.exp(-4)));
    expect(one(-100, 1, pessimistic).a).toBe(near(Math.exp(-20)));
    expect(one(4, -1, pessimistic).a).toBe(near(-0.8));
    expect(one(-4, -1, pessimistic).a).toBe(near(-Math.exp(4)));
    expect(one(-100, -1, pessimistic).a).toBe(near(-Math.exp(20)));
  });

  it("conserves a sequence's total credit under normalize", () => {
    const input = {
      logProbs: f32(-1, -2, -3, -1),
      teacherLogProbs: f32(-1.1, -1.9, -3, -9),
      advantages: f32(1.5),
      cuSeqlens: Int32Array.of(0, 4),
      completionMask: Uint8Array.of(1, 1, 1, 0),
    };
    const { tokenAdvantages } = rlsdCredit(input, { normalize: "sequence", creditMix: 1 });
    expect((tokenAdvantages[0]! + tokenAdvantages[1]! + tokenAdvantages[2]!) / 3).toBeCloseTo(1.5, 6);
    expect(tokenAdvantages[1]).toBeGreaterThan(tokenAdvantages[0]!);
    expect(tokenAdvantages[3]).toBe(0);
  });

  it("credits by the sign of the sum under negativeOnly with advantages a token", () => {
    const input = {
      logProbs: f32(-1, -1, -1, -1),
      teacherLogProbs: f32(-0.5, -0.5, -0.5, -0.5),
      advantages: f32(-3, 1, 3, -1),
      cuSeqlens: Int32Array.of(0, 2, 4),
    };
    const { tokenAdvantages } = rlsdCredit(input, { negativeOnly: true, creditMix: 1 });
    expect([...tokenAdvantages]).toEqual([near(-3 * 0.8), near(1.2), 3, -1]);
  });

  it("credits inside the span only", () => {
    const { tokenAdvantages, evidenceWeights } = rlsdCredit(
      {
        logProbs: f32(-1, -1),
        teacherLogProbs: f32(0, 0),
        advantages: f32(1),
        cuSeqlens: Int32Array.of(0, 2),
        spanMask: Uint8Array.of(0, 1),
      },
      { creditMix: 1 },
    );
    expect([...tokenAdvantages]).toEqual([1, near(1.2)]);
    expect([...evidenceWeights]).toEqual([near(1.2), near(1.2)]);
  });

  it("keeps rho = 1 and counts where the evidence cannot be measured", () => {
    const { NaN: nan, NEGATIVE_INFINITY: minus } = Number;
    const r = rlsdCredit(
      {
        logProbs: f32(-1, minus, minus, nan, -1),
        teacherLogProbs: f32(nan, minus, -1, -1, -0.9),
        advantages: f32(2),
        cuSeqlens: Int32Array.of(0, 5),
      },
      { creditMix: 1 },
    );
    expect([...r.tokenAdvantages.subarray(0, 4)]).toEqual([2, 2, near(2.4), 2]);
    expect([...r.evidenceWeights.subarray(0, 4)]).toEqual([1, 1, near(1.2), 1]);
    expect(r.stats).toMatchObject({ tokens: 5, nanTeacherRows: 3, nonFiniteRows: 0 });
    expect("loss" in r.stats).toBe(false);
  });

  it.each([
    [{ logProbs: [1] }, {}, "logProbs"],
    [{ logProbs: undefined }, {}, "logProbs"],
    [{ teacherLogProbs: undefined }, {}, "teacherLogProbs"],
    [{ teacherLogProbs: f32(1, 2, 3) }, {}, "teacherLogProbs"],
    [{ contrastLogProbs: f32(1) }, {}, "contrast"],
    [{ advantages: f32(1, 2, 3) }, {}, "advantages"],
    [{ advantages: f32(Number.NaN) }, {}, "advantages\\[0\\]"],
    [{ cuSeqlens: Int32Array.of(0, 3) }, {}, "cuSeqlens"],
    [{ completionMask: Uint8Array.of(1, 2) }, {}, "completionMask\\[1\\]"],
    [{ spanMask: Uint8Array.of(3, 1) }, {}, "spanMask\\[0\\]"],
    [{ teacherLogprobs: f32(1, 1) }, {}, "Did you mean teacherLogProbs"],
    [{}, { creditMix: 2 }, "creditMix"],
    [{}, { clipLow: 0.1 }, "clipLow"],
  ])("names what is wrong: %j %j", (change, o, name) => {
    const input = {
      logProbs: f32(-1, -1),
      teacherLogProbs: f32(-1, -1),
      advantages: f32(1),
      cuSeqlens: Int32Array.of(0, 2),
    };
    const call = () => rlsdCredit({ ...input, ...change } as never, o as never);
    expect(call).toThrow(RlsdError);
    expect(call).toThrow(new RegExp(name));
  });
});
