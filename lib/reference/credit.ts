import type { ObjectiveFields } from "../objectives/objective.js";
import type { Stats } from "../tensor/results.js";
import { advantagePerToken, maskOrOnes, meanWhere, type Numbers, present, sequenceMeans, tokenCount } from "./batch.js";

export interface CreditInput {
  /** (N): the student's, current or old as `studentSource` says. Not used when there is a contrast teacher. */
  readonly logProbs: Numbers;
  /** (N); absent: no evidence, c = 1. */
  readonly teacherLogProbs?: Numbers;
  readonly contrastLogProbs?: Numbers;
  readonly advantages: Numbers;
  readonly cuSeqlens: Numbers;
  readonly completionMask?: Numbers;
  readonly spanMask?: Numbers;
}

export type CreditFields = Pick<
  ObjectiveFields,
  "creditMix" | "evidenceClip" | "negativeOnly" | "clipMode" | "normalize"
>;

export type CreditStats = Pick<
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
  /** (N): A rho; 0 where masked. */
  readonly tokenAdvantages: Float64Array;
  /** (N): c, whatever rho was forced to; 0 where masked. */
  readonly evidenceWeights: Float64Array;
  readonly stats: CreditStats;
}

const clip = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), high);

/**
 * c for one token. w = exp(sign(A) delta).
 *   symmetric    c = clip(w, 1 - eps_w, 1 + eps_w)
 *   pessimistic  c A = min(w A, clip(w) A): c = min(w, clip(w)) for A > 0, max for A < 0; sign(A) delta within +-20
 */
export function evidenceWeight(advantage: number, delta: number, fields: CreditFields): number {
  const { evidenceClip, clipMode } = fields;
  if (advantage === 0 || Number.isNaN(delta)) return 1;
  const exponent = Math.sign(advantage) * delta;
  if (clipMode === "symmetric") return clip(Math.exp(exponent), 1 - evidenceClip, 1 + evidenceClip);
  const w = Math.exp(clip(exponent, -20, 20));
  const clipped = clip(w, 1 - evidenceClip, 1 + evidenceClip);
  return advantage > 0 ? Math.min(w, clipped) : Math.max(w, clipped);
}

/** (N): does the credit apply, or is rho forced to 1? `negativeOnly` goes by the sequence's mean advantage. */
function creditApplies(input: CreditInput, advantages: Float64Array, included: Uint8Array, negativeOnly: boolean) {
  const sequenceAdvantage = sequenceMeans(advantages, included, input.cuSeqlens);
  return (i: number): boolean => {
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
  const included = maskOrOnes(input.completionMask, tokens);
  const advantages = advantagePerToken(input.advantages, input.cuSeqlens);
  const baseline = input.contrastLogProbs ?? input.logProbs;
  const applies = creditApplies(input, advantages, included, fields.negativeOnly);

  const delta = new Float64Array(tokens).fill(Number.NaN);
  const weights = new Float64Array(tokens);
  const rho = new Float64Array(tokens);
  for (let i = 0; i < tokens; i++) {
    if (included[i] === 0) continue;
    if (input.teacherLogProbs !== undefined) delta[i] = input.teacherLogProbs[i]! - baseline[i]!;
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
 * fractions count w = exp(sign(A) delta) outside [1 - eps_w, 1 + eps_w] under both clip modes.
 */
function creditStats(
  included: Uint8Array,
  advantages: Float64Array,
  delta: Float64Array | undefined,
  weights: Float64Array,
  { evidenceClip }: CreditFields,
): CreditStats {
  if (delta === undefined) return { nanTeacherRows: 0 };
  const n = delta.length;
  const usable = (i: number): boolean => included[i] === 1 && !Number.isNaN(delta[i]);
  const w = (i: number): number => (advantages[i] === 0 ? 1 : Math.exp(Math.sign(advantages[i]!) * delta[i]!));
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
