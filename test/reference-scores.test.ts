import { distillReference } from "../lib/reference/distill.js";
import { tokenLogProbsReference } from "../lib/reference/log-probs.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";
import { objectiveFields } from "./support/fields.js";

const NaNs = Number.NaN;
const INF = Number.POSITIVE_INFINITY;

describe("logits", () => {
  const fields = objectiveFields({ entropyCoef: 0.1 });
  const score = (logits: number[], columns: number, tokenId: number, vocabSize = columns) =>
    policyLossReference(
      { student: { logits, columns, vocabSize }, tokenIds: [tokenId], cuSeqlens: [0, 1], advantages: [1] },
      fields,
    );

  it("of -inf have no probability, no gradient and no entropy, also under a softcap", () => {
    const got = score([1, -INF, 1], 3, 0);
    expect(got.logProbs[0]).toBeCloseTo(-Math.log(2), 15);
    expect(got.stats.entropyMean).toBeCloseTo(Math.log(2), 15);
    expect(got.gradient.logits![1]).toBe(0);
    const scores = { logits: [1, -INF, 1], columns: 3 };
    const infinite = { logits: [1, INF, 1], columns: 3 };
    expect(
      tokenLogProbsReference(infinite, [0], Uint8Array.of(1), { ...fields, logitSoftcap: 5 }).logProbs[0],
    ).toBeNaN();
    const capped = tokenLogProbsReference(scores, [0], Uint8Array.of(1), { ...fields, logitSoftcap: 5 });
    expect(capped.logProbs[0]).toBeCloseTo(-Math.log(2), 15);
  });

  it("beyond vocabSize are padding, whatever they hold", () => {
    const got = score([1, 1, NaNs, 1e9], 4, 0, 2);
    expect(got.logProbs[0]).toBeCloseTo(-Math.log(2), 15);
    expect(Array.from(got.gradient.logits!.subarray(2))).toEqual([0, 0]);
  });

  it.each([
    ["a NaN", [1, NaNs, 1]],
    ["+inf", [1, INF, 1]],
    ["nothing finite", [-INF, -INF, -INF]],
    ["-inf at the target", [-INF, 1, 1]],
  ])("make a bad row with %s", (_, logits) => {
    const got = score(logits, 3, 0);
    expect([got.loss, got.stats.nonFiniteRows]).toEqual([0, 1]);
    expect(Array.from(got.gradient.logits!)).toEqual([0, 0, 0]);
    expect(got.stats).not.toHaveProperty("entropyMean");
  });

  it("of one column are certain", () => {
    const got = score([7], 1, 0);
    expect([got.logProbs[0], got.stats.entropyMean, got.gradient.logits![0]]).toEqual([0, 0, 0]);
  });

  it("do not overflow", () => {
    const got = score([1e308, -1e308], 2, 0);
    expect([got.logProbs[0], got.stats.nonFiniteRows]).toEqual([0, 0]);
  });
});

describe("distillation", () => {
  const teacher = { logits: [2, 1, 0, 0, 2, 1], columns: 3 };
  const common = { reduction: "token-mean", temperature: 1 } as const;
  const run = (logits: number[], options: Parameters<typeof distillReference>[1]) =>
    distillReference({ student: { logits, columns: 3 }, teacher, cuSeqlens: [0, 2] }, options);

  it.each(["forward-kl", "reverse-kl", "jsd"] as const)(
    "by %s is 0 with no gradient where both agree",
    (divergence) => {
      for (const shape of [{}, { topK: 2 }, { topK: 2, tail: false }]) {
        const got = run(teacher.logits, { divergence, ...common, ...shape });
        expect(got.loss).toBeCloseTo(0, 14);
        // Without a tail forward-kl compares parts of distributions: its gradient still moves mass into them.
        if (divergence === "forward-kl" && "tail" in shape) continue;
        for (const g of got.gradient.logits!) expect(g).toBeCloseTo(0, 14);
      }
    },
  );

  it.each(["forward-kl", "reverse-kl", "jsd"] as const)(
    "by %s is the whole vocabulary's where k leaves no tail",
    (divergence) => {
      const whole = run([0, 3, 1, 1, 1, -2], { divergence, ...common });
      const all = run([0, 3, 1, 1, 1, -2], { divergence, ...common, topK: 3 });
      expect(all.loss).toBeCloseTo(whole.loss, 12);
      for (const [i, g] of whole.gradient.logits!.entries()) expect(all.gradient.logits![i]).toBeCloseTo(g, 9);
    },
  );

  it("clamps each token's value and lets no gradient pass beyond", () => {
    const got = run([0, 0, 90, 0, 2, 1], { divergence: "forward-kl", ...common, valueClamp: 10 });
    expect(got.tokenLosses[0]).toBe(10);
    expect(Array.from(got.gradient.logits!.subarray(0, 3))).toEqual([0, 0, 0]);
    expect(got.stats).toMatchObject({ mean: 5, clampedFraction: 0.5, nonFiniteRows: 0 });
  });

  it("leaves out a row that has no finite divergence, and counts it", () => {
    for (const student of [
      [NaNs, 0, 0, 0, 2, 1],
      [-INF, 0, 0, 0, 2, 1],
    ]) {
      const got = run(student, { divergence: "forward-kl", ...common });
      expect(got.loss).toBeCloseTo(0, 14);
      expect(got.stats.nonFiniteRows).toBe(1);
      for (const g of got.gradient.logits!) expect(g).toBeCloseTo(0, 14);
    }
  });

  it("takes the smaller id where the teacher's k-th probability is shared", () => {
    const tied = { logits: [1, 1, 1], columns: 3 };
    const options = { divergence: "forward-kl", topK: 1, tail: false, ...common } as const;
    const got = distillReference({ student: tied, teacher: tied, cuSeqlens: [0, 1] }, options);
    expect(got.gradient.logits![0]).toBeLessThan(0);
    expect(got.gradient.logits![1]).toBeGreaterThan(0);
  });
});
