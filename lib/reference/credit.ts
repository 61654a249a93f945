import type { ObjectiveFields } from "../objectives/objective.js";
import type { Stats } from "../tensor/results.js";
import { advantagePerToken, maskOrOnes, meanWhere, type Numbers, present, sequenceMeans, tokenCount } from "./batch.js";

export interface CreditInput {
  /** (N): the student's, current or old as `studentSource` says. An unmasked row that is not finite here is bad. */
  readonly logProbs: Numbers;
  /** (N); absent: no evidence, c = 1. */
  readonly teacherLogProbs?: Numbers;
  readonly contrastLogProbs?: Numbers;
  readonly advantages: Numbers;
  /** Advantages are (N) also when B = N. */
  readonly advantagesPerToken?: boolean;
  readonly cuSeqlens: Numbers;
  readonly completionMask?: Numbers;
  readonly spanMask?: Numbers;
  /** (N): 1 where the caller found the row bad for another reason. */
  readonly badRows?: Uint8Array;
}

type CreditFields = Pick<ObjectiveFields, "creditMix" | "evidenceClip" | "negativeOnly" | "clipMode" | "normalize">;

type CreditStats = Pick<
  Stats,
  | "deltaMean"
  | "deltaMeanPositive"
  | "deltaMeanNegative"
  | "evidenceWeightMean"
  | "clippedWeightMean"
  | "evidenceClippedLow"
  | "evidenceClippedHigh"
  | "nanTeacherRows"
>;

export interface Credit {
  /** (N): A rho; 0 where masked and in a bad row. */
  readonly tokenAdvantages: Float64Array;
  /** (N): c, whatever rho was forced to; 0 where masked, 1 in a bad row. */
  readonly evidenceWeights: Float64Array;
  readonly stats: CreditStats;
}

const clip = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), high);

/** log P_T against another view's; NaN where it is no evidence: a NaN or +inf, or both -inf. */
const evidenceOf = (teacher: number, against: number): number =>
  Math.max(teacher, against) === Number.POSITIVE_INFINITY ? Number.NaN : teacher - against;

/** w = exp(sign(A) delta); under "pessimistic" the exponent is clamped to +-20. Exactly 1 where A = 0. */
function unclippedWeight(advantage: number, delta: number, { clipMode }: CreditFields): number {
  if (advantage === 0) return 1;
  const exponent = Math.sign(advantage) * delta;
  return Math.exp(clipMode === "symmetric" ? exponent : clip(exponent, -20, 20));
}

/**
 * c for one token, 1 where there is no evidence.
 *   symmetric    c = clip(w, 1 - eps_w, 1 + eps_w)
 *   pessimistic  c A = min(w A, clip(w) A): c = min(w, clip(w)) for A > 0, max for A < 0
 */
function evidenceWeight(advantage: number, delta: number, fields: CreditFields): number {
  if (advantage === 0 || Number.isNaN(delta)) return 1;
  const w = unclippedWeight(advantage, delta, fields);
  const clipped = clip(w, 1 - fields.evidenceClip, 1 + fields.evidenceClip);
  if (fields.clipMode === "symmetric") return clipped;
  return advantage > 0 ? Math.min(w, clipped) : Math.max(w, clipped);
}

/** (N): does the credit apply, or is rho forced to 1? `negativeOnly` goes by the sequence's mean advantage. */
function creditApplies(
  input: CreditInput,
  advantages: Float64Array,
  mask: Uint8Array,
  { negativeOnly }: CreditFields,
): (i: number) => boolean {
  const sequenceAdvantage = sequenceMeans(advantages, mask, input.cuSeqlens);
  return (i) => {
    const inSpan = input.spanMask === undefined || input.spanMask[i] === 1;
    return inSpan && !(negativeOnly && sequenceAdvantage[i]! >= 0);
  };
}

/**
 * The token advantages of RLSD (arXiv 2604.03128, equations 13 to 15):
 *   delta = log P_T - log P_S      (with a contrast teacher: log P_T - log P_contrast)
 *   c     = evidenceWeight(A, delta)
 *   rho   = (1 - lambda) + lambda c;  1 outside the span, and where `negativeOnly` and A >= 0
 *   A^    = A rho                    (`normalize: "sequence"`: rho over its mean in the sequence)
 */
export function creditReference(input: CreditInput, fields: CreditFields): Credit {
  const tokens = tokenCount(input.cuSeqlens);
  const mask = maskOrOnes(input.completionMask, tokens);
  const bad = (i: number): boolean => input.badRows?.[i] === 1 || !Number.isFinite(input.logProbs[i]);
  const included = mask.map((one, i) => (one === 1 && !bad(i) ? 1 : 0));
  const advantages = advantagePerToken(input.advantages, input.cuSeqlens, input.advantagesPerToken);
  const baseline = input.contrastLogProbs ?? input.logProbs;
  const applies = creditApplies(input, advantages, mask, fields);

  const delta = new Float64Array(tokens).fill(Number.NaN);
  const weights = Float64Array.from(mask);
  const rho = new Float64Array(tokens);
  for (let i = 0; i < tokens; i++) {
    if (included[i] === 0) continue;
    if (input.teacherLogProbs !== undefined) delta[i] = evidenceOf(input.teacherLogProbs[i]!, baseline[i]!);
    weights[i] = evidenceWeight(advantages[i]!, delta[i]!, fields);
    rho[i] = applies(i) ? 1 - fields.creditMix + fields.creditMix * weights[i]! : 1;
  }
  const rhoMeans = sequenceMeans(rho, included, input.cuSeqlens);
  const tokenAdvantages = Float64Array.from(rho, (value, i) => {
    if (included[i] === 0) return 0;
    return advantages[i]! * (fields.normalize === "sequence" ? value / rhoMeans[i]! : value);
  });
  const evidence = input.teacherLogProbs === undefined ? undefined : delta;
  return {
    tokenAdvantages,
    evidenceWeights: weights,
    stats: creditStats(included, advantages, evidence, weights, fields),
  };
}

/**
 * Means over the included tokens whose delta is a number; the others are counted in nanTeacherRows. The clipped
 * fractions count w outside [1 - eps_w, 1 + eps_w] under both clip modes.
 */
function creditStats(
  included: Uint8Array,
  advantages: Float64Array,
  delta: Float64Array | undefined,
  weights: Float64Array,
  fields: CreditFields,
): CreditStats {
  if (delta === undefined) return { nanTeacherRows: 0 };
  const { evidenceClip } = fields;
  const n = delta.length;
  const usable = (i: number): boolean => included[i] === 1 && !Number.isNaN(delta[i]);
  const w = (i: number): number => unclippedWeight(advantages[i]!, delta[i]!, fields);
  const nanTeacherRows = included.reduce((count, one, i) => count + (one === 1 && Number.isNaN(delta[i]) ? 1 : 0), 0);
  const deltaAt = (i: number): number => delta[i]!;
  return present({
    deltaMean: meanWhere(n, usable, deltaAt),
    deltaMeanPositive: meanWhere(n, (i) => usable(i) && advantages[i]! > 0, deltaAt),
    deltaMeanNegative: meanWhere(n, (i) => usable(i) && advantages[i]! < 0, deltaAt),
    evidenceWeightMean: meanWhere(n, usable, w),
    clippedWeightMean: meanWhere(n, usable, (i) => weights[i]!),
    evidenceClippedLow: meanWhere(n, usable, (i) => (w(i) < 1 - evidenceClip ? 1 : 0)),
    evidenceClippedHigh: meanWhere(n, usable, (i) => (w(i) > 1 + evidenceClip ? 1 : 0)),
    nanTeacherRows,
  });
}
