import type { ObjectiveFields } from "../objectives/objective.js";
import { type Numbers, sequenceMeans } from "./batch.js";
import { add, clamp, constant, type Dual, exp, max, min, scale, sigmoid, variable } from "./dual.js";

/** One token's part of the policy loss. Derivatives are to its own log P; a sequence's ratio passes straight through. */
export interface TokenSurrogate {
  /** L_t and dL_t / dlog P_t. */
  readonly loss: Dual;
  /** exp(clamp(x, -20, 20)) of the token's log-ratio, or of its sequence's mean; gspo: exp(min(x, 10)). */
  readonly ratio: Dual;
  /** A > 0 and beyond the upper bound; A < 0 and below the lower bound; held down by the dual clip. */
  readonly clippedHigh: boolean;
  readonly clippedLow: boolean;
  readonly dualClipped: boolean;
}

interface SurrogateInput {
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

/** The clip's bounds on a log-ratio; a clipLow of 1 or more never binds. */
const logBounds = ({ clipLow, clipHigh }: ObjectiveFields): [number, number] => [
  clipLow < 1 ? Math.log(1 - clipLow) : -infinity,
  Math.log(1 + clipHigh),
];

/** exp(clamp(x, -20, 20)) */
const boundedRatio = (logRatio: number): Dual => exp(clamp(variable(logRatio), -20, 20));

/** What both kinds of clip make of a loss: its ratio and whether the log-ratio lies beyond a bound on A's side. */
function describe(
  a: number,
  logRatio: number,
  loss: Dual,
  [low, high]: [number, number],
  dualClipped = false,
): TokenSurrogate {
  const ratio = boundedRatio(logRatio);
  return { loss, ratio, clippedHigh: a > 0 && logRatio > high, clippedLow: a < 0 && logRatio < low, dualClipped };
}

/**
 * RLSD's official compute_policy_loss: the clip acts on the log-ratio x.
 *   r = exp(clamp(x, -20, 20)),  c = exp(clamp(x, log(1 - clipLow), log(1 + clipHigh)))
 *   L = max(-A min(r, ratioBound), -A c), for A < 0 at most -dualClip A
 */
function logSpaceClip(a: number, logRatio: number, fields: ObjectiveFields): TokenSurrogate {
  const bounds = logBounds(fields);
  const ratio = clamp(boundedRatio(logRatio), -infinity, fields.ratioBound ?? infinity);
  const clipped = exp(clamp(variable(logRatio), ...bounds));
  const upper = max(scale(-a, ratio), scale(-a, clipped));
  if (!(a < 0) || fields.dualClip === null) return describe(a, logRatio, upper, bounds);
  const ceiling = -fields.dualClip * a;
  return describe(a, logRatio, min(upper, constant(ceiling)), bounds, upper.value > ceiling);
}

/** GSPO (verl): r = exp(min(x, 10)), L = max(-A r, -A clamp(r, 1 - clipLow, 1 + clipHigh)); no dual clip. */
function gspo(a: number, logRatio: number, fields: ObjectiveFields): TokenSurrogate {
  const ratio = exp(clamp(variable(logRatio), -infinity, 10));
  const clipped = clamp(ratio, 1 - fields.clipLow, 1 + fields.clipHigh);
  const loss = max(scale(-a, ratio), scale(-a, clipped));
  return { ...describe(a, logRatio, loss, logBounds(fields)), ratio };
}

/** CISPO, official: L = -A sg(clip(r)) log P. The clipped ratio is a constant to the gradient. */
function cispo(a: number, logProb: number, logRatio: number, fields: ObjectiveFields): TokenSurrogate {
  const bounds = logBounds(fields);
  const weight = Math.exp(clamp(variable(logRatio), ...bounds).value);
  return describe(a, logRatio, scale(-a * weight, variable(logProb)), bounds);
}

/** SAPO (TRL): L = -A (4 / tau) sigmoid(tau (r - 1)), tau by the sign of A; nothing is clipped. */
function sapo(a: number, logRatio: number, fields: ObjectiveFields): TokenSurrogate {
  const tau = a > 0 ? fields.sapoTemperaturePos : fields.sapoTemperatureNeg;
  const gate = sigmoid(scale(tau, add(boundedRatio(logRatio), constant(-1))));
  return describe(a, logRatio, scale((-a * 4) / tau, gate), [-infinity, infinity]);
}

/** GMPO's token term (verl): m = s min(s x, s clamp(x, -clipLow, clipHigh)), s = sign(A); x within +-20. */
function gmpoTerm(a: number, logRatio: number, { clipLow, clipHigh }: ObjectiveFields): Dual {
  const s = Math.sign(a);
  const x = clamp(variable(logRatio), -20, 20);
  return scale(s, min(scale(s, x), scale(s, clamp(x, -clipLow, clipHigh))));
}

/**
 * GMPO (verl): with means over the sequence, r = exp(mean m) and L = -mean(A) r, the same for each of its tokens; so
 * `sequence-mean` is verl's loss. dL/dlog P_t holds the token's share: -mean(A) r m_t'.
 */
function gmpo(input: SurrogateInput, fields: ObjectiveFields): (i: number) => TokenSurrogate {
  const { tokenAdvantages, logRatios, included, cuSeqlens } = input;
  const terms = Array.from(logRatios, (x, i) => gmpoTerm(tokenAdvantages[i]!, x, fields));
  const values = terms.map((term) => term.value);
  const meanTerms = sequenceMeans(values, included, cuSeqlens);
  const meanAdvantages = sequenceMeans(tokenAdvantages, included, cuSeqlens);
  return (i) => {
    const ratio = boundedRatio(meanTerms[i]!);
    const own = { value: ratio.value, slope: ratio.value * terms[i]!.slope };
    const loss = scale(-meanAdvantages[i]!, own);
    return { ...describe(tokenAdvantages[i]!, logRatios[i]!, loss, [-fields.clipLow, fields.clipHigh]), ratio: own };
  };
}

/**
 * L_t of every surrogate. gspo, gspo-token and luspo compare their sequence's ratio, exp of the mean log-ratio x of its
 * included tokens; in its derivative the token's own log P takes the mean's place (straight-through), as in verl's
 * GSPO and the official gspo_token, so that a credit per token keeps its meaning.
 *   gspo             clipped as a ratio                                              (verl)
 *   gspo-token       clipped as a log-ratio                                          (RLSD's official code)
 *   luspo            the same clip; the preset's `sequence-sum` makes it TRL's       (TRL)
 *   row-coefficient  L = coefficient log P
 * `ratioBound` and `dualClip` act on ppo-clip, gspo-token and luspo.
 */
export function surrogateReference(input: SurrogateInput, fields: ObjectiveFields): (i: number) => TokenSurrogate {
  const { logProbs, logRatios, tokenAdvantages } = input;
  const a = (i: number): number => tokenAdvantages[i]!;
  const x = (i: number): number => logRatios[i]!;
  const means = sequenceMeans(logRatios, input.included, input.cuSeqlens);
  switch (fields.objective) {
    case "ppo-clip":
      return (i) => logSpaceClip(a(i), x(i), fields);
    case "gspo":
      return (i) => gspo(a(i), means[i]!, fields);
    case "gspo-token":
    case "luspo":
      return (i) => logSpaceClip(a(i), means[i]!, fields);
    case "cispo":
      return (i) => cispo(a(i), logProbs[i]!, x(i), fields);
    case "sapo":
      return (i) => sapo(a(i), x(i), fields);
    case "gmpo":
      return gmpo(input, fields);
    case "row-coefficient":
      return (i) => describe(a(i), x(i), scale(a(i), variable(logProbs[i]!)), [-infinity, infinity]);
  }
}
