import type { ObjectiveFields } from "../objectives/objective.js";
import type { Stats } from "../tensor/results.js";
import {
  maskOrOnes,
  meanWhere,
  type Numbers,
  present,
  type ReferenceBatch,
  type ScoreGradients,
  tokenCount,
} from "./batch.js";
import { type Credit, creditReference } from "./credit.js";
import { add, type Dual, multiply, scale } from "./dual.js";
import { importanceWeights } from "./importance.js";
import { klReference } from "./kl.js";
import {
  addRowGradient,
  entropyOf,
  rowDistribution,
  type TokenLogProbs,
  tokenLogProbsReference,
  zeroGradients,
} from "./log-probs.js";
import { reductionWeights } from "./reduction.js";
import { surrogateReference, type TokenSurrogate } from "./surrogate.js";

export interface PolicyLossReference {
  readonly loss: number;
  /** (N): as read, also in a bad row. Every (N) array is 0 where the token is masked. */
  readonly logProbs: Float64Array;
  readonly teacherLogProbs?: Float64Array;
  /** (N): A rho; 0 in a bad row. */
  readonly tokenAdvantages: Float64Array;
  /** (N): c; 1 in a bad row. */
  readonly evidenceWeights: Float64Array;
  readonly gradient: { readonly logProbs: Float64Array } & ScoreGradients;
  readonly stats: Stats;
}

/** What the loss knows of the batch before any formula is applied. */
interface Scored {
  readonly student: TokenLogProbs;
  readonly teacherLogProbs: Float64Array | undefined;
  readonly contrastLogProbs: Float64Array | undefined;
  readonly oldLogProbs: Numbers;
  readonly mask: Uint8Array;
  /** (N): unmasked, with finite student, old, reference and sampler log-probs where they are given. */
  readonly included: Uint8Array;
}

function score(batch: ReferenceBatch, fields: ObjectiveFields): Scored {
  const mask = maskOrOnes(batch.completionMask, tokenCount(batch.cuSeqlens));
  const view = (scores: ReferenceBatch["teacher"]): TokenLogProbs | undefined =>
    scores && tokenLogProbsReference(scores, batch.tokenIds, mask, fields);
  const student = tokenLogProbsReference(batch.student, batch.tokenIds, mask, fields);
  const needed = [student.logProbs, batch.oldLogProbs, batch.refLogProbs, batch.samplerLogProbs];
  return {
    student,
    teacherLogProbs: view(batch.teacher)?.logProbs,
    contrastLogProbs: view(batch.contrast)?.logProbs,
    oldLogProbs: batch.oldLogProbs ?? student.logProbs,
    mask,
    included: mask.map((one, i) => (one === 1 && needed.every((xs) => !xs || Number.isFinite(xs[i])) ? 1 : 0)),
  };
}

/** The credit; under row-coefficient the coefficient is dL/dlog P, so the advantage that it stands for is its negative. */
function creditOf(batch: ReferenceBatch, scored: Scored, fields: ObjectiveFields): Credit {
  const sign = fields.objective === "row-coefficient" ? -1 : 1;
  const credit = creditReference(
    {
      logProbs: fields.studentSource === "old" ? scored.oldLogProbs : scored.student.logProbs,
      ...present({ teacherLogProbs: scored.teacherLogProbs, contrastLogProbs: scored.contrastLogProbs }),
      ...present({ spanMask: batch.spanMask }),
      advantages: Float64Array.from(batch.advantages, (a) => sign * a),
      advantagesPerToken: sign === -1,
      cuSeqlens: batch.cuSeqlens,
      completionMask: scored.mask,
      badRows: scored.included.map((one) => 1 - one),
    },
    fields,
  );
  return sign === 1 ? credit : { ...credit, tokenAdvantages: credit.tokenAdvantages.map((a) => (a === 0 ? 0 : -a)) };
}

/** Every term of one token's loss. */
interface TokenTerms {
  readonly surrogate: TokenSurrogate;
  /** The surrogate times its importance weight. */
  readonly policy: Dual;
  /** KL_t, times the surrogate's ratio under klImportanceCorrection; absent without refLogProbs. */
  readonly kl: Dual | undefined;
}

function tokenTerms(
  batch: ReferenceBatch,
  scored: Scored,
  tokenAdvantages: Float64Array,
  fields: ObjectiveFields,
): (TokenTerms | undefined)[] {
  const { included, oldLogProbs } = scored;
  const { cuSeqlens, refLogProbs, samplerLogProbs } = batch;
  const { logProbs } = scored.student;
  const logRatios = logProbs.map((logP, i) => (included[i] === 1 ? logP - oldLogProbs[i]! : 0));
  const surrogateAt = surrogateReference({ logProbs, logRatios, tokenAdvantages, included, cuSeqlens }, fields);
  const corrections = importanceWeights(oldLogProbs, samplerLogProbs, included, cuSeqlens, fields);
  return Array.from(included, (one, i) => {
    if (one === 0) return undefined;
    const surrogate = surrogateAt(i);
    if (fields.objective === "row-coefficient") return { surrogate, policy: surrogate.loss, kl: undefined };
    const kl = refLogProbs && klReference(logProbs[i]!, refLogProbs[i]!, fields);
    return {
      surrogate,
      policy: scale(corrections[i]!, surrogate.loss),
      kl: kl && fields.klImportanceCorrection ? multiply(kl, surrogate.ratio) : kl,
    };
  });
}

/**
 * The policy loss in float64, at the level of log-probs, logits or hidden states:
 *   loss = sum_t omega_t (iw_t L_t + klCoef KL_t - entropyCoef H_t)
 * omega: reductionWeights; L: surrogateReference of the credited advantages; iw: importanceWeights; KL: klReference.
 * Under row-coefficient: loss = sum_t coefficient_t rho_t log P_t, nothing else.
 * A bad row (unmasked with a non-finite log P, log P_old, log P_ref or log P_sampler) leaves every sum, the divisors of
 * omega stay those of the mask.
 */
export function policyLossReference(batch: ReferenceBatch, fields: ObjectiveFields): PolicyLossReference {
  const scored = score(batch, fields);
  const { student, mask, included } = scored;
  const bare = fields.objective === "row-coefficient";
  const credit = creditOf(batch, scored, fields);
  const terms = tokenTerms(batch, scored, credit.tokenAdvantages, fields);
  const omega = bare
    ? Float64Array.from(mask)
    : reductionWeights(fields.reduction, fields.normalizer, mask, batch.cuSeqlens);
  const entropyCoef = bare || student.entropy === undefined ? 0 : fields.entropyCoef;

  let loss = 0;
  let policyLoss = 0;
  const gradient = new Float64Array(mask.length);
  terms.forEach((term, i) => {
    if (term === undefined) return;
    const total = term.kl === undefined ? term.policy : add(term.policy, scale(fields.klCoef, term.kl));
    policyLoss += omega[i]! * term.policy.value;
    loss += omega[i]! * (total.value - entropyCoef * (student.entropy?.[i] ?? 0));
    gradient[i] = omega[i]! * total.slope;
  });
  const entropyWeights = omega.map((weight) => weight * entropyCoef);
  return {
    loss,
    logProbs: student.logProbs,
    ...present({ teacherLogProbs: scored.teacherLogProbs }),
    tokenAdvantages: credit.tokenAdvantages,
    evidenceWeights: credit.evidenceWeights,
    gradient: { logProbs: gradient, ...scoreGradients(batch, included, gradient, entropyWeights, fields) },
    stats: lossStats(batch, scored, terms, credit, { loss, policyLoss }, fields),
  };
}

/**
 * From dL/dlog P to the scores, with g_t = dL/dlog P_t and e_t the weight of -H_t in the loss:
 *   dL/dz_v = [ g_t (1[v = y] - p_v) + e_t p_v (log p_v + H_t) ] ds_v/dz_v
 */
function scoreGradients(
  batch: ReferenceBatch,
  included: Uint8Array,
  gradient: Float64Array,
  entropyWeights: Float64Array,
  fields: ObjectiveFields,
): ScoreGradients {
  const { student, tokenIds } = batch;
  if ("logProbs" in student) return {};
  const gradients = zeroGradients(student);
  for (let i = 0; i < included.length; i++) {
    if (included[i] === 0) continue;
    const { logProbs, slopes } = rowDistribution(student, i, fields);
    const entropy = entropyOf(logProbs);
    const dz = logProbs.map((logP, v) => {
      if (logP === Number.NEGATIVE_INFINITY) return 0;
      const p = Math.exp(logP);
      const target = v === tokenIds[i] ? 1 : 0;
      return (gradient[i]! * (target - p) + entropyWeights[i]! * p * (logP + entropy)) * slopes[v]!;
    });
    addRowGradient(student, gradients, i, dz);
  }
  return gradients;
}

/** Means are over the included tokens. Ratios are absent under row-coefficient, clip fractions where nothing clips. */
function lossStats(
  batch: ReferenceBatch,
  { student, mask, included }: Scored,
  terms: readonly (TokenTerms | undefined)[],
  credit: Credit,
  losses: { loss: number; policyLoss: number },
  { objective }: ObjectiveFields,
): Stats {
  const mean = (value: (i: number) => number): number | undefined =>
    meanWhere(mask.length, (i) => included[i] === 1, value);
  const fraction = (flag: "clippedHigh" | "clippedLow" | "dualClipped", applies: boolean): number | undefined =>
    applies ? mean((i) => (terms[i]!.surrogate[flag] ? 1 : 0)) : undefined;
  const clips = objective !== "row-coefficient" && objective !== "sapo";
  const tokens = mask.reduce((count, one) => count + one, 0);
  return present({
    tokens,
    sequences: batch.cuSeqlens.length - 1,
    ...losses,
    klMean: terms.some((term) => term?.kl) ? mean((i) => terms[i]!.kl!.value) : undefined,
    entropyMean: student.entropy && mean((i) => student.entropy![i]!),
    ratioMean: objective === "row-coefficient" ? undefined : mean((i) => terms[i]!.surrogate.ratio.value),
    ratioClippedHigh: fraction("clippedHigh", clips),
    ratioClippedLow: fraction("clippedLow", clips),
    dualClipped: fraction("dualClipped", clips),
    advantageMean: mean((i) => credit.tokenAdvantages[i]!),
    advantageAbsMean: mean((i) => Math.abs(credit.tokenAdvantages[i]!)),
    ...credit.stats,
    nonFiniteRows: tokens - included.reduce((count, one) => count + one, 0),
    skippedRows: 0,
  });
}
