import { type CreditInput, creditReference } from "../lib/reference/credit.js";
import { objectiveFields } from "./support/fields.js";
import { seededRandom } from "./support/random.js";

const NaNs = Number.NaN;
const INF = Number.POSITIVE_INFINITY;

describe("the credit", () => {
  const fields = objectiveFields({ creditMix: 0.5, evidenceClip: 0.2 });
  const input = (more: Partial<CreditInput>): CreditInput => ({
    logProbs: [-1, -1, -1, -1],
    teacherLogProbs: [-0.9, -3, -1, -0.5],
    advantages: [2, -4],
    cuSeqlens: [0, 2, 4],
    ...more,
  });

  it("clips, then mixes, and keeps the advantage's sign", () => {
    const credit = creditReference(input({}), fields);
    const c = [Math.exp(0.1), 0.8, 1, 0.8];
    expect(Array.from(credit.evidenceWeights)).toEqual(
      c.map((value, i) => (i === 0 ? expect.closeTo(value, 14) : value)),
    );
    const expected = [2 * (0.5 + 0.5 * c[0]), 2 * 0.9, -4, -4 * 0.9];
    for (const [i, a] of expected.entries()) expect(credit.tokenAdvantages[i]).toBeCloseTo(a, 14);
    expect(credit.stats.deltaMean).toBeCloseTo((0.1 - 2 + 0 + 0.5) / 4, 14);
    expect(credit.stats.deltaMeanPositive).toBeCloseTo(-0.95, 14);
    expect(credit.stats.deltaMeanNegative).toBeCloseTo(0.25, 14);
    expect(credit.stats).toMatchObject({ evidenceClippedLow: 0.5, evidenceClippedHigh: 0, nanTeacherRows: 0 });
  });

  it("is bounded exactly where exp overflows", () => {
    const far = creditReference(input({ teacherLogProbs: [-1e5, 0, -INF, 0], logProbs: [-1, -1e5, -1, -1e5] }), fields);
    expect(Array.from(far.evidenceWeights)).toEqual([0.8, 1.2, 1.2, 0.8]);
  });

  it("leaves one side open under the pessimistic clip", () => {
    const pessimistic = objectiveFields({ ...fields, clipMode: "pessimistic", creditMix: 1 });
    const at = (advantage: number, delta: number): number =>
      creditReference(
        { logProbs: [-1], teacherLogProbs: [-1 + delta], advantages: [advantage], cuSeqlens: [0, 1] },
        pessimistic,
      ).evidenceWeights[0];
    expect(at(1, 2)).toBe(1.2);
    expect(at(1, -2)).toBeCloseTo(Math.exp(-2), 14);
    expect(at(-1, 2)).toBe(0.8);
    expect(at(-1, -2)).toBeCloseTo(Math.exp(2), 14);
    expect(at(-1, -1000)).toBe(Math.exp(20));
  });

  it("is exactly 1 where teacher and student agree, where A is 0, and without a teacher", () => {
    const logProbs = Array.from(seededRandom(3).uniforms(4, -9, 0));
    const agreeing = creditReference(input({ logProbs, teacherLogProbs: logProbs }), fields);
    expect(Array.from(agreeing.tokenAdvantages)).toEqual([2, 2, -4, -4]);
    const { logProbs: student, advantages, cuSeqlens } = input({});
    const bare = creditReference({ logProbs: student, advantages, cuSeqlens }, fields);
    expect(Array.from(bare.evidenceWeights)).toEqual([1, 1, 1, 1]);
    expect(bare.stats).toEqual({ nanTeacherRows: 0 });
    expect(Array.from(creditReference(input({ advantages: [0, -0] }), fields).evidenceWeights)).toEqual([1, 1, 1, 1]);
  });

  it("forces rho, not c, outside the span and where negativeOnly does not apply", () => {
    const span = creditReference(input({ spanMask: [1, 0, 1, 0] }), fields);
    expect(span.tokenAdvantages[1]).toBe(2);
    expect(span.tokenAdvantages[3]).toBe(-4);
    expect(span.evidenceWeights[1]).toBe(0.8);
    const negative = creditReference(input({}), objectiveFields({ ...fields, negativeOnly: true }));
    expect(Array.from(negative.tokenAdvantages)).toEqual([2, 2, -4, -4 * 0.9]);
    expect(negative.evidenceWeights[1]).toBe(0.8);
    const perToken = input({ advantages: [3, -4, 4, -3], logProbs: [-1, -1, -1, -1], teacherLogProbs: [0, 0, 0, 0] });
    const bySum = creditReference(perToken, objectiveFields({ ...fields, negativeOnly: true }));
    expect(Array.from(bySum.tokenAdvantages)).toEqual([3 * 1.1, -4 * 0.9, 4, -3]);
    const balanced = creditReference(
      { ...perToken, advantages: [3, -3, 0, 0] },
      objectiveFields({ ...fields, negativeOnly: true }),
    );
    expect(Array.from(balanced.tokenAdvantages)).toEqual([3, -3, 0, 0]);
  });

  it("has mean 1 over the unmasked tokens of each sequence when normalised", () => {
    const mask = [1, 1, 1, 0];
    const credit = creditReference(
      input({ completionMask: mask }),
      objectiveFields({ ...fields, normalize: "sequence" }),
    );
    expect((credit.tokenAdvantages[0] + credit.tokenAdvantages[1]) / 2).toBeCloseTo(2, 14);
    expect(credit.tokenAdvantages[0]).toBeGreaterThan(2);
    expect(credit.tokenAdvantages[2]).toBe(-4);
    expect([credit.tokenAdvantages[3], credit.evidenceWeights[3]]).toEqual([0, 0]);
  });

  it("compares the teacher with the contrast teacher where there is one", () => {
    const credit = creditReference(input({ contrastLogProbs: [-1, -3.05, -1.1, -0.5] }), fields);
    expect(credit.evidenceWeights[1]).toBeCloseTo(Math.exp(0.05), 14);
    expect(credit.evidenceWeights[2]).toBeCloseTo(Math.exp(-0.1), 14);
  });

  it("counts teachers that give no evidence, and leaves them out of the means", () => {
    const useless = input({ teacherLogProbs: [NaNs, -INF, INF, -0.5], contrastLogProbs: [-1, -INF, -1, -1] });
    const { evidenceWeights, tokenAdvantages, stats } = creditReference(useless, fields);
    expect(Array.from(evidenceWeights)).toEqual([1, 1, 1, 0.8]);
    expect(Array.from(tokenAdvantages)).toEqual([2, 2, -4, -4 * 0.9]);
    expect(stats).toMatchObject({ nanTeacherRows: 3, deltaMean: 0.5, clippedWeightMean: 0.8 });
    expect(stats).not.toHaveProperty("deltaMeanPositive");
    const cancelling = creditReference(
      input({ teacherLogProbs: [-INF, -1, -1, -1], contrastLogProbs: [-1, -INF, -1, -1] }),
      fields,
    );
    expect(cancelling.stats).toMatchObject({ nanTeacherRows: 0, deltaMeanNegative: 0 });
    expect(cancelling.stats).not.toHaveProperty("deltaMean");
  });
});
