import type { KlEstimator, ObjectiveFields, Surrogate } from "../lib/objectives/objective.js";
import type { ReferenceBatch, ReferenceScores } from "../lib/reference/batch.js";
import { type DistillOptions, distillReference } from "../lib/reference/distill.js";
import type { LogitScores } from "../lib/reference/log-probs.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";
import { centralDifferences } from "./support/differences.js";
import { objectiveFields } from "./support/fields.js";
import { seededRandom } from "./support/random.js";
import { relativeError } from "./support/vectors.js";

const COLUMNS = 7;
const VOCAB = 6;
const WIDTH = 3;
const TOKENS = 7;
const cuSeqlens = Int32Array.of(0, 3, 3, 6, TOKENS);
const completionMask = Uint8Array.of(1, 0, 1, 1, 1, 1, 1);

const tokenSurrogates = ["ppo-clip", "sapo", "cispo"] as const;
const sequenceSurrogates = ["gspo", "gspo-token", "luspo", "gmpo"] as const;
const surrogates: readonly Surrogate[] = [...tokenSurrogates, ...sequenceSurrogates, "row-coefficient"];
const estimators: readonly KlEstimator[] = ["k1", "k2", "k3", "abs"];

const hiddenScores = (seed: number): LogitScores & { hidden: Float64Array; head: Float64Array; bias: Float64Array } => {
  const random = seededRandom(seed);
  return {
    hidden: random.normals(TOKENS * WIDTH),
    head: random.normals(COLUMNS * WIDTH),
    bias: random.normals(COLUMNS),
    width: WIDTH,
    vocabSize: VOCAB,
  };
};
const logitScores = (seed: number): LogitScores & { logits: Float64Array } => ({
  logits: seededRandom(seed).normals((TOKENS + 2) * COLUMNS, 1.5),
  columns: COLUMNS,
  vocabSize: VOCAB,
  // Rows out of order, two of them unused.
  rows: Int32Array.of(3, 0, 1, 2, 8, 7, 5),
});

/**
 * A batch around given scores in which nothing that the gradient holds constant depends on the student: the evidence
 * is measured against the old log-probs, and under cispo every ratio lies beyond a bound.
 */
function batchAround(student: ReferenceScores, fields: ObjectiveFields, seed: number): ReferenceBatch {
  const { objective } = fields;
  const random = seededRandom(seed);
  const tokenIds = Int32Array.from({ length: TOKENS }, () => random.integer(VOCAB));
  const batch = { student, tokenIds, cuSeqlens, completionMask, advantages: random.normals(4) };
  const { temperature, logitSoftcap } = fields;
  const now = policyLossReference(batch, objectiveFields({ temperature, logitSoftcap })).logProbs;
  const away = objective === "cispo" ? 0.5 : 0;
  const perSequence = (sequenceSurrogates as readonly string[]).includes(objective);
  const spread = perSequence ? 0.1 : 0.4;
  const old = now.map((logP) => {
    const step = spread * random.normal();
    return logP + step + Math.sign(step) * away;
  });
  return {
    ...batch,
    oldLogProbs: old,
    refLogProbs: now.map((logP) => logP + 0.5 * random.normal()),
    samplerLogProbs: old.map((logP) => logP + 0.2 * random.normal()),
    // A sequence's ratio passes straight through to its tokens: that is the derivative where they share one advantage.
    ...(perSequence ? {} : { teacher: { logProbs: now.map((logP) => logP + 0.3 * random.normal()) } }),
    ...(objective === "row-coefficient" ? { advantages: random.normals(TOKENS) } : {}),
  };
}

function fieldsFor(objective: Surrogate, more: Partial<ObjectiveFields> = {}): ObjectiveFields {
  const token = (tokenSurrogates as readonly string[]).includes(objective);
  return objectiveFields({
    objective,
    klCoef: 0.3,
    creditMix: 0.7,
    studentSource: "old",
    normalize: "sequence",
    dualClip: 1.3,
    klImportanceCorrection: token && objective !== "cispo",
    importanceCorrection: token ? "token-truncate" : "sequence-truncate",
    importanceMax: 1.1,
    reduction: "sequence-mean",
    ...more,
  });
}

function expectGradient(batch: ReferenceBatch, fields: ObjectiveFields, wanted: [string, Float64Array][]): void {
  const { gradient } = policyLossReference(batch, fields);
  for (const [name, x] of wanted) {
    const expected = centralDifferences(() => policyLossReference(batch, fields).loss, x);
    expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(1e-4);
    const error = relativeError(gradient[name as keyof typeof gradient]!, expected);
    expect([name, error, error < 1e-7]).toEqual([name, error, true]);
  }
}

describe("the gradient of the policy loss agrees with central differences", () => {
  describe.each(surrogates)("%s", (objective) => {
    it.each(estimators)("to log-probs, KL by %s", (klEstimator) => {
      const logProbs = seededRandom(5).uniforms(TOKENS, -3, -0.1);
      for (const reduction of ["token-mean", "sequence-sum"] as const) {
        const fields = fieldsFor(objective, { klEstimator, reduction });
        expectGradient(batchAround({ logProbs }, fields, 17), fields, [["logProbs", logProbs]]);
      }
    });

    it("to logits, with entropy, softcap, temperature, padding and rows out of order", () => {
      const student = logitScores(23);
      const fields = fieldsFor(objective, { entropyCoef: 0.2, logitSoftcap: 4, temperature: 0.7 });
      expectGradient(batchAround(student, fields, 29), fields, [["logits", student.logits]]);
    });

    it("to hidden states, head and bias", () => {
      const student = hiddenScores(31);
      const fields = fieldsFor(objective, {
        entropyCoef: -0.1,
        temperature: 1.3,
        reduction: "token-sum",
        normalizer: 5,
      });
      expectGradient(batchAround(student, fields, 37), fields, [
        ["hidden", student.hidden],
        ["head", student.head],
        ["bias", student.bias],
      ]);
    });
  });

  it.each([
    ["token-mask", { importanceCorrection: "token-mask", importanceMin: 0.9 }],
    ["sequence-mask", { importanceCorrection: "sequence-mask", importanceMin: 0.7 }],
    ["ratioBound", { ratioBound: 1.05 }],
    ["an unclamped k3", { klClamp: null }],
    ["a clamped k3", { klClamp: 0.05 }],
    ["the pessimistic clip", { clipMode: "pessimistic" }],
    ["negativeOnly", { negativeOnly: true }],
  ] as [string, Partial<ObjectiveFields>][])("with %s", (_, more) => {
    const logProbs = seededRandom(41).uniforms(TOKENS, -3, -0.1);
    const fields = fieldsFor("ppo-clip", more);
    expectGradient(batchAround({ logProbs }, fields, 43), fields, [["logProbs", logProbs]]);
  });

  it("passes bf16 rounding straight through", () => {
    const student = logitScores(47);
    const batch = batchAround(student, fieldsFor("ppo-clip"), 53);
    const rounded = policyLossReference(batch, fieldsFor("ppo-clip", { logitRounding: "bf16" }));
    const at = Float32Array.from(student.logits, (z) => Math.fround(z));
    const bits = new Uint32Array(at.buffer);
    for (let i = 0; i < bits.length; i++) bits[i] = ((bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) & 0xffff0000) >>> 0;
    const plain = policyLossReference({ ...batch, student: { ...student, logits: at } }, fieldsFor("ppo-clip"));
    expect(rounded.loss).toBe(plain.loss);
    expect(rounded.gradient.logits).toEqual(plain.gradient.logits);
    expect(rounded.loss).not.toBe(policyLossReference(batch, fieldsFor("ppo-clip")).loss);
  });
});

describe("the gradient of the distillation loss agrees with central differences", () => {
  const shapes: [string, Partial<DistillOptions>][] = [
    ["the whole vocabulary", {}],
    ["top-k and a tail", { topK: 3 }],
    ["top-k alone", { topK: 3, tail: false }],
    ["values clamped", { valueClamp: 0.3 }],
  ];
  const divergences = ["forward-kl", "reverse-kl", "jsd"] as const;
  const cases = shapes.flatMap(([name, more]) => divergences.map((divergence) => [divergence, name, more] as const));

  it.each(cases)("%s over %s", (divergence, _, more) => {
    const options = {
      divergence,
      beta: 0.3,
      reduction: "sequence-mean",
      temperature: 1.2,
      logitSoftcap: 6,
      ...more,
    } as const;
    const teacher = { logits: seededRandom(61).normals(TOKENS * COLUMNS, 1.5), columns: COLUMNS, vocabSize: VOCAB };
    for (const student of [logitScores(67), hiddenScores(71)]) {
      const loss = (): number => distillReference({ student, teacher, cuSeqlens, completionMask }, options).loss;
      const { gradient } = distillReference({ student, teacher, cuSeqlens, completionMask }, options);
      const tensors = "logits" in student ? (["logits"] as const) : (["hidden", "head", "bias"] as const);
      for (const name of tensors) {
        const expected = centralDifferences(loss, (student as unknown as Record<string, Float64Array>)[name]);
        expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(1e-4);
        expect(relativeError(gradient[name]!, expected)).toBeLessThan(1e-7);
      }
    }
  });
});
