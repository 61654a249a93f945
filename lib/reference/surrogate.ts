import type { ObjectiveFields } from "../objectives/objective.js";
import { type Numbers, sequenceMeans } from "./batch.js";
import { clamp, constant, type Dual, exp, max, min, scale, sigmoid, variable } from "./dual.js";

/** One token's part of the policy loss. Derivatives are to its own log P; a sequence's ratio passes straight through. */
export interface TokenSurrogate {
  /** L_t and dL_t / dlog P_t. */
  readonly loss: Dual;
  /** What the clip compares: the token's ratio or its sequence's. */
  readonly ratio: number;
  /** A > 0 and beyond the upper bound; A < 0 and below the lower bound; held down by the dual clip. */
  readonly clippedHigh: boolean;
  readonly clippedLow: boolean;
  readonly dualClipped: boolean;
}

export interface SurrogateInput {
  readonly logProbs: Numbers;
  /** (N): log P - log P_old; 0 on-policy. */
  readonly logRatios: Numbers;
  /** (N): A^, credit included. For row-coefficient: dL / dlog P itself. */
  readonly tokenAdvantages: Numbers;
  /** (N): unmasked and finite. */
  readonly included: Uint8Array;
  readonly cuSeqlens: Numbers;
}

const infinity = Number.POSITIVE_INFINITY;
/** log(1 - clipLow); a clipLow of 1 or more never binds. */
const logLower = (clipLow: number): number => (clipLow < 1 ? Math.log(1 - clipLow) : -infinity);

/** exp(clamp(x, -20, 20)) */
export const boundedRatio = (logRatio: number): Dual => exp(clamp(variable(logRatio), -20, 20));

/** max(-A ratio, -A clipped), for A < 0 at most -dual A: the pessimistic bound of PPO and its dual clip. */
function clippedLoss(a: number, ratio: Dual, clipped: Dual, dual: number): { loss: Dual; dualClipped: boolean } {
  const upper = max(scale(-a, ratio), scale(-a, clipped));
  if (!(a < 0) || dual === infinity) return { loss: upper, dualClipped: false };
  return { loss: min(upper, constant(-dual * a)), dualClipped: upper.value > -dual * a };
}

function withClipFlags(
  a: number,
  ratio: number,
  { clipLow, clipHigh }: ObjectiveFields,
  rest: { loss: Dual; dualClipped: boolean },
): TokenSurrogate {
  return { ...rest, ratio, clippedHigh: a > 0 && ratio > 1 + clipHigh, clippedLow: a < 0 && ratio < 1 - clipLow };
}

const unclipped = (loss: Dual, ratio: number): TokenSurrogate => ({
  loss,
  ratio,
  clippedHigh: false,
  clippedLow: false,
  dualClipped: false,
});

/**
 * RLSD's official compute_policy_loss: the clip acts on the log-ratio x.
 *   r = exp(clamp(x, -20, 20)),  c = exp(clamp(x, log(1 - clipLow), log(1 + clipHigh)))
 *   L = max(-A min(r, ratioBound), -A c), for A < 0 at most -dualClip A
 */
function logSpaceClip(a: number, logRatio: number, bound: number, fields: ObjectiveFields): TokenSurrogate {
  const { clipLow, clipHigh, dualClip } = fields;
  const ratio = boundedRatio(logRatio);
  const clipped = exp(clamp(variable(logRatio), logLower(clipLow), Math.log(1 + clipHigh)));
  const parts = clippedLoss(a, clamp(ratio, -infinity, bound), clipped, dualClip ?? infinity);
  return withClipFlags(a, ratio.value, fields, parts);
}

/** L = max(-A min(r, bound), -A clamp(r, 1 - clipLow, 1 + clipHigh)): the clip acts on the ratio; no dual clip. */
function ratioClip(a: number, ratio: Dual, bound: number, fields: ObjectiveFields): TokenSurrogate {
  const clipped = clamp(ratio, 1 - fields.clipLow, 1 + fields.clipHigh);
  const parts = clippedLoss(a, clamp(ratio, -infinity, bound), clipped, infinity);
  return withClipFlags(a, ratio.value, fields, parts);
}

/** CISPO, official: L = -A sg(clip(r)) log P. The clipped ratio is a constant to the gradient. */
function cispo(a: number, logProb: number, logRatio: number, fields: ObjectiveFields): TokenSurrogate {
  const logWeight = clamp(variable(logRatio), logLower(fields.clipLow), Math.log(1 + fields.clipHigh)).value;
  const loss = scale(-a * Math.exp(logWeight), variable(logProb));
  return withClipFlags(a, boundedRatio(logRatio).value, fields, { loss, dualClipped: false });
}

/** SAPO (TRL): L = -A (4 / tau) sigmoid(tau (r - 1)), tau by the sign of A. */
function sapo(a: number, logRatio: number, fields: ObjectiveFields): TokenSurrogate {
  const tau = a > 0 ? fields.sapoTemperaturePos : fields.sapoTemperatureNeg;
  const ratio = boundedRatio(logRatio);
  const gate = sigmoid({ value: tau * (ratio.value - 1), slope: tau * ratio.slope });
  return unclipped(scale((-a * 4) / tau, gate), ratio.value);
}

/** GMPO's token term (verl): m = s min(s x, s clamp(x, -clipLow, clipHigh)), s = sign(A). */
function gmpoTerm(a: number, logRatio: number, { clipLow, clipHigh }: ObjectiveFields): Dual {
  const s = Math.sign(a);
  const x = variable(logRatio);
  return scale(s, min(scale(s, x), scale(s, clamp(x, -clipLow, clipHigh))));
}

/**
 * GMPO (verl): with means over the sequence, r = exp(clamp(mean m, -20, 20)) and L = -mean(A) r, the same for each of
 * its tokens; so `sequence-mean` is verl's loss. dL/dlog P_t holds the token's share: -mean(A) r m_t'.
 */
function gmpo(input: SurrogateInput, fields: ObjectiveFields): (i: number) => TokenSurrogate {
  const { tokenAdvantages, logRatios, included, cuSeqlens } = input;
  const terms = Array.from(logRatios, (x, i) => gmpoTerm(tokenAdvantages[i]!, x, fields));
  const meanTerms = sequenceMeans(
    terms.map((term) => term.value),
    included,
    cuSeqlens,
  );
  const meanAdvantages = sequenceMeans(tokenAdvantages, included, cuSeqlens);
  return (i) => {
    const ratio = boundedRatio(meanTerms[i]!);
    const own = { value: ratio.value, slope: ratio.slope * terms[i]!.slope };
    return {
      loss: scale(-meanAdvantages[i]!, own),
      ratio: ratio.value,
      clippedHigh: tokenAdvantages[i]! > 0 && logRatios[i]! > fields.clipHigh,
      clippedLow: tokenAdvantages[i]! < 0 && logRatios[i]! < -fields.clipLow,
      dualClipped: false,
    };
  };
}

/**
 * L_t of every surrogate. gspo, gspo-token and luspo compare their sequence's ratio, exp of the mean log-ratio x of its
 * included tokens; in its derivative the token's own log P takes the mean's place (straight-through), as in verl's
 * GSPO and the official gspo_token, so that a credit per token keeps its meaning.
 *   gspo        r = exp(min(x, 10)), clipped as a ratio                                    (verl)
 *   gspo-token  clipped as a log-ratio, dual clip                                          (RLSD's official code)
 *   luspo       r = exp(clamp(x, -20, 20)), clipped as a ratio, ratioBound                 (TRL)
 *   row-coefficient  L = coefficient log P
 * `ratioBound` acts on ppo-clip and luspo, `dualClip` on ppo-clip and gspo-token.
 */
export function surrogateReference(input: SurrogateInput, fields: ObjectiveFields): (i: number) => TokenSurrogate {
  const { logProbs, logRatios, tokenAdvantages } = input;
  const a = (i: number): number => tokenAdvantages[i]!;
  const bound = fields.ratioBound ?? infinity;
  const sequenceLogRatios = sequenceMeans(logRatios, input.included, input.cuSeqlens);
  const x = (i: number): number => sequenceLogRatios[i]!;
  switch (fields.objective) {
    case "ppo-clip":
      return (i) => logSpaceClip(a(i), logRatios[i]!, bound, fields);
    case "gspo":
      return (i) => ratioClip(a(i), exp(clamp(variable(x(i)), -infinity, 10)), infinity, fields);
    case "gspo-token":
      return (i) => logSpaceClip(a(i), x(i), infinity, fields);
    case "luspo":
      return (i) => ratioClip(a(i), boundedRatio(x(i)), bound, fields);
    case "cispo":
      return (i) => cispo(a(i), logProbs[i]!, logRatios[i]!, fields);
    case "sapo":
      return (i) => sapo(a(i), logRatios[i]!, fields);
    case "gmpo":
      return gmpo(input, fields);
    case "row-coefficient":
      return (i) => unclipped(scale(a(i), variable(logProbs[i]!)), 1);
  }
}
