import { groupAdvantagesReference } from "../lib/reference/advantages.js";
import type { ReferenceBatch, ReferenceScores } from "../lib/reference/batch.js";
import { distillReference } from "../lib/reference/distill.js";
import { type PolicyLossReference, policyLossReference } from "../lib/reference/policy-loss.js";
import {
  loadVector,
  officialMetrics,
  poisoned,
  relativeError,
  unmasked,
  type VectorCase,
  vectorNames,
} from "./support/vectors.js";

// Float64 throughout; what is left is the official code's 1e-8 in its means and, with KL, its float32 casts.
const EXACT = 1e-12;
const MEANS = 1e-7;
const WITH_KL = 2e-6;

const tolerance = (vector: VectorCase): number => (vector.fields.klCoef === 0 ? MEANS : WITH_KL);

function batchOf(vector: VectorCase, student: ReferenceScores, teacher: ReferenceScores): ReferenceBatch {
  return {
    student,
    teacher,
    tokenIds: vector.tokenIds,
    cuSeqlens: vector.cuSeqlens,
    completionMask: vector.completionMask,
    advantages: vector.expected.advantages,
    oldLogProbs: vector.oldLogProbs,
    refLogProbs: vector.refLogProbs,
    ...(vector.spanMask === undefined ? {} : { spanMask: vector.spanMask }),
  };
}

const logits = (values: Float64Array, columns: number): ReferenceScores => ({ logits: values, columns });

/** The same logits as hidden states: hidden = logits, head = identity (V, V). */
function asHidden(values: Float64Array, columns: number): ReferenceScores {
  const head = new Float64Array(columns * columns);
  for (let v = 0; v < columns; v++) head[v * columns + v] = 1;
  return { hidden: values, head, bias: new Float64Array(columns), width: columns };
}

/** NaN in the masked part of (N) log-probs. */
const maskedLogProbs = (vector: VectorCase, values: Float64Array): ReferenceScores => ({
  logProbs: values.map((value, i) => (vector.completionMask[i] === 1 ? value : Number.NaN)),
});

function expectPolicyLoss(vector: VectorCase, got: PolicyLossReference): void {
  const { expected, completionMask: mask } = vector;
  const tol = tolerance(vector);
  const floor = expected.tokenAdvantages.reduce((largest, a) => Math.max(largest, Math.abs(a)), 1e-6);
  expect(relativeError(got.logProbs, unmasked(expected.logProbs, mask))).toBeLessThan(EXACT);
  expect(relativeError(got.teacherLogProbs!, unmasked(expected.teacherLogProbs, mask))).toBeLessThan(EXACT);
  expect(relativeError(got.tokenAdvantages, unmasked(expected.tokenAdvantages, mask))).toBeLessThan(EXACT);
  expect(relativeError([got.loss], [expected.loss], floor)).toBeLessThan(tol);
  expect(relativeError([got.stats.policyLoss], [expected.policyLoss], floor)).toBeLessThan(MEANS);
  expect(relativeError(got.gradient.logProbs, expected.dLogProbs)).toBeLessThan(tol);
}

/** The official metrics by our statistics. */
function expectMetrics({ expected: { metrics }, fields }: VectorCase, { stats }: PolicyLossReference): void {
  for (const [got, name] of officialMetrics(stats, fields)) {
    expect([name, relativeError([got], [metrics[name]!], 1e-3) < MEANS]).toEqual([name, true]);
  }
}

describe.each(vectorNames)("the reference against the official code, %s, masked entries poisoned", (name) => {
  const vector = poisoned(loadVector(name));
  const { columns, expected, fields, studentLogits, teacherLogits } = vector;

  it("computes the group advantages", () => {
    const { rewards, groupIds, advantageOptions } = vector;
    const grouped = groupAdvantagesReference(Array.from(rewards), groupIds, advantageOptions);
    expect(relativeError(grouped, expected.advantages)).toBeLessThan(EXACT);
    const options = { baseline: "leave-one-out", scale: "none" } as const;
    const rloo = groupAdvantagesReference(Array.from(rewards), groupIds, options);
    expect(relativeError(rloo, expected.rlooAdvantages)).toBeLessThan(EXACT);
  });

  it("computes the policy loss from log-probs", () => {
    const student = maskedLogProbs(vector, expected.logProbs);
    const teacher = maskedLogProbs(vector, expected.teacherLogProbs);
    const got = policyLossReference(batchOf(vector, student, teacher), fields);
    expectPolicyLoss(vector, got);
    expectMetrics(vector, got);
  });

  it("computes the policy loss and its gradient from logits", () => {
    const batch = batchOf(vector, logits(studentLogits, columns), logits(teacherLogits, columns));
    const got = policyLossReference(batch, fields);
    expectPolicyLoss(vector, got);
    expectMetrics(vector, got);
    expect(relativeError(got.gradient.logits!, expected.dLogits)).toBeLessThan(tolerance(vector));
  });

  it("computes the policy loss and its gradient from hidden states", () => {
    const batch = batchOf(vector, asHidden(studentLogits, columns), asHidden(teacherLogits, columns));
    const got = policyLossReference(batch, fields);
    expectPolicyLoss(vector, got);
    expect(relativeError(got.gradient.hidden!, expected.dLogits)).toBeLessThan(tolerance(vector));
  });

  it.each(expected.distill.map((distill) => [JSON.stringify(distill.options), distill] as const))(
    "distils with %s",
    (_, { options, loss, dLogits }) => {
      for (const view of [logits, asHidden]) {
        const { cuSeqlens, completionMask } = vector;
        const student = view(studentLogits, columns) as Exclude<ReferenceScores, { logProbs: ArrayLike<number> }>;
        const teacher = view(teacherLogits, columns) as typeof student;
        const got = distillReference({ student, teacher, cuSeqlens, completionMask }, options);
        expect(relativeError([got.loss], [loss], 0.01)).toBeLessThan(MEANS);
        expect(relativeError(got.gradient.logits ?? got.gradient.hidden!, dLogits, 1e-3)).toBeLessThan(MEANS);
      }
    },
  );
});
