import {
  type DType,
  gspo,
  type Objective,
  type ObjectiveOptions,
  type PolicyBatch,
  type PolicyResult,
  policyLossSync,
  rlsd,
  type Scores,
  type Tensor,
} from "../lib/index.js";
import type { ReferenceBatch, ReferenceScores } from "../lib/reference/batch.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";
import { asTensor, dtypes, randomLogits, randomNumbers, roundoff, softmaxRow, valuesOf } from "./support/logits.js";
import { expectOfficial, inputsOf, loadVector, poisoned, relativeError, vectorNames } from "./support/vectors.js";

describe.each(vectorNames)("policyLoss over logits against the official code, %s, masked rows poisoned", (name) => {
  const vector = poisoned(loadVector(name));
  const { columns, expected, tokens } = vector;

  function run(call: { inPlace?: boolean } = {}): PolicyResult {
    const batch: PolicyBatch = {
      student: { logits: asTensor(vector.studentLogits, [vector.sequences, tokens / vector.sequences, columns]) },
      teacher: { logits: asTensor(vector.teacherLogits, [tokens, columns]) },
      ...inputsOf(vector),
    };
    return policyLossSync(batch, rlsd(vector.fields), call);
  }

  it("gives its log-probs, credit, loss and gradients", () => {
    const got = run();
    expectOfficial(got, vector);
    expect(relativeError(valuesOf(got.gradient.logits!), expected.dLogits)).toBeLessThan(5e-5);
    expect(got.gradient.logits!.shape).toEqual([vector.sequences, tokens / vector.sequences, columns]);
  });

  it("writes the same bits over the logits", () => {
    const fresh = run();
    const inPlace = run({ inPlace: true });
    expect(inPlace.gradient.logits!.data).toEqual(fresh.gradient.logits!.data);
    expect({ ...inPlace, gradient: undefined }).toEqual({ ...fresh, gradient: undefined });
  });
});

/** A small batch of every kind of token, in a dtype, and the same numbers for the reference. */
class Fixture {
  readonly columns: number;
  readonly tokenIds: Int32Array;
  readonly cuSeqlens = Int32Array.of(0, 4, 4, 9, 12);
  readonly completionMask = Uint8Array.of(1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0);
  readonly advantages = Float32Array.of(1.2, -0.4, -0.9, 0);
  // Every row but 0, 7 and 14, backwards.
  readonly rows = Int32Array.of(13, 12, 11, 10, 9, 8, 6, 5, 4, 3, 2, 1);
  readonly student: Tensor;
  readonly teacher: Tensor;
  readonly contrast: Tensor;
  readonly studentRows = 15;

  constructor(
    columns: number,
    readonly dtype: DType,
    readonly vocabSize = columns,
  ) {
    this.columns = columns;
    const next = randomNumbers(columns);
    this.tokenIds = Int32Array.from({ length: 12 }, () => Math.floor(next() * vocabSize));
    const values = randomLogits(this.studentRows * columns, 2, 1);
    this.student = asTensor(values, [this.studentRows, columns], dtype);
    this.teacher = asTensor(
      values.map((z, i) => z + 0.4 * Math.sin(i)),
      [this.studentRows, columns],
      dtype,
    );
    this.contrast = asTensor(
      values.map((z, i) => z + 0.3 * Math.cos(i)),
      [this.studentRows, columns],
      dtype,
    );
  }

  scores(logits: Tensor): Scores {
    return { logits, rows: this.rows, vocabSize: this.vocabSize };
  }

  reference(logits: Tensor): ReferenceScores {
    return { logits: valuesOf(logits), columns: this.columns, rows: this.rows, vocabSize: this.vocabSize };
  }

  get arrays() {
    const wave = (scale: number) => Float32Array.from({ length: 12 }, (_, i) => -2 + scale * Math.sin(3 * i));
    return {
      tokenIds: this.tokenIds,
      cuSeqlens: this.cuSeqlens,
      completionMask: this.completionMask,
      advantages: this.advantages,
      oldLogProbs: wave(0.3),
      refLogProbs: wave(0.5),
      samplerLogProbs: wave(0.2),
    };
  }

  batch(contrast = false): PolicyBatch {
    return {
      student: this.scores(this.student),
      teacher: this.scores(this.teacher),
      ...(contrast ? { contrast: this.scores(this.contrast) } : {}),
      ...this.arrays,
    };
  }

  referenceBatch(contrast = false): ReferenceBatch {
    return {
      student: this.reference(this.student),
      teacher: this.reference(this.teacher),
      ...(contrast ? { contrast: this.reference(this.contrast) } : {}),
      ...this.arrays,
    };
  }
}

function expectReference(got: PolicyResult, fixture: Fixture, objective: Objective, contrast = false): void {
  const expected = policyLossReference(fixture.referenceBatch(contrast), objective);
  expect(relativeError(got.logProbs, expected.logProbs)).toBeLessThan(1e-5);
  expect(relativeError(got.teacherLogProbs!, expected.teacherLogProbs!)).toBeLessThan(1e-5);
  expect(relativeError(got.tokenAdvantages, expected.tokenAdvantages)).toBeLessThan(2e-5);
  expect(relativeError(got.evidenceWeights!, expected.evidenceWeights)).toBeLessThan(2e-5);
  expect(relativeError([got.loss], [expected.loss], 1)).toBeLessThan(2e-5);
  expect(relativeError(got.gradient.logProbs, expected.gradient.logProbs)).toBeLessThan(5e-5);
  const rounding = fixture.dtype === "f32" ? 5e-5 : roundoff[fixture.dtype];
  expect(relativeError(valuesOf(got.gradient.logits!), expected.gradient.logits!)).toBeLessThan(rounding);
  expect(got.stats.entropyMean).toBeCloseTo(expected.stats.entropyMean!, 5);
  expect(got.stats).toEqual(
    expect.objectContaining({ tokens: 9, sequences: 4, nonFiniteRows: 0, nanTeacherRows: 0, skippedRows: 0 }),
  );
}

const objectives: Record<string, ObjectiveOptions> = {
  "ppo-clip": { creditMix: 1 },
  "KL and an entropy bonus": { klCoef: 0.1, entropyCoef: 0.05 },
  temperature: { temperature: 0.7, entropyCoef: 0.02 },
  softcap: { logitSoftcap: 3, temperature: 1.3 },
  "softcap, rounding and an entropy bonus": { logitSoftcap: 3, logitRounding: "bf16", entropyCoef: 0.1 },
  rounding: { logitRounding: "bf16" },
  gspo: { objective: "gspo", clipLow: 0.3, clipHigh: 0.4 },
  "gspo-token": { objective: "gspo-token", reduction: "sequence-mean" },
  luspo: { objective: "luspo", reduction: "sequence-sum", entropyCoef: 0.1 },
  gmpo: { objective: "gmpo", clipLow: 0.4, clipHigh: 0.4 },
  cispo: { objective: "cispo" },
  sapo: { objective: "sapo" },
  "credit normalised over the sequence": { normalize: "sequence", creditMix: 1 },
  "sequence-level correction": { importanceCorrection: "sequence-truncate", importanceMax: 2 },
};

describe.each(dtypes)("policyLoss over %s logits against the float64 reference", (dtype) => {
  it.each(Object.keys(objectives))("%s", (name) => {
    const fixture = new Fixture(150, dtype, 140);
    const objective = rlsd(objectives[name]);
    const batch = fixture.batch();
    expectReference(policyLossSync(batch, objective), fixture, objective);
  });

  it("a contrast teacher", () => {
    const fixture = new Fixture(97, dtype);
    const objective = rlsd({ creditMix: 1 });
    expectReference(policyLossSync(fixture.batch(true), objective), fixture, objective, true);
  });

  it.each([1, 2, 3, 31, 32, 33, 1023, 1024, 1025])("a vocabulary of %d", (columns) => {
    const fixture = new Fixture(columns, dtype);
    const objective = rlsd({ creditMix: 1 });
    expectReference(policyLossSync(fixture.batch(), objective), fixture, objective);
  });

  it.each([32001, 50257, 151936])("two rows of a vocabulary of %d", (columns) => {
    const student = asTensor(randomLogits(2 * columns, 2, 1), [2, columns], dtype);
    const teacher = asTensor(randomLogits(2 * columns, 2, 2), [2, columns], dtype);
    const tokenIds = Int32Array.of(columns - 1, 17);
    const arrays = { tokenIds, cuSeqlens: Int32Array.of(0, 2), advantages: Float32Array.of(-1) };
    // The scale keeps f16 gradients of 1e-6 above the smallest subnormal.
    const batch = { student: { logits: student }, teacher: { logits: teacher }, ...arrays };
    const got = policyLossSync(batch, rlsd(), { lossScale: 2 ** 14 });
    const gradient = valuesOf(got.gradient.logits!);
    let entropy = 0;
    for (const i of [0, 1]) {
      const rowOf = (t: Tensor) => softmaxRow(valuesOf(t).subarray(i * columns, (i + 1) * columns), tokenIds[i]!);
      const expected = rowOf(student);
      expect(got.logProbs[i]).toBeCloseTo(expected.logProb, 5);
      expect(got.teacherLogProbs![i]).toBeCloseTo(rowOf(teacher).logProb, 5);
      entropy += expected.entropy / 2;
      const g = got.gradient.logProbs[i]!;
      const dz = expected.p.map((p) => -g * p);
      dz[tokenIds[i]!]! += g;
      const row = gradient.subarray(i * columns, (i + 1) * columns);
      // Against the target's own entry only the target counts; without it, every other column does.
      const rounding = dtype === "f32" ? 2e-6 : roundoff[dtype];
      expect(relativeError(row, dz)).toBeLessThan(rounding);
      row[tokenIds[i]!] = 0;
      dz[tokenIds[i]!] = 0;
      expect(relativeError(row, dz)).toBeLessThan(rounding);
    }
    expect(got.stats.entropyMean).toBeCloseTo(entropy, 5);
  });
});

describe("a sequence of 2^16 tokens whose loss is a whole sequence's", () => {
  const tokens = 2 ** 16;
  const logits = asTensor(randomLogits(4 * tokens, 2, 1), [tokens, 4]);
  const arrays = { tokenIds: new Int32Array(tokens), cuSeqlens: Int32Array.of(0, tokens) };
  const at = (i: number): Float32Array => new Float32Array(tokens).fill(1, i, i + 1);
  const skippedOf = (advantages: Float32Array): number =>
    policyLossSync({ student: { logits }, ...arrays, advantages }, gspo(), { skipZeroRows: true }).stats.skippedRows;

  it("is read whole for one advantage, wherever that stands, and not at all without one", () => {
    expect([skippedOf(at(0)), skippedOf(at(tokens - 1)), skippedOf(at(tokens))]).toEqual([0, 0, tokens]);
  });

  it("is asked for its advantages once, not once a token", () => {
    const start = performance.now();
    skippedOf(at(tokens));
    expect(performance.now() - start).toBeLessThan(1000);
  });
});
