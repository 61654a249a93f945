import {
  type DistillLossBatch,
  type DistillLossOptions,
  type DistillLossResult,
  type DistributionScores,
  type DType,
  distillLoss,
  distillLossSync,
  empty,
  type Scores,
  type Tensor,
  tensor,
} from "../lib/index.js";
import { distillReference, type DistillBatch as ReferenceBatch } from "../lib/reference/distill.js";
import { asTensor, dtypes, identity, randomLogits, roundoff, valuesOf } from "./support/logits.js";
import { queueable } from "./support/queueable.js";
import { loadVector, poisoned, relativeError, vectorNames } from "./support/vectors.js";

type HiddenScores = Extract<Scores, { hidden: Tensor }>;
type LogitScores = Extract<Scores, { logits: Tensor }>;

describe.each(vectorNames)("distillLoss against the official code, %s, masked rows poisoned", (name) => {
  const vector = poisoned(loadVector(name));
  const { columns, tokens } = vector;
  const head = identity(columns);
  const views: Record<string, (values: Float64Array) => DistributionScores> = {
    logits: (values) => ({ logits: asTensor(values, [tokens, columns]) }),
    "an LM head": (values) => ({ hidden: asTensor(values, [tokens, columns]), head }),
  };

  it.each(Object.keys(views))("gives its losses and gradients from %s", (level) => {
    for (const { options, loss, dLogits } of vector.expected.distill) {
      const { student, teacher } = {
        student: views[level]!(vector.studentLogits),
        teacher: views[level]!(vector.teacherLogits),
      };
      const { cuSeqlens, completionMask } = vector;
      const got = distillLossSync({ student, teacher, cuSeqlens, completionMask }, options);
      expect(relativeError([got.loss], [loss], 0.01)).toBeLessThan(5e-5);
      expect(relativeError(valuesOf((got.gradient.logits ?? got.gradient.hidden)!), dLogits, 1e-3)).toBeLessThan(1e-4);
    }
  });
});

test("each token's value is clamped to 10 under topK alone, unless told otherwise", () => {
  const sureOf = (column: number) => ({
    logits: asTensor(
      [0, 1, 2, 3].map((v) => (v === column ? 60 : 0)),
      [1, 4],
    ),
  });
  const batch = { student: sureOf(1), teacher: sureOf(0), cuSeqlens: Int32Array.of(0, 1) };
  const loss = (more: Partial<DistillLossOptions>) =>
    distillLossSync(batch, { divergence: "forward-kl", ...more }).loss;
  expect(loss({})).toBeCloseTo(60);
  expect(loss({ topK: 2 })).toBe(10);
  expect(loss({ topK: 2, valueClamp: 20 })).toBe(20);
  expect(loss({ topK: 2, valueClamp: null })).toBeCloseTo(60);
});

const TOKENS = 12;
const ROWS = 15;
const rows = Int32Array.of(13, 12, 11, 10, 9, 8, 6, 5, 4, 3, 2, 1);
const mask = Uint8Array.of(1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0);
const cuSeqlens = Int32Array.of(0, 4, 4, 9, 12);

function logitsBatch(vocab: number, dtype: DType, vocabSize = vocab, spread = 2) {
  const scores = (seed: number): LogitScores => ({
    logits: asTensor(randomLogits(ROWS * vocab, spread, seed), [ROWS, vocab], dtype),
    rows,
    vocabSize,
  });
  return { student: scores(1), teacher: scores(2), cuSeqlens, completionMask: mask };
}

function hiddenBatch(vocab: number, dtype: DType, vocabSize = vocab) {
  const width = 19;
  const scores = (seed: number): HiddenScores => ({
    hidden: asTensor(randomLogits(ROWS * width, 1, seed), [ROWS, width], dtype),
    head: asTensor(randomLogits(vocab * width, 0.4, seed + 1), [vocab, width], dtype),
    bias: asTensor(randomLogits(vocab, 0.5, seed + 2), [vocab], dtype),
    rows,
    vocabSize,
  });
  return { student: scores(1), teacher: scores(11), cuSeqlens, completionMask: mask };
}

function referenceScores(scores: DistributionScores): ReferenceBatch["student"] {
  if (scores.logits !== undefined) {
    return { ...scores, logits: valuesOf(scores.logits), columns: scores.logits.shape.at(-1)! };
  }
  const { hidden, head, bias, ...rest } = scores;
  const width = hidden.shape.at(-1)!;
  return { ...rest, hidden: valuesOf(hidden), head: valuesOf(head), width, ...(bias && { bias: valuesOf(bias) }) };
}

function expectReference(
  got: DistillLossResult,
  batch: DistillLossBatch,
  options: DistillLossOptions,
  rounding = 1e-4,
): void {
  const expected = distillReference(
    { ...batch, student: referenceScores(batch.student), teacher: referenceScores(batch.teacher) } as ReferenceBatch,
    { reduction: "token-mean", temperature: 1, ...options, ...(options.topK && { valueClamp: 10 }) } as never,
  );
  expect(relativeError([got.loss], [expected.loss], 0.01)).toBeLessThan(5e-5);
  expect(relativeError(got.tokenLosses, expected.tokenLosses, 0.01)).toBeLessThan(5e-5);
  expect(got.stats.mean).toBeCloseTo(expected.stats.mean!, 5);
  expect({ ...got.stats, loss: 0, mean: 0 }).toEqual({ ...expected.stats, loss: 0, mean: 0 });
  for (const name of ["logits", "hidden", "head", "bias"] as const) {
    expect(got.gradient[name] === undefined).toBe(expected.gradient[name] === undefined);
    if (got.gradient[name] === undefined) continue;
    expect(relativeError(valuesOf(got.gradient[name]), expected.gradient[name]!, 1e-3)).toBeLessThan(rounding);
  }
}

const cases: Record<string, DistillLossOptions> = {
  "forward KL": { divergence: "forward-kl" },
  "reverse KL": { divergence: "reverse-kl", reduction: "sequence-mean" },
  "JSD(0.5)": { divergence: "jsd" },
  "JSD(0.1) at temperature 2": { divergence: "jsd", beta: 0.1, temperature: 2, reduction: "token-sum" },
  "JSD(0.9) under a softcap": { divergence: "jsd", beta: 0.9, logitSoftcap: 3 },
  "forward KL under a softcap and a temperature": { divergence: "forward-kl", logitSoftcap: 4, temperature: 0.7 },
  "reverse KL over a given normalizer": { divergence: "reverse-kl", reduction: "sequence-sum", normalizer: 7 },
  "forward KL, top 5 and the tail": { divergence: "forward-kl", topK: 5 },
  "reverse KL, top 5 and the tail": { divergence: "reverse-kl", topK: 5, logitSoftcap: 5 },
  "JSD(0.3), top 5 and the tail": { divergence: "jsd", beta: 0.3, topK: 5, temperature: 1.4 },
  "forward KL, top 80 and the tail": { divergence: "forward-kl", topK: 80 },
  "forward KL, top 5 alone": { divergence: "forward-kl", topK: 5, tail: false },
  "reverse KL, top 5 alone": { divergence: "reverse-kl", topK: 5, tail: false },
  "JSD(0.3), top 5 alone": { divergence: "jsd", beta: 0.3, topK: 5, tail: false },
};

describe.each(dtypes)("distillLoss in %s against the float64 reference", (dtype) => {
  const rounding = dtype === "f32" ? 1e-4 : roundoff[dtype];

  it.each(Object.keys(cases))("%s, from logits and from an LM head", (name) => {
    for (const batch of [logitsBatch(333, dtype, 320), hiddenBatch(200, dtype, 190)]) {
      expectReference(distillLossSync(batch, cases[name]!), batch, cases[name]!, rounding);
    }
  });
});

describe("distillLoss", () => {
  const jsd: DistillLossOptions = { divergence: "jsd" };

  it.each([1, 2, 3, 15, 16, 17, 1023, 1025, 50257])("takes a vocabulary of %d", (vocab) => {
    for (const divergence of ["forward-kl", "reverse-kl", "jsd"] as const) {
      const batch = logitsBatch(vocab, "f32");
      expectReference(distillLossSync(batch, { divergence }), batch, { divergence });
    }
  });

  it("takes more of the top than the vocabulary has: nothing is left for the tail", () => {
    const batch = logitsBatch(7, "f32");
    const options: DistillLossOptions = { divergence: "forward-kl", topK: 100 };
    expectReference(distillLossSync(batch, options), batch, options);
  });

  it.each([5, 64, 65, 100])("keeps the digits of a small rest outside of the top %d", (topK) => {
    const batch = logitsBatch(300, "f32", 300, 8);
    for (const divergence of ["forward-kl", "reverse-kl", "jsd"] as const) {
      const options = { divergence, topK, valueClamp: null, reduction: "token-sum", temperature: 0.7 } as const;
      const got = distillLossSync(batch, options);
      const views = { student: referenceScores(batch.student), teacher: referenceScores(batch.teacher) };
      const expected = distillReference({ ...batch, ...views } as ReferenceBatch, options);
      for (const [i, loss] of expected.tokenLosses.entries()) {
        expect(Math.abs(got.tokenLosses[i]! - loss)).toBeLessThan(1e-5 * Math.max(loss, 0.1));
      }
    }
  });

  it("is exactly 0, with no gradient, where the teacher is the student", () => {
    for (const divergence of ["forward-kl", "reverse-kl", "jsd"] as const) {
      const { student, ...rest } = logitsBatch(500, "f32");
      const got = distillLossSync({ ...rest, student, teacher: student }, { divergence });
      expect(got.loss).toBe(0);
      expect(got.gradient.logits!.data.every((g) => g === 0)).toBe(true);
    }
  });

  it("keeps its digits where the two sides are close", () => {
    const { student, ...rest } = logitsBatch(2000, "f32");
    const near = valuesOf(student.logits).map((z, i) => z + 0.01 * Math.sin(i));
    const batch = { ...rest, student, teacher: { ...student, logits: asTensor(near, [ROWS, 2000]) } };
    for (const divergence of ["forward-kl", "reverse-kl", "jsd"] as const) {
      const got = distillLossSync(batch, { divergence });
      const expected = distillReference(
        {
          ...batch,
          student: referenceScores(batch.student),
          teacher: referenceScores(batch.teacher),
        } as ReferenceBatch,
        { divergence, reduction: "token-mean", temperature: 1 },
      );
      expect(relativeError([got.loss], [expected.loss], 1e-9)).toBeLessThan(5e-3);
    }
  });

  it.each([
    ["hidden student, logits teacher", true],
    ["logits student, hidden teacher", false],
  ])("takes two levels: %s", (_name, hiddenStudent) => {
    const hidden = hiddenBatch(90, "f32");
    const logits = logitsBatch(90, "f32");
    const batch = hiddenStudent ? { ...hidden, teacher: logits.teacher } : { ...logits, teacher: hidden.teacher };
    expectReference(distillLossSync(batch, jsd), batch, jsd);
  });

  it("never reads a masked token, an unnamed row or padding", () => {
    const clean = distillLossSync(hiddenBatch(64, "f32", 50), jsd);
    const batch = hiddenBatch(64, "f32", 50);
    for (const { hidden, head } of [batch.student, batch.teacher]) {
      for (const row of [0, 7, 14, ...[2, 8, 11].map((token) => rows[token]!)]) {
        hidden.data.fill(Number.NaN, row * 19, (row + 1) * 19);
      }
      head.data.fill(Number.NaN, 50 * 19);
    }
    const got = distillLossSync(batch, jsd);
    expect(got.loss).toBe(clean.loss);
    for (const name of ["hidden", "head", "bias"] as const) {
      expect(got.gradient[name]!.data).toEqual(clean.gradient[name]!.data);
    }
  });

  it("compares nothing at a masked vocabulary, and finds an infinite KL bad", () => {
    const batch = logitsBatch(64, "f32");
    const mine = batch.student.logits.data;
    const theirs = batch.teacher.logits.data;
    for (let row = 0; row < ROWS; row++) for (const v of [3, 40]) mine[row * 64 + v] = theirs[row * 64 + v] = -Infinity;
    for (const divergence of ["forward-kl", "reverse-kl", "jsd"] as const) {
      const got = distillLossSync(batch, { divergence });
      expectReference(got, batch, { divergence });
      for (let row = 0; row < ROWS; row++) expect(got.gradient.logits!.data[row * 64 + 3]).toBe(0);
    }
    mine[rows[5]! * 64 + 9] = -Infinity;
    expect(() => distillLossSync(batch, { divergence: "forward-kl" })).toThrow(
      expect.objectContaining({ code: "ERR_RLSD_NON_FINITE", index: 5, count: 1 }),
    );
    expectReference(distillLossSync(batch, jsd), batch, jsd);
    const options: DistillLossOptions = { divergence: "forward-kl", nonFinite: "skip" };
    expectReference(distillLossSync(batch, options), batch, options);
  });

  it("leaves a bad row of hidden states out of every product", () => {
    const batch = hiddenBatch(64, "f32");
    const options: DistillLossOptions = { divergence: "jsd", nonFinite: "skip", reduction: "token-sum" };
    const withoutRow = { ...batch, completionMask: mask.map((one, i) => (i === 5 ? 0 : one)) };
    const clean = distillLossSync(withoutRow, options);
    batch.student.hidden.data[rows[5]! * 19] = Number.NaN;
    const got = distillLossSync(batch, options);
    expect(got.stats.nonFiniteRows).toBe(1);
    for (const name of ["hidden", "head", "bias"] as const) {
      expect(got.gradient[name]!.data).toEqual(clean.gradient[name]!.data);
    }
  });

  it("clamps a token's value and takes its gradient away", () => {
    const batch = logitsBatch(64, "f32");
    const options: DistillLossOptions = { divergence: "forward-kl", valueClamp: 2 };
    const got = distillLossSync(batch, options);
    const expected = distillReference(
      { ...batch, student: referenceScores(batch.student), teacher: referenceScores(batch.teacher) } as ReferenceBatch,
      { divergence: "forward-kl", valueClamp: 2, reduction: "token-mean", temperature: 1 },
    );
    expect(expected.stats.clampedFraction).toBeGreaterThan(0);
    expect(got.stats.clampedFraction).toBe(expected.stats.clampedFraction);
    expect(relativeError(valuesOf(got.gradient.logits!), expected.gradient.logits!, 1e-3)).toBeLessThan(1e-4);
    expect(Math.max(...got.tokenLosses)).toBe(2);
  });

  it("has the same bits on any number of threads, in place, and queued", async () => {
    const options: DistillLossOptions = { divergence: "jsd", topK: 20 };
    for (const make of [() => logitsBatch(3000, "bf16"), () => hiddenBatch(3000, "bf16")]) {
      const one = distillLossSync(make(), options, { threads: 1 });
      const others = [distillLossSync(make(), options, { threads: 3 }), await distillLoss(queueable(make()), options)];
      for (const other of others) {
        expect(other.loss).toBe(one.loss);
        expect(other.tokenLosses).toEqual(one.tokenLosses);
        for (const name of ["logits", "hidden", "head", "bias"] as const) {
          expect(other.gradient[name]?.data).toEqual(one.gradient[name]?.data);
        }
      }
    }
    const batch = logitsBatch(3000, "f32");
    const fresh = distillLossSync(batch, jsd).gradient.logits!.data.slice();
    const unnamed = [0, 7, 14].flatMap((row) => [...batch.student.logits.data.subarray(row * 3000, row * 3000 + 3000)]);
    const { logits } = distillLossSync(batch, jsd, { inPlace: true }).gradient;
    expect(logits).toBe(batch.student.logits);
    expect([0, 7, 14].flatMap((row) => [...logits!.data.subarray(row * 3000, row * 3000 + 3000)])).toEqual(unnamed);
    for (const row of rows) {
      expect(logits!.data.subarray(row * 3000, row * 3000 + 3000)).toEqual(
        fresh.subarray(row * 3000, row * 3000 + 3000),
      );
    }
  });

  it("scales every gradient, adds to the head's, and leaves a frozen head alone", () => {
    const batch = hiddenBatch(64, "f32");
    const plain = distillLossSync(batch, jsd).gradient;
    const head = tensor(new Float32Array(64 * 19).fill(1), [64, 19]);
    const bias = empty([64], "f32");
    const scaled = distillLossSync(batch, jsd, { lossScale: 4, accumulate: true, out: { head, bias } });
    const expected = valuesOf(plain.head!).map((g) => 1 + 4 * g);
    expect(relativeError(valuesOf(head), expected)).toBeLessThan(1e-6);
    expect(
      relativeError(
        valuesOf(scaled.gradient.hidden!),
        valuesOf(plain.hidden!).map((g) => 4 * g),
      ),
    ).toBeLessThan(1e-6);
    const frozen = distillLossSync(batch, jsd, { frozenHead: true }).gradient;
    expect(Object.keys(frozen)).toEqual(["hidden"]);
    expect(frozen.hidden!.data).toEqual(plain.hidden!.data);
  });

  it("returns zeros for a batch without an unmasked token, and for one without tokens", () => {
    const batch = { ...hiddenBatch(64, "f32"), completionMask: new Uint8Array(TOKENS) };
    const none = { rows: new Int32Array(0) };
    const empty = {
      student: { ...batch.student, ...none },
      teacher: { ...batch.teacher, ...none },
      cuSeqlens: Int32Array.of(0),
    };
    for (const got of [distillLossSync(batch, jsd), distillLossSync(empty, jsd)]) {
      expect(got.loss).toBe(0);
      expect(got.stats.mean).toBeUndefined();
      for (const gradient of Object.values(got.gradient)) {
        expect((gradient as Tensor).data.every((g) => g === 0)).toBe(true);
      }
    }
  });

  it("has the slope of its own loss", () => {
    for (const divergence of ["forward-kl", "reverse-kl", "jsd"] as const) {
      const batch = hiddenBatch(40, "f32");
      const { gradient } = distillLossSync(batch, { divergence });
      for (const [name, at] of [
        ["hidden", rows[1]! * 19 + 3],
        ["head", 5 * 19 + 2],
        ["bias", 5],
      ] as const) {
        const data = batch.student[name]!.data;
        const value = data[at]!;
        const lossAt = (x: number): number => {
          data[at] = x;
          const { loss } = distillLossSync(batch, { divergence });
          data[at] = value;
          return loss;
        };
        // Of fourth order, over steps so long that float32's rounding is small beside what they change.
        const rise = (step: number): number => lossAt(value + step) - lossAt(value - step);
        const slope = (8 * rise(0.1) - rise(0.2)) / 1.2;
        expect(Math.abs(gradient[name]!.data[at]! - slope)).toBeLessThan(1e-3 * Math.abs(slope) + 1e-6);
      }
    }
  });

  it("takes defaults where they are not used", () => {
    const batch = logitsBatch(8, "f32");
    const plain = distillLossSync(batch, { divergence: "forward-kl" });
    expect(distillLossSync(batch, { divergence: "forward-kl", beta: 0.5, tail: true, topK: null })).toEqual(plain);
  });

  it("says why the sampled-token estimate is refused", () => {
    const options = { divergence: "k1" } as unknown as DistillLossOptions;
    expect(() => distillLossSync(logitsBatch(8, "f32"), options)).toThrow(/does not contain the teacher/);
  });

  it.each<[string, () => unknown, RegExp]>([
    [
      "an unknown divergence",
      () => distillLossSync(logitsBatch(8, "f32"), { divergence: "kl" } as never),
      /forward-kl/,
    ],
    ["a beta of 1", () => distillLossSync(logitsBatch(8, "f32"), { divergence: "jsd", beta: 1 }), /beta/],
    [
      "a beta beside a KL",
      () => distillLossSync(logitsBatch(8, "f32"), { divergence: "reverse-kl", beta: 0.3 }),
      /none, as only "jsd" has one and the divergence is "reverse-kl", for beta but received 0.3/,
    ],
    [
      "no tail of a whole vocabulary",
      () => distillLossSync(logitsBatch(8, "f32"), { ...jsd, tail: false }),
      /none, as the whole vocabulary is compared without topK, for tail/,
    ],
    [
      "rows to skip",
      () => distillLossSync(logitsBatch(8, "f32"), jsd, { skipZeroRows: true } as never),
      /false, as distillLoss compares every row, for skipZeroRows/,
    ],
    ["logits to add to", () => distillLossSync(logitsBatch(8, "f32"), jsd, { accumulate: true }), /for accumulate/],
    ["half a token of topK", () => distillLossSync(logitsBatch(8, "f32"), { ...jsd, topK: 0.5 }), /topK/],
    ["a misspelt option", () => distillLossSync(logitsBatch(8, "f32"), { ...jsd, topk: 3 } as never), /topK/],
    [
      "log-probs",
      () =>
        distillLossSync({ ...logitsBatch(8, "f32"), teacher: { logProbs: new Float32Array(TOKENS) } as never }, jsd),
      /whole distributions/,
    ],
    [
      "another vocabulary",
      () => distillLossSync({ ...logitsBatch(8, "f32"), teacher: logitsBatch(9, "f32").teacher }, jsd),
      /one vocabulary/,
    ],
    [
      "offsets that descend",
      () => distillLossSync({ ...logitsBatch(8, "f32"), cuSeqlens: Int32Array.of(0, 9, 4, 12) }, jsd),
      /ascend/,
    ],
    [
      "a gradient over the teacher",
      () => {
        const batch = logitsBatch(8, "f32");
        return distillLossSync(batch, jsd, { out: { logits: batch.teacher.logits } });
      },
      /shares its memory/,
    ],
    ["an aborted signal", () => distillLossSync(logitsBatch(8, "f32"), jsd, { signal: AbortSignal.abort() }), /abort/],
  ])("refuses %s", (_name, run, message) => {
    expect(run).toThrow(message);
  });

  it("rejects a queued call with the signal's reason", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(distillLoss(logitsBatch(8, "f32"), jsd, { signal })).rejects.toThrow("enough");
  });
});

describe("chunks of an LM head", () => {
  it("add up to the gradients of whole logits", () => {
    const [tokens, vocab, width] = [60, 151_936, 2];
    const scores = (seed: number) => ({
      hidden: asTensor(randomLogits(tokens * width, 1, seed), [tokens, width]),
      head: asTensor(randomLogits(vocab * width, 1, seed + 1), [vocab, width]),
    });
    const logitsOf = ({ hidden, head }: HiddenScores): LogitScores => {
      const [h, w] = [hidden.data, head.data];
      const logits = new Float32Array(tokens * vocab);
      for (let i = 0; i < tokens; i++) {
        for (let v = 0; v < vocab; v++) logits[i * vocab + v] = h[2 * i]! * w[2 * v]! + h[2 * i + 1]! * w[2 * v + 1]!;
      }
      return { logits: tensor(logits, [tokens, vocab]) };
    };
    const batch = { student: scores(1), teacher: scores(5), cuSeqlens: Int32Array.of(0, tokens) };
    const options: DistillLossOptions = { divergence: "jsd" };
    const got = distillLossSync(batch, options);
    const whole = distillLossSync(
      { ...batch, student: logitsOf(batch.student), teacher: logitsOf(batch.teacher) },
      options,
    );
    const dz = whole.gradient.logits!.data;
    const expected = { hidden: new Float64Array(tokens * width), head: new Float64Array(vocab * width) };
    const [h, w] = [batch.student.hidden.data, batch.student.head.data];
    for (let i = 0; i < tokens; i++) {
      for (let v = 0; v < vocab; v++) {
        const g = dz[i * vocab + v]!;
        for (let k = 0; k < width; k++) {
          expected.hidden[i * width + k]! += g * w[v * width + k]!;
          expected.head[v * width + k]! += g * h[i * width + k]!;
        }
      }
    }
    expect(relativeError([got.loss], [whole.loss], 0.01)).toBeLessThan(1e-5);
    expect(relativeError(got.gradient.hidden!.data, expected.hidden)).toBeLessThan(1e-4);
    expect(relativeError(got.gradient.head!.data, expected.head)).toBeLessThan(1e-4);
  });
});
