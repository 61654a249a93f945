import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { PolicyBatch, PolicyResult, Stats } from "../../lib/index.js";
import type { ObjectiveFields } from "../../lib/objectives/objective.js";
import { objectiveFields } from "./fields.js";

interface FileTensor {
  readonly shape: number[];
  readonly data: (number | "inf" | "-inf" | "nan")[];
}

interface FileDistill {
  readonly loss: number;
  readonly dStudentLogits: FileTensor;
  readonly k?: number;
  readonly addTail?: boolean;
}

interface VectorFile {
  readonly name: string;
  readonly options: {
    readonly temperature: number;
    readonly lambda: number;
    readonly clipRange: number;
    readonly negativeOnly: boolean;
    readonly clipRatioLow: number;
    readonly clipRatioHigh: number;
    readonly clipRatioDual: number;
    readonly lossType: "grpo" | "gspo_token" | "cispo";
    readonly aggregation: "token-mean" | "seq-mean-token-mean";
    readonly klCoef: number;
    readonly advantageEps: number;
    readonly stdDdof: 0 | 1;
  };
  readonly inputs: Record<
    "studentLogits" | "teacherLogits" | "tokenIds" | "mask" | "rewards" | "groupIds" | "oldLogprobs" | "refLogprobs",
    FileTensor
  > & { readonly spanMask: FileTensor | null };
  readonly expected: Record<
    | "groupAdvantages"
    | "rlooAdvantages"
    | "studentLogprobs"
    | "teacherLogprobs"
    | "tokenAdvantages"
    | "dLogprobs"
    | "dStudentLogits",
    FileTensor
  > &
    Record<"distill_jsd" | "distill_forward_kl" | "distill_reverse_kl" | "distill_topk_forward_kl", FileDistill> & {
      readonly loss: number;
      readonly policyLoss: number;
      readonly metrics: Record<string, number>;
    };
}

export interface DistillCase {
  /** The options of `distillLoss`. */
  readonly options: {
    readonly divergence: "jsd" | "forward-kl" | "reverse-kl";
    readonly beta?: number;
    readonly topK?: number;
    readonly tail?: boolean;
    readonly valueClamp?: number;
    readonly temperature: number;
    readonly reduction: "token-mean" | "sequence-mean";
  };
  readonly loss: number;
  /** (N, V) */
  readonly dLogits: Float64Array;
}

/** One case in the names of the API; everything in float64, so that a test chooses its own precision. */
export interface VectorCase {
  readonly name: string;
  readonly tokens: number;
  readonly sequences: number;
  /** V */
  readonly columns: number;
  readonly fields: ObjectiveFields;
  readonly rewards: Float64Array;
  readonly groupIds: Int32Array;
  readonly advantageOptions: { readonly eps: number; readonly ddof: 0 | 1 };
  readonly tokenIds: Int32Array;
  readonly cuSeqlens: Int32Array;
  readonly completionMask: Uint8Array;
  readonly spanMask: Uint8Array | undefined;
  /** (N, V) */
  readonly studentLogits: Float64Array;
  readonly teacherLogits: Float64Array;
  /** (N) */
  readonly oldLogProbs: Float64Array;
  readonly refLogProbs: Float64Array;
  readonly expected: {
    /** (B) */
    readonly advantages: Float64Array;
    readonly rlooAdvantages: Float64Array;
    /** (N); masked entries hold what the official code computed there. */
    readonly logProbs: Float64Array;
    readonly teacherLogProbs: Float64Array;
    readonly tokenAdvantages: Float64Array;
    readonly dLogProbs: Float64Array;
    /** (N, V) */
    readonly dLogits: Float64Array;
    readonly loss: number;
    readonly policyLoss: number;
    /** Under the official code's names. */
    readonly metrics: Readonly<Record<string, number>>;
    readonly distill: readonly DistillCase[];
  };
}

const folder = join(__dirname, "../fixtures/vectors");
const words = { inf: Number.POSITIVE_INFINITY, "-inf": Number.NEGATIVE_INFINITY, nan: Number.NaN };
const numbers = ({ data }: FileTensor): Float64Array =>
  Float64Array.from(data, (x) => (typeof x === "string" ? words[x] : x));
const surrogates = { grpo: "ppo-clip", gspo_token: "gspo-token", cispo: "cispo" } as const;
const reductions = { "token-mean": "token-mean", "seq-mean-token-mean": "sequence-mean" } as const;

function fieldsOf({ options }: VectorFile): ObjectiveFields {
  return objectiveFields({
    objective: surrogates[options.lossType],
    reduction: reductions[options.aggregation],
    clipLow: options.clipRatioLow,
    clipHigh: options.clipRatioHigh,
    dualClip: options.clipRatioDual,
    klCoef: options.klCoef,
    temperature: options.temperature,
    creditMix: options.lambda,
    evidenceClip: options.clipRange,
    negativeOnly: options.negativeOnly,
  });
}

function distillCases({ options, expected }: VectorFile): DistillCase[] {
  const common = { temperature: options.temperature, reduction: reductions[options.aggregation] };
  const topK = expected.distill_topk_forward_kl;
  const of = (file: FileDistill, chosen: Omit<DistillCase["options"], keyof typeof common>): DistillCase => ({
    options: { ...chosen, ...common },
    loss: file.loss,
    dLogits: numbers(file.dStudentLogits),
  });
  return [
    of(expected.distill_jsd, { divergence: "jsd", beta: 0.5 }),
    of(expected.distill_forward_kl, { divergence: "forward-kl" }),
    of(expected.distill_reverse_kl, { divergence: "reverse-kl" }),
    of(topK, { divergence: "forward-kl", topK: topK.k!, tail: topK.addTail!, valueClamp: 10 }),
  ];
}

function toCase(file: VectorFile): VectorCase {
  const { inputs, expected } = file;
  const [sequences, length, columns] = inputs.studentLogits.shape as [number, number, number];
  return {
    name: file.name,
    tokens: sequences * length,
    sequences,
    columns,
    fields: fieldsOf(file),
    rewards: numbers(inputs.rewards),
    groupIds: Int32Array.from(numbers(inputs.groupIds)),
    advantageOptions: { eps: file.options.advantageEps, ddof: file.options.stdDdof },
    tokenIds: Int32Array.from(numbers(inputs.tokenIds)),
    cuSeqlens: Int32Array.from({ length: sequences + 1 }, (_, b) => b * length),
    completionMask: Uint8Array.from(numbers(inputs.mask)),
    spanMask: inputs.spanMask === null ? undefined : Uint8Array.from(numbers(inputs.spanMask)),
    studentLogits: numbers(inputs.studentLogits),
    teacherLogits: numbers(inputs.teacherLogits),
    oldLogProbs: numbers(inputs.oldLogprobs),
    refLogProbs: numbers(inputs.refLogprobs),
    expected: {
      advantages: numbers(expected.groupAdvantages),
      rlooAdvantages: numbers(expected.rlooAdvantages),
      logProbs: numbers(expected.studentLogprobs),
      teacherLogProbs: numbers(expected.teacherLogprobs),
      tokenAdvantages: numbers(expected.tokenAdvantages),
      dLogProbs: numbers(expected.dLogprobs),
      dLogits: numbers(expected.dStudentLogits),
      loss: expected.loss,
      policyLoss: expected.policyLoss,
      metrics: expected.metrics,
      distill: distillCases(file),
    },
  };
}

export const vectorNames: readonly string[] = readdirSync(folder)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.slice(0, -".json".length))
  .sort();

export function loadVector(name: string): VectorCase {
  return toCase(JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8")) as VectorFile);
}

/** The case with NaN in every masked number and an id out of range at every masked token: nothing may change. */
export function poisoned(vector: VectorCase): VectorCase {
  const poison = (values: Float64Array, width: number): Float64Array =>
    values.map((value, at) => (vector.completionMask[Math.floor(at / width)] === 1 ? value : Number.NaN));
  return {
    ...vector,
    tokenIds: vector.tokenIds.map((id, i) => (vector.completionMask[i] === 1 ? id : -1)),
    studentLogits: poison(vector.studentLogits, vector.columns),
    teacherLogits: poison(vector.teacherLogits, vector.columns),
    oldLogProbs: poison(vector.oldLogProbs, 1),
    refLogProbs: poison(vector.refLogProbs, 1),
  };
}

/** (N) values with 0 where masked, as the API returns them. */
export function unmasked(values: Float64Array, mask: Uint8Array): Float64Array {
  return values.map((value, i) => (mask[i] === 1 ? value : 0));
}

/** max |got - expected| / max(largest |expected|, floor). */
export function relativeError(got: ArrayLike<number>, expected: ArrayLike<number>, floor = 1e-6): number {
  if (got.length !== expected.length) throw new Error(`Expected ${expected.length} numbers but received ${got.length}`);
  let difference = 0;
  let largest = floor;
  for (let i = 0; i < expected.length; i++) {
    const distance = Math.abs(got[i]! - expected[i]!);
    difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(difference, distance);
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return difference / largest;
}

/** A case's batch but for its scores, in the API's float32. */
export function inputsOf(vector: VectorCase): Omit<PolicyBatch, "student" | "teacher" | "contrast"> {
  const { tokenIds, cuSeqlens, completionMask, spanMask, expected, oldLogProbs, refLogProbs } = vector;
  return {
    tokenIds,
    cuSeqlens,
    completionMask,
    spanMask,
    advantages: Float32Array.from(expected.advantages),
    oldLogProbs: Float32Array.from(oldLogProbs),
    refLogProbs: Float32Array.from(refLogProbs),
  };
}

/** That policyLoss gave what the official code did, to float32. */
export function expectOfficial(got: PolicyResult, { completionMask: mask, expected }: VectorCase): void {
  const floor = expected.tokenAdvantages.reduce((largest, a) => Math.max(largest, Math.abs(a)), 1e-6);
  expect(relativeError(got.logProbs, unmasked(expected.logProbs, mask))).toBeLessThan(1e-5);
  expect(relativeError(got.teacherLogProbs!, unmasked(expected.teacherLogProbs, mask))).toBeLessThan(1e-5);
  expect(relativeError(got.tokenAdvantages, unmasked(expected.tokenAdvantages, mask))).toBeLessThan(2e-5);
  expect(relativeError([got.loss], [expected.loss], floor)).toBeLessThan(2e-5);
  expect(relativeError([got.stats.policyLoss], [expected.policyLoss], floor)).toBeLessThan(2e-5);
  expect(relativeError(got.gradient.logProbs, expected.dLogProbs)).toBeLessThan(2e-5);
}

/** The official metrics by our statistics: value and name. */
export function officialMetrics(stats: Partial<Stats>, fields: ObjectiveFields): [number, string][] {
  const pairs: [number | undefined, string][] = [
    [stats.deltaMean, "delta_mean"],
    [stats.evidenceWeightMean, "weight_mean"],
    [stats.clippedWeightMean, "clipped_weight_mean"],
    [stats.evidenceClippedLow, "clip_low_ratio"],
    [stats.evidenceClippedHigh, "clip_high_ratio"],
    [stats.advantageMean, "adv_mean"],
    [stats.advantageAbsMean, "adv_abs_mean"],
  ];
  // The official code counts in this metric only under negative_only, and gives 0 where there is nothing to count.
  if (fields.negativeOnly) pairs.push([stats.deltaMeanNegative ?? 0, "neg_delta_mean"]);
  if (fields.objective !== "cispo") {
    pairs.push([stats.ratioClippedHigh! + stats.ratioClippedLow!, "pg_clipfrac_higher"]);
    pairs.push([stats.dualClipped, "pg_clipfrac_lower"]);
  }
  return pairs as [number, string][];
}
