import fc from "fast-check";
import type { PolicyBatch } from "../../lib/index.js";
import type { ObjectiveFields } from "../../lib/objectives/objective.js";
import type { ReferenceBatch } from "../../lib/reference/batch.js";
import { type SeededRandom, seededRandom } from "./random.js";

/** A batch at log-prob level in plain float32 arrays, from which both the API's and the reference's are made. */
export interface LogProbBatch {
  readonly cuSeqlens: Int32Array;
  readonly completionMask: Uint8Array;
  readonly spanMask: Uint8Array | undefined;
  /** (B) or (N) */
  readonly advantages: Float32Array;
  readonly logProbs: Float32Array;
  readonly oldLogProbs: Float32Array | undefined;
  readonly teacherLogProbs: Float32Array | undefined;
  readonly contrastLogProbs: Float32Array | undefined;
  readonly refLogProbs: Float32Array | undefined;
  readonly samplerLogProbs: Float32Array | undefined;
}

const view = (logProbs: Float32Array | undefined) => (logProbs === undefined ? undefined : { logProbs });

export function toPolicyBatch(b: LogProbBatch): PolicyBatch {
  const { logProbs, teacherLogProbs, contrastLogProbs, ...rest } = b;
  return { ...rest, student: { logProbs }, teacher: view(teacherLogProbs), contrast: view(contrastLogProbs) };
}

export function toReferenceBatch(b: LogProbBatch): ReferenceBatch {
  const entries = Object.entries(toPolicyBatch(b)).filter(([, value]) => value !== undefined);
  return { tokenIds: [], ...Object.fromEntries(entries) } as unknown as ReferenceBatch;
}

export const tokensOf = (b: LogProbBatch): number => b.logProbs.length;

/** A value of `from` at each token, NaN at each masked one: nothing there may be read. */
export function poisonMasked<T extends Float32Array | undefined>(from: T, mask: Uint8Array): T {
  return from?.map((value, i) => (mask[i] === 1 ? value : Number.NaN)) as T;
}

/** The same batch with NaN wherever the mask is 0. */
export function poisonBatch(b: LogProbBatch): LogProbBatch {
  const mask = b.completionMask;
  const perToken = b.advantages.length !== b.cuSeqlens.length - 1;
  return {
    ...b,
    advantages: perToken ? poisonMasked(b.advantages, mask) : b.advantages,
    logProbs: poisonMasked(b.logProbs, mask),
    oldLogProbs: poisonMasked(b.oldLogProbs, mask),
    teacherLogProbs: poisonMasked(b.teacherLogProbs, mask),
    contrastLogProbs: poisonMasked(b.contrastLogProbs, mask),
    refLogProbs: poisonMasked(b.refLogProbs, mask),
    samplerLogProbs: poisonMasked(b.samplerLogProbs, mask),
  };
}

/** Mostly near 0, at times exactly 0, at times far out. */
function shift(random: SeededRandom): number {
  const kind = random.integer(10);
  if (kind < 6) return 1.2 * random.uniform() - 0.6;
  if (kind < 8) return 8 * random.uniform() - 4;
  return kind === 8 ? 0 : 120 * random.uniform() - 60;
}

function advantage(random: SeededRandom): number {
  return random.integer(9) < 8 ? 5 * random.uniform() - 2.5 : ([0, -0, 1, -1][random.integer(4)] as number);
}

/** Sequence lengths and a seed for the values, so that a failing case shrinks to few tokens and costs little to make. */
interface BatchPlan {
  readonly lengths: number[];
  readonly seed: number;
  readonly perToken: boolean;
  readonly given: { span: boolean; old: boolean; teacher: boolean; contrast: boolean; ref: boolean; sampler: boolean };
}

function makeBatch({ lengths, seed, perToken, given }: BatchPlan): LogProbBatch {
  const random = seededRandom(seed);
  const cuSeqlens = Int32Array.from([0, ...lengths]);
  for (let b = 0; b < lengths.length; b++) cuSeqlens[b + 1]! += cuSeqlens[b]!;
  const n = cuSeqlens[lengths.length]!;
  const array = (length: number, value: () => number) => Float32Array.from({ length }, value);
  const mask = () => Uint8Array.from({ length: n }, () => (random.integer(4) > 0 ? 1 : 0));
  const logProbs = array(n, () => -30 * random.uniform() ** 2);
  const near = (wanted: boolean) => (wanted ? logProbs.map((logP) => logP + shift(random)) : undefined);
  return {
    cuSeqlens,
    completionMask: mask(),
    spanMask: given.span ? mask() : undefined,
    advantages: array(perToken ? n : lengths.length, () => advantage(random)),
    logProbs,
    oldLogProbs: near(given.old),
    teacherLogProbs: near(given.teacher),
    contrastLogProbs: near(given.teacher && given.contrast),
    refLogProbs: near(given.ref),
    samplerLogProbs: near(given.sampler),
  };
}

/** About `tokens` tokens in sequences of 0 to 160. */
export function manyTokens(tokens: number): LogProbBatch {
  const lengths = Array.from({ length: Math.ceil(tokens / 80) }, (_, b) => (b * 37) % 161);
  const given = { span: true, old: true, teacher: true, contrast: false, ref: true, sampler: true };
  return poisonBatch(makeBatch({ lengths, seed: 7, perToken: false, given }));
}

/** The same batch with one advantage a sequence: that of its first token. */
export function coarse(b: LogProbBatch): LogProbBatch {
  const advantages = Float32Array.from(b.cuSeqlens.subarray(0, -1), (begin) => b.advantages[begin] ?? 1);
  return { ...b, advantages };
}

const mostly = fc.integer({ min: 0, max: 3 }).map((k) => k > 0);
const seldom = fc.integer({ min: 0, max: 3 }).map((k) => k > 2);

/** Batches of up to 7 sequences, empty ones and wholly masked ones among them. `oldLogProbs` etc. are near `logProbs`. */
export const batches: fc.Arbitrary<LogProbBatch> = fc
  .record({
    lengths: fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 0, maxLength: 7 }),
    seed: fc.integer({ min: 0, max: 2 ** 31 }),
    perToken: fc.boolean(),
    given: fc.record({
      span: seldom,
      old: mostly,
      teacher: mostly,
      contrast: seldom,
      ref: mostly,
      sampler: fc.boolean(),
    }),
  })
  .map(makeBatch);

const clip = fc.constantFrom(0, 3e-4, 0.2, 0.28, 0.9, 1, 1.5);
const nullable = (...values: number[]): fc.Arbitrary<number | null> => fc.constantFrom(null, ...values);

/** Objectives over every field that matters at log-prob level. */
export const objectiveOptions: fc.Arbitrary<Partial<ObjectiveFields>> = fc.record({
  objective: fc.constantFrom("ppo-clip", "gspo", "gspo-token", "cispo", "sapo", "luspo", "gmpo", "row-coefficient"),
  clipLow: clip,
  clipHigh: clip,
  dualClip: nullable(1.05, 3),
  ratioBound: nullable(0.7, 1.1, 2),
  reduction: fc.constantFrom("token-mean", "sequence-mean", "sequence-sum", "token-sum"),
  normalizer: nullable(7.5),
  klCoef: fc.constantFrom(0, 0.1, 1),
  klEstimator: fc.constantFrom("k1", "k2", "k3", "abs"),
  klClamp: nullable(0.01, 10),
  klImportanceCorrection: fc.boolean(),
  importanceCorrection: fc.constantFrom("none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"),
  importanceMin: nullable(0.5),
  importanceMax: nullable(0.9, 3),
  sapoTemperaturePos: fc.constantFrom(0.5, 1, 3),
  sapoTemperatureNeg: fc.constantFrom(0.5, 1.05, 3),
  creditMix: fc.constantFrom(0, 0.5, 1),
  evidenceClip: fc.constantFrom(0, 0.2, 0.9, 1, 2),
  negativeOnly: fc.boolean(),
  clipMode: fc.constantFrom("symmetric", "pessimistic"),
  normalize: fc.constantFrom("none", "sequence"),
  studentSource: fc.constantFrom("current", "old"),
} as const);

/** What an objective needs of a batch, given to it: old and reference log-probs, coefficients (N). */
export function complete(b: LogProbBatch, fields: Partial<ObjectiveFields>): LogProbBatch {
  const n = tokensOf(b);
  const oldLogProbs = fields.studentSource === "old" ? (b.oldLogProbs ?? b.logProbs.slice()) : b.oldLogProbs;
  const perSequence = b.advantages.length !== n;
  const advantages =
    fields.objective === "row-coefficient" && perSequence
      ? Float32Array.from({ length: n }, (_, i) => Math.fround(Math.sin(i + 1)))
      : b.advantages;
  const refLogProbs = (fields.klCoef ?? 0) > 0 ? (b.refLogProbs ?? b.logProbs.map((p) => p - 0.25)) : b.refLogProbs;
  return { ...b, oldLogProbs, refLogProbs, advantages };
}

/** fast-check's settings: the same cases in every run. RLSD_TEST_SEED and RLSD_TEST_RUNS search further. */
export function runs(count: number): { seed: number; numRuns: number } {
  const factor = Number(process.env.RLSD_TEST_RUNS ?? 1);
  return { seed: Number(process.env.RLSD_TEST_SEED ?? 20260404), numRuns: Math.ceil(count * factor) };
}
