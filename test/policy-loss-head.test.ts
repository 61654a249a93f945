import {
  type Call,
  type DType,
  empty,
  type Objective,
  type ObjectiveOptions,
  type PolicyBatch,
  type PolicyResult,
  policyLoss,
  policyLossSync,
  rlsd,
  type Scores,
  type Tensor,
  tensor,
  tokenLogProbsSync,
} from "../lib/index.js";
import type { ReferenceBatch, ReferenceScores } from "../lib/reference/batch.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";
import { asTensor, dtypes, identity, randomLogits, roundoff, valuesOf } from "./support/logits.js";
import { queueable } from "./support/queueable.js";
import { expectOfficial, inputsOf, loadVector, poisoned, relativeError, vectorNames } from "./support/vectors.js";

type HiddenScores = Extract<Scores, { hidden: Tensor }>;

describe.each(vectorNames)("policyLoss over an LM head against the official code, %s, masked rows poisoned", (name) => {
  it("gives its log-probs, credit, loss and gradients", () => {
    const vector = poisoned(loadVector(name));
    const { columns, expected, tokens } = vector;
    const head = identity(columns);
    const student = { hidden: asTensor(vector.studentLogits, [tokens, columns]), head };
    const teacher = { hidden: asTensor(vector.teacherLogits, [tokens, columns]), head };
    const got = policyLossSync({ ...inputsOf(vector), student, teacher }, rlsd(vector.fields));
    expectOfficial(got, vector);
    expect(relativeError(valuesOf(got.gradient.hidden!), expected.dLogits)).toBeLessThan(5e-5);
  });
});

interface Shape {
  readonly vocab: number;
  readonly vocabSize?: number;
  readonly width?: number;
  readonly dtype?: DType;
  readonly bias?: boolean;
}

const TOKENS = 12;
const ROWS = 15;
/** Every row but 0, 7 and 14, backwards. */
const rows = Int32Array.of(13, 12, 11, 10, 9, 8, 6, 5, 4, 3, 2, 1);
const mask = Uint8Array.of(1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0);

/** Four sequences, one of them empty and one without advantage; tokens of every kind. */
function batchOf(shape: Shape): PolicyBatch & { student: HiddenScores; teacher: HiddenScores } {
  const { vocab, vocabSize = vocab, width = 19, dtype = "f32", bias = true } = shape;
  const spread = 2 / Math.sqrt(width);
  const scores = (seed: number): HiddenScores => ({
    hidden: asTensor(randomLogits(ROWS * width, 1, seed), [ROWS, width], dtype),
    head: asTensor(randomLogits(vocab * width, spread, seed + 1), [vocab, width], dtype),
    ...(bias ? { bias: asTensor(randomLogits(vocab, 0.5, seed + 2), [vocab], dtype) } : {}),
    rows,
    vocabSize,
  });
  const wave = (scale: number) => Float32Array.from({ length: TOKENS }, (_, i) => -3 + scale * Math.sin(3 * i));
  return {
    student: scores(1),
    teacher: scores(11),
    tokenIds: Int32Array.from({ length: TOKENS }, (_, i) => (i * 7919) % vocabSize),
    cuSeqlens: Int32Array.of(0, 4, 4, 9, 12),
    completionMask: mask,
    advantages: Float32Array.of(1.2, -0.4, -0.9, 0),
    oldLogProbs: wave(0.3),
    refLogProbs: wave(0.5),
    samplerLogProbs: wave(0.2),
  };
}

function referenceScores(scores: Scores | undefined): ReferenceScores | undefined {
  if (scores === undefined) return undefined;
  if (scores.logProbs !== undefined) return { logProbs: scores.logProbs as Float32Array };
  const { rows: rowOf, vocabSize } = scores;
  const rest = { ...(rowOf && { rows: rowOf }), ...(vocabSize !== undefined && { vocabSize }) };
  if (scores.logits !== undefined)
    return { logits: valuesOf(scores.logits), columns: scores.logits.shape.at(-1)!, ...rest };
  const { hidden, head, bias } = scores;
  const width = hidden.shape.at(-1)!;
  return { hidden: valuesOf(hidden), head: valuesOf(head), ...(bias && { bias: valuesOf(bias) }), width, ...rest };
}

function referenceBatch(batch: PolicyBatch): ReferenceBatch {
  const views = { student: batch.student, teacher: batch.teacher, contrast: batch.contrast };
  const converted = Object.entries(views).map(([name, scores]) => [name, referenceScores(scores)]);
  const present = converted.filter(([, scores]) => scores !== undefined);
  return { ...batch, ...Object.fromEntries(present) } as ReferenceBatch;
}

function expectReference(got: PolicyResult, batch: PolicyBatch, objective: Objective, rounding = 5e-5): void {
  const expected = policyLossReference(referenceBatch(batch), objective);
  expect(relativeError(got.logProbs, expected.logProbs)).toBeLessThan(1e-5);
  expect(relativeError(got.teacherLogProbs ?? [], expected.teacherLogProbs ?? [])).toBeLessThan(1e-5);
  expect(relativeError(got.tokenAdvantages, expected.tokenAdvantages)).toBeLessThan(2e-5);
  expect(relativeError([got.loss], [expected.loss], 1)).toBeLessThan(2e-5);
  expect(relativeError(got.gradient.logProbs, expected.gradient.logProbs)).toBeLessThan(5e-5);
  for (const name of ["logits", "hidden", "head", "bias"] as const) {
    const gradient = got.gradient[name];
    expect(gradient === undefined).toBe(expected.gradient[name] === undefined);
    if (gradient !== undefined) {
      expect(relativeError(valuesOf(gradient), expected.gradient[name]!)).toBeLessThan(rounding);
    }
  }
  if (!("logProbs" in batch.student)) expect(got.stats.entropyMean).toBeCloseTo(expected.stats.entropyMean!, 4);
}

const objectives: Record<string, ObjectiveOptions> = {
  "ppo-clip": { creditMix: 1 },
  "KL and an entropy bonus": { klCoef: 0.1, entropyCoef: 0.05 },
  "softcap, rounding and temperature": { logitSoftcap: 3, temperature: 1.3, entropyCoef: 0.1 },
  gspo: { objective: "gspo", clipLow: 0.3, clipHigh: 0.4 },
  luspo: { objective: "luspo", reduction: "sequence-sum", entropyCoef: 0.1 },
  gmpo: { objective: "gmpo", clipLow: 0.4, clipHigh: 0.4 },
  "credit normalised over the sequence": { normalize: "sequence", creditMix: 1 },
  "sequence-level correction": { importanceCorrection: "sequence-truncate", importanceMax: 2 },
};

describe.each(dtypes)("policyLoss over an LM head in %s against the float64 reference", (dtype) => {
  const rounding = dtype === "f32" ? 5e-5 : roundoff[dtype];

  it.each(Object.keys(objectives))("%s", (name) => {
    const batch = batchOf({ vocab: 200, vocabSize: 190, dtype });
    const objective = rlsd(objectives[name]);
    expectReference(policyLossSync(batch, objective), batch, objective, rounding);
  });

  it.each([1, 2, 3, 31, 33, 512, 513, 1025])("a vocabulary of %d", (vocab) => {
    const batch = batchOf({ vocab, dtype, bias: vocab % 2 === 0 });
    const objective = rlsd({ creditMix: 1 });
    expectReference(policyLossSync(batch, objective), batch, objective, rounding);
  });

  it.each([1, 2, 16, 257])("hidden states of width %d", (width) => {
    const batch = batchOf({ vocab: 70, width, dtype });
    const objective = rlsd({ creditMix: 1 });
    expectReference(policyLossSync(batch, objective), batch, objective, rounding);
  });

  it("sums into f32 gradients what it would round in its own dtype", () => {
    const batch = batchOf({ vocab: 60, dtype });
    const objective = rlsd({ creditMix: 1 });
    const out = { hidden: empty([ROWS, 19], "f32"), head: empty([60, 19], "f32"), bias: empty([60], "f32") };
    const got = policyLossSync(batch, objective, { out });
    expect(got.gradient.head).toBe(out.head);
    for (const row of [0, 7, 14]) (out.hidden.data as Float32Array).fill(0, row * 19, (row + 1) * 19);
    expectReference(got, batch, objective);
  });

  it("adds to head and bias when it is told to accumulate, and rounds once", () => {
    const batch = batchOf({ vocab: 60, dtype });
    const objective = rlsd({ creditMix: 1 });
    const before = { head: randomLogits(60 * 19, 0.01, 5), bias: randomLogits(60, 0.01, 6) };
    const out = { head: asTensor(before.head, [60, 19], dtype), bias: asTensor(before.bias, [60], dtype) };
    const old = { head: valuesOf(out.head), bias: valuesOf(out.bias) };
    policyLossSync(batch, objective, { out, accumulate: true });
    const expected = policyLossReference(referenceBatch(batch), objective).gradient;
    for (const name of ["head", "bias"] as const) {
      const sum = expected[name]!.map((value, i) => value + old[name][i]!);
      expect(relativeError(valuesOf(out[name]), sum)).toBeLessThan(rounding);
    }
  });
});

/** The logits that a view stands for, as float32. */
function toLogits({ hidden, head, bias, ...rest }: HiddenScores): Scores {
  const [count, width] = hidden.shape as [number, number];
  const vocab = head.shape[0]!;
  const [h, w, b] = [valuesOf(hidden), valuesOf(head), bias && valuesOf(bias)];
  const logits = new Float32Array(count * vocab);
  for (let i = 0; i < count; i++) {
    for (let v = 0; v < vocab; v++) {
      let z = b === undefined ? 0 : b[v]!;
      for (let k = 0; k < width; k++) z += h[i * width + k]! * w[v * width + k]!;
      logits[i * vocab + v] = z;
    }
  }
  return { ...rest, logits: tensor(logits, [count, vocab]) };
}

describe("policyLoss over an LM head", () => {
  const objective = rlsd({ creditMix: 1, klCoef: 0.05 });

  it("agrees with the logits level on everything that both return", () => {
    const batch = batchOf({ vocab: 700 });
    const head = policyLossSync(batch, objective);
    const logits = policyLossSync(
      { ...batch, student: toLogits(batch.student), teacher: toLogits(batch.teacher) },
      objective,
    );
    expect(relativeError(head.logProbs, logits.logProbs)).toBeLessThan(2e-6);
    expect(relativeError(head.gradient.logProbs, logits.gradient.logProbs)).toBeLessThan(2e-5);
    for (const [name, value] of Object.entries(logits.stats)) {
      expect(head.stats[name as keyof typeof head.stats]).toBeCloseTo(value, 5);
    }
  });

  it.each(["student", "teacher", "contrast"] as const)(
    "takes another level beside it: only the %s is hidden",
    (name) => {
      const base = batchOf({ vocab: 90 });
      const contrast = batchOf({ vocab: 90, width: 7 }).teacher;
      const batch: PolicyBatch = {
        ...base,
        student: name === "student" ? base.student : toLogits(base.student),
        teacher: name === "teacher" ? base.teacher : toLogits(base.teacher),
        contrast: name === "contrast" ? contrast : toLogits(contrast),
      };
      expectReference(policyLossSync(batch, objective), batch, objective);
    },
  );

  it("scores a hidden teacher for a student that is log-probs", () => {
    const base = batchOf({ vocab: 90 });
    const batch: PolicyBatch = { ...base, student: { logProbs: base.oldLogProbs as Float32Array } };
    expectReference(policyLossSync(batch, objective), batch, objective);
  });

  it("gives a teacher that equals the student exactly w = 1", () => {
    const base = batchOf({ vocab: 300 });
    const got = policyLossSync({ ...base, teacher: base.student }, objective);
    expect(got.teacherLogProbs).toEqual(got.logProbs);
    expect(got.evidenceWeights).toEqual(Float32Array.from(mask));
  });

  it("has the same bits on any number of threads, and queued", async () => {
    const batch = queueable(batchOf({ vocab: 3000, width: 300, dtype: "bf16" }));
    const one = policyLossSync(batch, objective, { threads: 1 });
    for (const other of [policyLossSync(batch, objective, { threads: 3 }), await policyLoss(batch, objective)]) {
      for (const name of ["hidden", "head", "bias"] as const) {
        expect(other.gradient[name]!.data).toEqual(one.gradient[name]!.data);
      }
      expect({ ...other, gradient: other.gradient.logProbs }).toEqual({ ...one, gradient: one.gradient.logProbs });
    }
  });

  it("never reads a masked token, a row that no token names, or padding of the vocabulary", () => {
    const shape = { vocab: 64, vocabSize: 50 };
    const clean = policyLossSync(batchOf(shape), objective);
    const batch = batchOf(shape);
    const { student, teacher } = batch;
    for (const { hidden, head, bias } of [student, teacher]) {
      for (const row of [0, 7, 14, ...[2, 8, 11].map((token) => rows[token]!)]) {
        hidden.data.fill(Number.NaN, row * 19, (row + 1) * 19);
      }
      head.data.fill(Number.NaN, 50 * 19);
      bias!.data.fill(Number.NaN, 50);
    }
    const tokenIds = batch.tokenIds!.map((id, i) => (mask[i] === 1 ? id : -1));
    const got = policyLossSync({ ...batch, tokenIds }, objective);
    expect(got.loss).toBe(clean.loss);
    expect(got.logProbs).toEqual(clean.logProbs);
    for (const name of ["hidden", "head", "bias"] as const) {
      expect(got.gradient[name]!.data).toEqual(clean.gradient[name]!.data);
    }
    expect(got.gradient.head!.data.subarray(50 * 19).every((g) => g === 0)).toBe(true);
  });

  it("leaves a bad row out of every product, and of the teacher only its evidence", () => {
    const clean = policyLossSync(
      { ...batchOf({ vocab: 64 }), completionMask: mask.map((one, i) => (i === 5 ? 0 : one)) },
      rlsd({ creditMix: 1, reduction: "token-sum" }),
    );
    const batch = batchOf({ vocab: 64 });
    batch.student.hidden.data[rows[5]! * 19] = Number.NaN;
    const skip = rlsd({ creditMix: 1, reduction: "token-sum", nonFinite: "skip" });
    const got = policyLossSync(batch, skip);
    expect(got.stats.nonFiniteRows).toBe(1);
    for (const name of ["hidden", "head", "bias"] as const) {
      expect(got.gradient[name]!.data).toEqual(clean.gradient[name]!.data);
    }
    expect(() => policyLossSync(batch, objective)).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_NON_FINITE", index: 5, count: 1 }),
    );
    const withBadTeacher = batchOf({ vocab: 64 });
    withBadTeacher.teacher.hidden.data[rows[5]! * 19] = Number.NaN;
    const taught = policyLossSync(withBadTeacher, objective);
    expect(taught.stats.nanTeacherRows).toBe(1);
    expect(taught.evidenceWeights![5]).toBe(1);
  });

  it("returns zeros for a batch without an unmasked token, and for one without tokens", () => {
    const batch = { ...batchOf({ vocab: 64 }), completionMask: new Uint8Array(TOKENS) };
    const empty = {
      student: { ...batch.student, rows: new Int32Array(0) },
      tokenIds: new Int32Array(0),
      cuSeqlens: Int32Array.of(0),
      advantages: new Float32Array(0),
    };
    for (const got of [policyLossSync(batch, objective), policyLossSync(empty, rlsd())]) {
      expect(got.loss).toBe(0);
      for (const name of ["hidden", "head", "bias"] as const) {
        expect(got.gradient[name]!.data.every((g) => g === 0)).toBe(true);
      }
    }
  });

  it("skips the gradient of a frozen head, and changes no other", () => {
    const batch = batchOf({ vocab: 64 });
    const full = policyLossSync(batch, objective);
    const frozen = policyLossSync(batch, objective, { frozenHead: true });
    expect(frozen.gradient.head).toBeUndefined();
    expect(frozen.gradient.bias).toBeUndefined();
    expect(frozen.gradient.hidden!.data).toEqual(full.gradient.hidden!.data);
  });

  it("refuses what nothing could come of, before it writes anything", () => {
    const batch = batchOf({ vocab: 64 });
    const { logProbs } = policyLossSync(batch, objective);
    const logits = tensor(new Float32Array(TOKENS * 4).fill(1), [TOKENS, 4]);
    const named = { ...batch, tokenIds: new Int32Array(TOKENS) };
    const refused: [PolicyBatch, Call, string][] = [
      [
        { ...batch, student: { logProbs } },
        { accumulate: true },
        "false, as only gradients of a head are added to, for accumulate",
      ],
      [
        { ...named, student: { logits } },
        { accumulate: true },
        "false, as only gradients of a head are added to, for accumulate",
      ],
      [{ ...named, student: { logits } }, { frozenHead: true }, "false, as the student has no head, for frozenHead"],
      [batch, { accumulate: true, frozenHead: true }, "false, as the head is frozen, for accumulate"],
    ];
    for (const [given, call, message] of refused) {
      expect(() => policyLossSync(given, rlsd(), call)).toThrow(message);
    }
  });

  it("does not read rows without gradient when it may skip them", () => {
    const batch = batchOf({ vocab: 64 });
    const plain = rlsd({ creditMix: 1 });
    const read = policyLossSync(batch, plain);
    const skipped = policyLossSync(batch, plain, { skipZeroRows: true });
    expect(skipped.stats.skippedRows).toBe(2);
    expect(skipped.gradient.head!.data).toEqual(read.gradient.head!.data);
    expect(skipped.gradient.hidden!.data).toEqual(read.gradient.hidden!.data);
  });

  it("reads every row of a teacher beside a student of log-probs, of which none is skipped", () => {
    const batch = batchOf({ vocab: 64 });
    const logProbs = policyLossSync(batch, objective).logProbs;
    const given = { ...batch, student: { logProbs }, contrast: batch.student };
    const read = policyLossSync(given, rlsd({ creditMix: 1 }));
    const skipped = policyLossSync(given, rlsd({ creditMix: 1 }), { skipZeroRows: true });
    expect(skipped.teacherLogProbs).toEqual(read.teacherLogProbs);
    expect(skipped.stats).toEqual(read.stats);
  });

  it("leaves rows of a given gradient alone that no token names, and zeroes masked ones", () => {
    const batch = batchOf({ vocab: 64 });
    const hidden = tensor(new Float32Array(ROWS * 19).fill(7), [ROWS, 19]);
    policyLossSync(batch, objective, { out: { hidden } });
    const row = (r: number) => hidden.data.subarray(r * 19, (r + 1) * 19);
    for (const r of [0, 7, 14]) expect(row(r).every((g) => g === 7)).toBe(true);
    for (const token of [2, 8, 11]) expect(row(rows[token]!).every((g) => g === 0)).toBe(true);
    expect(hidden.data.filter((g) => g === 7).length).toBe(3 * 19);
  });

  it.each<[string, Call]>([
    ["hidden over the hidden states", { out: {} }],
    ["head over the head", { out: {} }],
  ])("refuses to write the gradient of %s", (name) => {
    const batch = batchOf({ vocab: 64 });
    const out = name.startsWith("hidden") ? { hidden: batch.student.hidden } : { head: batch.student.head };
    expect(() => policyLossSync(batch, objective, { out })).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }),
    );
  });

  it.each([
    ["an id beyond the vocabulary", { tokenIds: new Int32Array(TOKENS).fill(64) }],
    [
      "a row that is not there",
      { student: { ...batchOf({ vocab: 64 }).student, rows: new Int32Array(TOKENS).fill(15) } },
    ],
    ["a row named twice", { student: { ...batchOf({ vocab: 64 }).student, rows: new Int32Array(TOKENS) } }],
  ])("refuses %s before it writes anything", (_name, change: Partial<PolicyBatch>) => {
    const head = tensor(new Float32Array(64 * 19).fill(7), [64, 19]);
    expect(() => policyLossSync({ ...batchOf({ vocab: 64 }), ...change }, objective, { out: { head } })).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_INVALID_ARGUMENT" }),
    );
    expect(head.data.every((g) => g === 7)).toBe(true);
  });

  it("has the slope of its own loss", () => {
    const batch = batchOf({ vocab: 40 });
    const options = rlsd({ creditMix: 0, klCoef: 0.3, entropyCoef: 0.1, clipLow: 0.99, clipHigh: 50, dualClip: null });
    const { gradient } = policyLossSync(batch, options);
    for (const [name, at] of [
      ["hidden", rows[1]! * 19 + 3],
      ["head", 5 * 19 + 2],
      ["bias", 5],
    ] as const) {
      const data = batch.student[name]!.data;
      const value = data[at]!;
      const lossAt = (x: number): number => {
        data[at] = x;
        const { loss } = policyLossSync(batch, options);
        data[at] = value;
        return loss;
      };
      const slope = (lossAt(value + 0.02) - lossAt(value - 0.02)) / 0.04;
      expect(Math.abs(gradient[name]!.data[at]! - slope)).toBeLessThan(2e-3 * Math.abs(slope) + 2e-6);
    }
  });
});

describe("chunks of an LM head", () => {
  const [tokens, vocab, width] = [115, 151_936, 2];
  const hidden = asTensor(randomLogits(tokens * width, 1, 3), [tokens, width]);
  const head = asTensor(randomLogits(vocab * width, 1, 4), [vocab, width]);
  const base = {
    tokenIds: Int32Array.from({ length: tokens }, (_, i) => (i * 104_729) % vocab),
    cuSeqlens: Int32Array.of(0, 60, tokens),
    advantages: Float32Array.from({ length: tokens }, (_, i) => (i % 10 === 0 ? 0 : Math.sin(i))),
  };
  const batch: PolicyBatch = { ...base, student: { hidden, head } };

  /** Head and hidden gradients from those of whole logits. */
  function expected(objective: Objective) {
    const result = policyLossSync({ ...base, student: toLogits({ hidden, head }) }, objective);
    const dz = result.gradient.logits!.data;
    const sums = { hidden: new Float64Array(tokens * width), head: new Float64Array(vocab * width) };
    for (let i = 0; i < tokens; i++) {
      for (let v = 0; v < vocab; v++) {
        const g = dz[i * vocab + v]!;
        for (let h = 0; h < width; h++) {
          sums.hidden[i * width + h]! += g * head.data[v * width + h]!;
          sums.head[v * width + h]! += g * hidden.data[i * width + h]!;
        }
      }
    }
    return { ...result, sums };
  }

  it.each(["ppo-clip", "gspo"] as const)("add up to the gradients of whole logits (%s)", (name) => {
    const objective = rlsd({ objective: name });
    const whole = expected(objective);
    const got = policyLossSync(batch, objective);
    expect(relativeError(got.logProbs, whole.logProbs)).toBeLessThan(1e-5);
    expect(relativeError([got.loss], [whole.loss], 1)).toBeLessThan(1e-5);
    expect(relativeError(valuesOf(got.gradient.hidden!), whole.sums.hidden)).toBeLessThan(5e-5);
    expect(relativeError(valuesOf(got.gradient.head!), whole.sums.head)).toBeLessThan(5e-5);
    const student = { hidden, head: asTensor(head.data, [vocab, width], "bf16") };
    const exact = policyLossSync({ ...batch, student }, objective, { out: { head: empty([vocab, width], "f32") } });
    const rounded = policyLossSync({ ...batch, student }, objective);
    expect(rounded.gradient.head!.data).toEqual(asTensor(exact.gradient.head!.data, [vocab, width], "bf16").data);
  });
});

describe("tokenLogProbs over an LM head", () => {
  it.each(dtypes)("gives the log-probs and entropies that policyLoss sees (%s)", (dtype) => {
    const batch = batchOf({ vocab: 333, vocabSize: 300, dtype });
    const objective = rlsd({ temperature: 0.8, logitSoftcap: 5 });
    const { logProbs, stats } = policyLossSync(batch, objective);
    const got = tokenLogProbsSync(batch.student, batch.tokenIds!, {
      completionMask: mask,
      entropy: true,
      temperature: 0.8,
      logitSoftcap: 5,
    });
    expect(got.logProbs).toEqual(logProbs);
    const sum = got.entropy!.reduce((a, b) => a + b, 0);
    expect(sum / stats.tokens).toBeCloseTo(stats.entropyMean!, 5);
  });
});
