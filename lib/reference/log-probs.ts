import type { ObjectiveFields } from "../objectives/objective.js";
import { roundToBf16 } from "../rounding.js";
import type { Numbers, ReferenceScores, ScoreGradients } from "./batch.js";

/** How raw logits z become log-probs: z -> bf16 rounding -> softcap tanh(z / softcap) -> / temperature. */
type LogitFields = Pick<ObjectiveFields, "temperature" | "logitSoftcap" | "logitRounding">;
export type LogitScores = Exclude<ReferenceScores, { readonly logProbs: Numbers }>;

/** The distribution that predicts one token. A bad row has NaN throughout. */
interface RowDistribution {
  /** (V): log p_v; -inf for padding and for logits of -inf. */
  readonly logProbs: Float64Array;
  /** (V): d (scaled logit) / d (raw logit). Rounding passes straight through. */
  readonly slopes: Float64Array;
}

const columnsOf = (scores: LogitScores): number =>
  "logits" in scores ? scores.columns : scores.head.length / scores.width;

const rowOf = (scores: LogitScores, token: number): number => scores.rows?.[token] ?? token;

/** (V): the raw logits that predict a token; from hidden states z_v = sum_h hidden_h head_vh + bias_v. */
function rawLogits(scores: LogitScores, token: number): Float64Array {
  const columns = columnsOf(scores);
  const row = rowOf(scores, token);
  if ("logits" in scores) return new Float64Array(columns).map((_, v) => scores.logits[row * columns + v]!);
  const { hidden, head, bias, width } = scores;
  return new Float64Array(columns).map((_, v) => {
    let z = bias?.[v] ?? 0;
    for (let h = 0; h < width; h++) z += hidden[row * width + h]! * head[v * width + h]!;
    return z;
  });
}

/** The logit that the softmax sees, and its derivative to z. A logit of -inf is masked vocabulary and stays -inf. */
function scaledLogit(z: number, { temperature, logitSoftcap, logitRounding }: LogitFields): [number, number] {
  const rounded = logitRounding === "bf16" ? roundToBf16(z) : z;
  if (logitSoftcap === null || rounded === Number.NEGATIVE_INFINITY) return [rounded / temperature, 1 / temperature];
  const tanh = Math.tanh(rounded / logitSoftcap);
  return [(logitSoftcap * tanh) / temperature, (1 - tanh * tanh) / temperature];
}

/**
 * log p_v = s_v - log sum_u e^(s_u) over the columns below vocabSize.
 * A row is bad when one of these is NaN or +inf, or none is finite.
 */
export function rowDistribution(scores: LogitScores, token: number, fields: LogitFields): RowDistribution {
  const raw = rawLogits(scores, token);
  const vocabSize = scores.vocabSize ?? raw.length;
  const scaled = new Float64Array(raw.length).fill(Number.NEGATIVE_INFINITY);
  const slopes = new Float64Array(raw.length);
  let bad = false;
  for (let v = 0; v < vocabSize; v++) {
    bad ||= Number.isNaN(raw[v]) || raw[v] === Number.POSITIVE_INFINITY;
    [scaled[v], slopes[v]] = scaledLogit(raw[v]!, fields);
  }
  const largest = scaled.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (bad || !Number.isFinite(largest)) return { logProbs: scaled.fill(Number.NaN), slopes };
  const logSumExp = largest + Math.log(scaled.reduce((sum, s) => sum + Math.exp(s - largest), 0));
  return { logProbs: scaled.map((s) => s - logSumExp), slopes };
}

/** H = -sum_v p_v log p_v, with 0 log 0 = 0. */
export const entropyOf = (logProbs: Float64Array): number =>
  logProbs.reduce((sum, logP) => (logP === Number.NEGATIVE_INFINITY ? sum : sum - Math.exp(logP) * logP), 0);

export interface TokenLogProbs {
  /** (N): log P of each token; 0 where masked, NaN in a bad row, -inf where the token has p = 0. */
  readonly logProbs: Float64Array;
  /** (N): entropy in nats; 0 where masked. Absent at the log-prob level. */
  readonly entropy?: Float64Array;
}

/** log P of the given tokens under one view. Masked tokens are not read. */
export function tokenLogProbsReference(
  scores: ReferenceScores,
  tokenIds: Numbers,
  mask: Uint8Array,
  fields: LogitFields,
): TokenLogProbs {
  if ("logProbs" in scores) {
    return { logProbs: Float64Array.from(mask, (one, i) => (one === 1 ? scores.logProbs[i]! : 0)) };
  }
  const logProbs = new Float64Array(mask.length);
  const entropy = new Float64Array(mask.length);
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    const row = rowDistribution(scores, i, fields);
    logProbs[i] = row.logProbs[tokenIds[i]!]!;
    entropy[i] = entropyOf(row.logProbs);
  }
  return { logProbs, entropy };
}

/** Zeros of the size of each tensor of a view. */
export function zeroGradients(scores: LogitScores): ScoreGradients {
  if ("logits" in scores) return { logits: new Float64Array(scores.logits.length) };
  return {
    hidden: new Float64Array(scores.hidden.length),
    head: new Float64Array(scores.head.length),
    ...(scores.bias === undefined ? {} : { bias: new Float64Array(scores.bias.length) }),
  };
}

/**
 * Adds one token's dz = dL / d(raw logits) to the gradients of a view:
 *   at the logits level       dlogits[row] += dz
 *   at the hidden level       dhidden[row] += head^T dz,  dhead += dz hidden[row]^T,  dbias += dz
 */
export function addRowGradient(scores: LogitScores, gradients: ScoreGradients, token: number, dz: Float64Array): void {
  const row = rowOf(scores, token);
  if ("logits" in scores) {
    for (let v = 0; v < dz.length; v++) gradients.logits![row * dz.length + v]! += dz[v]!;
    return;
  }
  const { hidden, head, width } = scores;
  for (let v = 0; v < dz.length; v++) {
    if (dz[v] === 0) continue;
    for (let h = 0; h < width; h++) {
      gradients.hidden![row * width + h]! += dz[v]! * head[v * width + h]!;
      gradients.head![v * width + h]! += dz[v]! * hidden[row * width + h]!;
    }
    if (gradients.bias !== undefined) gradients.bias[v]! += dz[v]!;
  }
}
