import { createHash } from "node:crypto";
import fc from "fast-check";
import {
  gmpo,
  grpo,
  gspo,
  type Objective,
  type PolicyBatch,
  type PolicyResult,
  policyLoss,
  policyLossSync,
  rlsd,
  tensor,
} from "../lib/index.js";
import type { ObjectiveFields } from "../lib/objectives/objective.js";
import { policyLossReference } from "../lib/reference/policy-loss.js";
import {
  batches,
  coarse,
  complete,
  type LogProbBatch,
  manyTokens,
  objectiveOptions,
  poisonBatch,
  poisonMasked,
  runs,
  toPolicyBatch,
  toReferenceBatch,
} from "./support/batches.js";
import { objectiveFields } from "./support/fields.js";
import { loadPublished, presetOf } from "./support/published.js";
import {
  expectOfficial,
  inputsOf,
  loadVector,
  officialMetrics,
  poisoned,
  relativeError,
  unmasked,
  type VectorCase,
  vectorNames,
} from "./support/vectors.js";

const f32 = (values: ArrayLike<number>): Float32Array => Float32Array.from(values);

/** The objective of a fixture: every field is given, so the preset behind it does not matter. */
const objectiveOf = (fields: Partial<ObjectiveFields>): Objective => grpo(objectiveFields(fields));

/** A case at log-prob level, masked entries NaN. */
function batchOf(vector: VectorCase): PolicyBatch {
  const mask = vector.completionMask;
  return {
    ...inputsOf(vector),
    student: { logProbs: poisonMasked(f32(vector.expected.logProbs), mask) },
    teacher: { logProbs: poisonMasked(f32(vector.expected.teacherLogProbs), mask) },
  };
}

/** The reference's batch with the API's own float32 inputs. */
const referenceOf = (batch: PolicyBatch) =>
  Object.fromEntries(Object.entries(batch).filter(([, value]) => value !== undefined)) as never;

describe.each(vectorNames)("policyLoss against the official code, %s, masked entries poisoned", (name) => {
  const vector = poisoned(loadVector(name));
  const { expected, fields, completionMask: mask } = vector;
  const got = policyLossSync(batchOf(vector), objectiveOf(fields));

  it("gives its loss, token advantages and gradient within 2e-5", () => expectOfficial(got, vector));

  it("gives back the log-probs it read, 0 where masked", () => {
    expect(got.logProbs).toEqual(f32(unmasked(expected.logProbs, mask)));
    expect(got.teacherLogProbs).toEqual(f32(unmasked(expected.teacherLogProbs, mask)));
  });

  it("gives the reference's evidence weights", () => {
    const reference = policyLossReference(referenceOf(batchOf(vector)), fields);
    expect(relativeError(got.evidenceWeights!, reference.evidenceWeights)).toBeLessThan(1e-7);
  });

  it("gives the official metrics as statistics", () => {
    for (const [value, metric] of officialMetrics(got.stats, fields)) {
      expect([metric, relativeError([value], [expected.metrics[metric]!], 1e-2) < 2e-5]).toEqual([metric, true]);
    }
  });
});

// Inputs rounded to float32 move a ratio by 1e-7 of its log-probs; a mean over a sequence of verl has 1e-8 in its length.
describe.each(["trl.json", "verl.json"] as const)("the presets against the published %s", (file) => {
  const { shape, cases } = loadPublished(file);
  const [sequences, length] = shape;

  it.each(cases.map((published) => [published.name, published] as const))("equal %s", (_, published) => {
    const { inputs } = published;
    const mask = Uint8Array.from(inputs.mask);
    const poison = (values: number[]) => poisonMasked(f32(values), mask);
    const got = policyLossSync(
      {
        student: { logProbs: poison(inputs.logProbs) },
        cuSeqlens: Int32Array.from({ length: sequences + 1 }, (__, b) => b * length),
        completionMask: mask,
        advantages: inputs.advantages.length === sequences ? f32(inputs.advantages) : poison(inputs.advantages),
        oldLogProbs: poison(inputs.oldLogProbs),
        refLogProbs: inputs.refLogProbs && poison(inputs.refLogProbs),
        samplerLogProbs: inputs.samplerLogProbs && poison(inputs.samplerLogProbs),
      },
      presetOf(published),
    );
    const floor = Math.max(...inputs.advantages.map(Math.abs));
    expect(relativeError([got.loss], [published.loss], floor)).toBeLessThan(2e-6);
    expect(relativeError(got.gradient.logProbs, published.dLogProbs)).toBeLessThan(2e-5);
  });
});

/**
 * Native and reference both compute in float64 from the same float32 inputs, so that what is left is the rounding of
 * each result to float32 (2^-24 of it; infinity beyond its range), and 1e-12 of the largest for another order of sums and another exp().
 */
function expectRounded(name: string, got: ArrayLike<number>, expected: ArrayLike<number>): void {
  let largest = 1;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]!));
  for (let i = 0; i < expected.length; i++) {
    const within = Math.abs(got[i]! - expected[i]!) <= 2 ** -24 * Math.abs(expected[i]!) + 1e-12 * largest;
    if (!within && !Object.is(got[i], Math.fround(expected[i]!))) {
      throw new Error(`${name}[${i}]: expected ${expected[i]} but received ${got[i]}`);
    }
  }
}

function run(b: LogProbBatch, options: Partial<ObjectiveFields>): PolicyResult {
  return policyLossSync(toPolicyBatch(b), objectiveOf(options));
}

/** Every (N) result, by name. */
const tokenResults = (r: PolicyResult): [string, Float32Array][] => [
  ["logProbs", r.logProbs],
  ["tokenAdvantages", r.tokenAdvantages],
  ["evidenceWeights", r.evidenceWeights!],
  ["gradient", r.gradient.logProbs],
];

/** Every bit of a result, as one short string. */
function bits(r: PolicyResult): string {
  const hash = createHash("sha256");
  for (const [, values] of tokenResults(r))
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  const stats = Object.entries(r.stats).map(([name, value]) => [name, Object.is(value, -0) ? "-0" : value]);
  return hash.update(JSON.stringify(stats)).digest("hex");
}

describe("policyLoss on random batches", () => {
  const cases = fc
    .tuple(batches, objectiveOptions)
    .map(([b, options]) => [poisonBatch(complete(b, options)), options] as const)
    .filter(([, o]) => (o.importanceMin ?? 0) <= (o.importanceMax ?? Number.POSITIVE_INFINITY));

  beforeAll(() => {
    // evidenceClip >= 1 is among the cases; its warning has a test of its own.
    jest.spyOn(process, "emitWarning").mockImplementation(() => undefined);
  });
  afterAll(() => jest.restoreAllMocks());

  function expectReference(b: LogProbBatch, options: Partial<ObjectiveFields>): void {
    const got = run(b, options);
    const expected = policyLossReference(toReferenceBatch(b), objectiveFields(options));
    expectRounded("logProbs", got.logProbs, expected.logProbs);
    expectRounded("tokenAdvantages", got.tokenAdvantages, expected.tokenAdvantages);
    expectRounded("evidenceWeights", got.evidenceWeights!, expected.evidenceWeights);
    expectRounded("gradient", got.gradient.logProbs, expected.gradient.logProbs);
    expect(Object.keys(got.stats).sort()).toEqual(Object.keys(expected.stats).sort());
    for (const [name, value] of Object.entries(expected.stats)) {
      expectRounded(name, [got.stats[name as keyof typeof got.stats]!], [value as number]);
    }
  }

  it("equals the float64 reference within the rounding of its results", () => {
    fc.assert(
      fc.property(cases, ([b, options]) => expectReference(b, options)),
      runs(700),
    );
  });

  // What most calls are, for which native code has a loop of its own, and one step away from it.
  describe("of the common kind", () => {
    const common = {
      ...({ objective: "ppo-clip", klCoef: 0, importanceCorrection: "none", negativeOnly: false } as const),
      ...({ clipMode: "symmetric", normalize: "none", studentSource: "current" } as const),
    };
    const plain = (b: LogProbBatch): LogProbBatch => ({
      ...b,
      ...{ spanMask: undefined, contrastLogProbs: undefined, refLogProbs: undefined, samplerLogProbs: undefined },
    });
    const near = (b: LogProbBatch, by: number) => b.logProbs.map((p, i) => p + by * Math.sin(i + 1));
    const steps: [string, (b: LogProbBatch) => Partial<LogProbBatch>, Partial<ObjectiveFields>][] = [
      ["alone", () => ({}), {}],
      ["without a teacher", () => ({ teacherLogProbs: undefined }), {}],
      ["with spans", (b) => ({ spanMask: b.completionMask.map((_, i) => i % 2) }), {}],
      ["with a contrast", (b) => ({ teacherLogProbs: near(b, 0.3), contrastLogProbs: near(b, -0.3) }), {}],
      ["with a reference", (b) => ({ refLogProbs: near(b, 0.3) }), { klCoef: 0.1 }],
      ["with a sampler", (b) => ({ samplerLogProbs: near(b, 0.3) }), { importanceCorrection: "token-truncate" }],
      ["for negative sequences only", () => ({}), { negativeOnly: true }],
      ["clipped as in the paper", () => ({}), { clipMode: "pessimistic" }],
      ["normalized", () => ({}), { normalize: "sequence" }],
      ["with evidence against the old student", (b) => ({ oldLogProbs: near(b, 0.3) }), { studentSource: "old" }],
      ["with another surrogate", () => ({}), { objective: "cispo" }],
    ];
    it.each(steps)("%s equals the reference", (_, change, options) => {
      fc.assert(
        fc.property(batches, objectiveOptions, (b, o) => {
          const base = plain(b);
          expectReference(poisonBatch({ ...base, ...change(base) }), { ...o, ...common, ...options });
        }),
        runs(60),
      );
    });
  });

  it("leaves bad rows out as the reference does, whatever is not finite", () => {
    const bad = fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);
    const arrays = fc.constantFrom(
      "logProbs",
      "oldLogProbs",
      "teacherLogProbs",
      "contrastLogProbs",
      "refLogProbs",
      "samplerLogProbs",
    );
    const holes = fc.array(fc.tuple(arrays, fc.nat(), bad), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(cases, holes, ([b, options], spots) => {
        if (b.logProbs.length === 0) return;
        const broken: LogProbBatch = { ...b };
        for (const [name, at, value] of spots) {
          const values = broken[name]?.slice();
          if (values === undefined) continue;
          values[at % values.length] = value;
          Object.assign(broken, { [name]: values });
        }
        const got = run(broken, { ...options, nonFinite: "skip" });
        const expected = policyLossReference(toReferenceBatch(broken), objectiveFields(options));
        expectRounded("tokenAdvantages", got.tokenAdvantages, expected.tokenAdvantages);
        expectRounded("gradient", got.gradient.logProbs, expected.gradient.logProbs);
        expectRounded("evidenceWeights", got.evidenceWeights!, expected.evidenceWeights);
        expectRounded("loss", [got.loss], [expected.loss]);
        expect([got.stats.nonFiniteRows, got.stats.nanTeacherRows]).toEqual([
          expected.stats.nonFiniteRows,
          expected.stats.nanTeacherRows,
        ]);
      }),
      runs(250),
    );
  });

  it("gives 0 at every masked token, whatever stands there", () => {
    fc.assert(
      fc.property(cases, ([b, options]) => {
        for (const [, values] of tokenResults(run(b, options))) {
          for (const [i, one] of b.completionMask.entries()) if (one === 0) expect(values[i]).toBe(0);
        }
      }),
      runs(100),
    );
  });

  it("never turns the sign of an advantage", () => {
    fc.assert(
      fc.property(cases, ([b, options]) => {
        const { tokenAdvantages } = run(b, options);
        const sequences = b.cuSeqlens.length - 1;
        for (let s = 0; s < sequences; s++) {
          for (let i = b.cuSeqlens[s]!; i < b.cuSeqlens[s + 1]!; i++) {
            if (b.completionMask[i] === 0) continue;
            const a = b.advantages.length === sequences ? b.advantages[s]! : b.advantages[i]!;
            expect(Math.sign(tokenAdvantages[i]!) * Math.sign(a)).toBeGreaterThanOrEqual(0);
          }
        }
      }),
      runs(100),
    );
  });

  it("permutes with its sequences: no sequence sees another", () => {
    fc.assert(
      fc.property(cases, ([b, options]) => {
        const sequences = b.cuSeqlens.length - 1;
        const order = Array.from({ length: sequences }, (_, s) => (s * 5 + 2) % Math.max(1, sequences)).filter(
          (s, at, all) => all.indexOf(s) === at,
        );
        if (order.length !== sequences) return;
        const tokens = order.flatMap((s) =>
          Array.from({ length: b.cuSeqlens[s + 1]! - b.cuSeqlens[s]! }, (_, k) => b.cuSeqlens[s]! + k),
        );
        const pick = <T extends Float32Array | Uint8Array | undefined>(from: T, by: number[]): T =>
          from?.map((_, k) => from[by[k]!]!) as T;
        const lengths = order.map((s) => b.cuSeqlens[s + 1]! - b.cuSeqlens[s]!);
        const cuSeqlens = Int32Array.from([0, ...lengths]);
        for (let s = 0; s < sequences; s++) cuSeqlens[s + 1]! += cuSeqlens[s]!;
        const moved: LogProbBatch = {
          cuSeqlens,
          completionMask: pick(b.completionMask, tokens),
          spanMask: pick(b.spanMask, tokens),
          advantages: pick(b.advantages, b.advantages.length === sequences ? order : tokens),
          logProbs: pick(b.logProbs, tokens),
          oldLogProbs: pick(b.oldLogProbs, tokens),
          teacherLogProbs: pick(b.teacherLogProbs, tokens),
          contrastLogProbs: pick(b.contrastLogProbs, tokens),
          refLogProbs: pick(b.refLogProbs, tokens),
          samplerLogProbs: pick(b.samplerLogProbs, tokens),
        };
        const straight = run(b, options);
        const permuted = run(moved, options);
        for (const [k, [name, values]] of tokenResults(straight).entries()) {
          expect([name, tokenResults(permuted)[k]![1]]).toEqual([name, pick(values, tokens)]);
        }
        expectRounded("loss", [permuted.loss], [straight.loss]);
      }),
      runs(100),
    );
  });

  it("gives the same bits queued as at once", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ([b, options]) => {
        const objective = objectiveOf(options);
        expect(bits(await policyLoss(toPolicyBatch(b), objective))).toEqual(
          bits(policyLossSync(toPolicyBatch(b), objective)),
        );
      }),
      runs(80),
    );
  });

  it("multiplies the gradient, and nothing else, by lossScale", () => {
    fc.assert(
      fc.property(cases, fc.constantFrom(0, -2, 0.5, 1024), ([b, options], lossScale) => {
        const plain = run(b, options);
        const scaled = policyLossSync(toPolicyBatch(b), objectiveOf(options), { lossScale });
        expectRounded(
          "gradient",
          scaled.gradient.logProbs,
          plain.gradient.logProbs.map((g) => g * lossScale),
        );
        expect({ ...scaled, gradient: undefined }).toEqual({ ...plain, gradient: undefined });
      }),
      runs(60),
    );
  });

  it("writes into the arrays it is given what it returns without them", () => {
    fc.assert(
      fc.property(cases, ([b, options]) => {
        const n = b.logProbs.length;
        const out = {
          logProbs: new Float32Array(n).fill(7),
          tokenAdvantages: new Float32Array(n).fill(7),
          evidenceWeights: new Float32Array(n).fill(7),
          gradientLogProbs: new Float32Array(n).fill(7),
          teacherLogProbs: new Float32Array(n).fill(7),
        };
        const plain = run(b, options);
        const given = policyLossSync(toPolicyBatch(b), objectiveOf(options), { out });
        expect(given.logProbs).toBe(out.logProbs);
        expect(given.gradient.logProbs).toBe(out.gradientLogProbs);
        expect(bits(given)).toEqual(bits(plain));
      }),
      runs(60),
    );
  });
});

describe("policyLoss on a batch of many tasks", () => {
  // 9 tasks of the pool, sequences of 0 to 160 tokens, holes in the mask.
  const big = manyTokens(40000);
  const objectives: [string, Objective][] = [
    ["rlsd", rlsd({ klCoef: 0.1 })],
    ["gspo with normalized credit", rlsd({ normalize: "sequence" }, gspo())],
    ["gmpo", gmpo({ importanceCorrection: "sequence-mask" })],
  ];

  it.each(objectives)("gives the same bits on any number of threads, at once and queued: %s", async (_, objective) => {
    const batch = toPolicyBatch(big);
    const expected = bits(policyLossSync(batch, objective, { threads: 1 }));
    for (const threads of [2, 3, 7, 64, 2 ** 40]) {
      expect(bits(policyLossSync(batch, objective, { threads }))).toEqual(expected);
    }
    const queued = await Promise.all([1, 2, 5].map((threads) => policyLoss(batch, objective, { threads })));
    for (const result of queued) expect(bits(result)).toEqual(expected);
  });

  it("equals the float64 reference", () => {
    const options = { ...objectiveFields({ klCoef: 0.1 }), creditMix: 0.5, reduction: "sequence-mean" as const };
    const got = run(big, options);
    const expected = policyLossReference(toReferenceBatch(big), options);
    expectRounded("gradient", got.gradient.logProbs, expected.gradient.logProbs);
    expectRounded("loss", [got.loss], [expected.loss]);
  });
});

describe("the gradient of policyLoss", () => {
  // What it holds constant must not move with the student: evidence is measured against the old log-probs, and a
  // sequence's ratio, which passes straight through to its tokens, gets one advantage a sequence and no credit.
  const bySequence = ["gspo", "gspo-token", "luspo", "gmpo"] as const;
  const byToken = ["ppo-clip", "sapo", "row-coefficient"] as const;
  const options = fc
    .tuple(objectiveOptions, fc.constantFrom(...bySequence, ...byToken))
    .map(([o, objective]): Partial<ObjectiveFields> => {
      const sequence = (bySequence as readonly string[]).includes(objective);
      // A factor that differs from token to token would weigh the tokens of a shared ratio differently.
      const shared = sequence
        ? { klImportanceCorrection: false, importanceCorrection: "sequence-truncate" as const, creditMix: 0 }
        : {};
      return { ...o, objective, studentSource: "old", klClamp: 10, importanceMin: null, importanceMax: 3, ...shared };
    });

  it("is the central difference of the reference's loss, where that is smooth", () => {
    let compared = 0;
    fc.assert(
      fc.property(batches, options, (plain, o) => {
        const sequence = (bySequence as readonly string[]).includes(o.objective!);
        const b = complete(
          sequence && plain.advantages.length !== plain.cuSeqlens.length - 1 ? coarse(plain) : plain,
          o,
        );
        const got = run(b, o);
        const logProbs = Float64Array.from(b.logProbs);
        const reference = { ...toReferenceBatch(b), oldLogProbs: b.oldLogProbs!, student: { logProbs } };
        const fields = objectiveFields(o);
        const lossAt = (i: number, step: number): number => {
          const kept = logProbs[i]!;
          logProbs[i] = kept + step;
          const { loss } = policyLossReference(reference, fields);
          logProbs[i] = kept;
          return loss;
        };
        const here = lossAt(0, 0);
        for (const i of logProbs.keys()) {
          const h = 1e-4;
          const [above, below] = [lossAt(i, h) - here, here - lossAt(i, -h)];
          const smooth = Math.abs(above - below) <= 50 * h * Math.max(Math.abs(above), Math.abs(below)) + 1e-11;
          if (!smooth || !Number.isFinite(above) || Math.abs(here) > 1e6) continue;
          const slope = (above + below) / (2 * h);
          const distance = Math.abs(got.gradient.logProbs[i]! - slope);
          if (distance > 1e-4 * Math.max(0.01, Math.abs(slope))) {
            throw new Error(`token ${i}: expected ${slope} but received ${got.gradient.logProbs[i]}`);
          }
          compared++;
        }
      }),
      runs(120),
    );
    expect(compared).toBeGreaterThan(100);
  });
});

it("takes f32 tensors of the CPU for its arrays of numbers", async () => {
  const batch = batchOf(loadVector(vectorNames[0]!));
  const { advantages, oldLogProbs, refLogProbs } = batch as unknown as Record<string, Float32Array>;
  const tensors = {
    advantages: tensor(advantages!, [advantages!.length, 1]),
    oldLogProbs: tensor(oldLogProbs!, [oldLogProbs!.length]),
    refLogProbs: tensor(refLogProbs!, [2, refLogProbs!.length / 2]),
  };
  const expected = policyLossSync(batch, rlsd());
  expect(policyLossSync({ ...batch, ...tensors }, rlsd())).toEqual(expected);
  expect(await policyLoss({ ...batch, ...tensors }, rlsd())).toEqual(expected);
  const wrong = { ...batch, oldLogProbs: tensor(new Uint16Array(oldLogProbs!.length), [oldLogProbs!.length], "bf16") };
  expect(() => policyLossSync(wrong, rlsd())).toThrow(/Float32Array of \d+ for oldLogProbs/);
});
