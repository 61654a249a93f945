/** The surrogate whose value each token adds to the loss. docs/maths.md has one formula for each. */
export type Surrogate = "ppo-clip" | "gspo" | "gspo-token" | "cispo" | "sapo" | "luspo" | "gmpo" | "row-coefficient";

/** How tokens' terms become the loss: weights of `ObjectiveFields.reduction`. */
export type Reduction = "token-mean" | "sequence-mean" | "sequence-sum" | "token-sum";
/** KL_t of d = log P_ref - log P: "k1" -d; "k2" d^2 / 2; "k3" e^d - d - 1; "abs" |d|. */
export type KlEstimator = "k1" | "k2" | "k3" | "abs";
/** What exp(log P_old - log P_sampler) is measured over, a token or its sequence, and what its bounds do. */
export type ImportanceCorrection = "none" | "token-truncate" | "token-mask" | "sequence-truncate" | "sequence-mask";

/** Every field of an objective. A field that the surrogate does not use is kept and ignored. */
export interface ObjectiveFields {
  /** L_t, with r the ratio P / P_old. Default by factory. */
  readonly objective: Surrogate;
  /**
   * Ratios are clipped to [1 - clipLow, 1 + clipHigh]; `gmpo` clips log-ratios to [-clipLow, clipHigh]. Default .2, in `gspo`
   * 3e-4, in `gmpo` .4.
   */
  readonly clipLow: number;
  /** Default .2; .28 in `dapo`, `cispo` and `rlsd`, 4e-4 in `gspo`, .4 in `gmpo`. */
  readonly clipHigh: number;
  /** For A < 0 a token's loss is at most -dualClip * A. null, the default but for `rlsd` without a base (3): off. */
  readonly dualClip: number | null;
  /** Two-sided clip: the unclipped branch's ratio is at most this. null, the default: off. */
  readonly ratioBound: number | null;
  /**
   * Weight of a token whose sequence has len unmasked ones. "token-mean": 1 / tokens. "sequence-mean": 1 / (len B), an empty
   * sequence counts in B. "sequence-sum": 1 / B. "token-sum": 1. Default by factory.
   */
  readonly reduction: Reduction;
  /** Replaces the reduction's divisor (tokens, sequences, sequences, 1). null, the default: the reduction's own. */
  readonly normalizer: number | null;
  /** beta: weight of KL_t, which needs refLogProbs where it is above 0. Default 0. */
  readonly klCoef: number;
  /** Default "k3". */
  readonly klEstimator: KlEstimator;
  /** Default 10. Bound of the k3 term (its exponent is clamped to +-20 first). null: neither clamp; e^d is then infinite from about d = 89 on. */
  readonly klClamp: number | null;
  /** Multiply each token's KL by its ratio (importance-corrected KL). Default false. */
  readonly klImportanceCorrection: boolean;
  /** Divides logits before the softmax: the rollout's temperature. Log-probs that are given have it already. Default 1. */
  readonly temperature: number;
  /** The loss gains -entropyCoef * H, H in nats. Needs logits or hidden states. Default 0. */
  readonly entropyCoef: number;
  /** z -> softcap * tanh(z / softcap). null, the default: off. */
  readonly logitSoftcap: number | null;
  /** "bf16": logits are rounded as an engine that stores bf16 logits rounds them. Default "none". */
  readonly logitRounding: "none" | "bf16";
  /** After non-finite rows were left out of loss and gradient: "error", the default, throws ERR_RLSD_NON_FINITE; "skip" counts them. */
  readonly nonFinite: "error" | "skip";
  /** L_t is multiplied by exp(old - sampler), truncated or masked by token or by sequence. Default "token-truncate". */
  readonly importanceCorrection: ImportanceCorrection;
  /** Its lower bound. null, the default: off. */
  readonly importanceMin: number | null;
  /** Its upper bound. Default 3; null: off. */
  readonly importanceMax: number | null;
  /** sapo's sigmoid temperature for A > 0. Default 1. */
  readonly sapoTemperaturePos: number;
  /** For A <= 0. Default 1.05. */
  readonly sapoTemperatureNeg: number;
  /** lambda of A ((1 - lambda) + lambda clip(w)): 0 is the bare objective, 1 the full credit. Default .5 in `rlsd`, else 0. */
  readonly creditMix: number;
  /** eps_w: evidence weights are clipped to [1 - eps_w, 1 + eps_w]. Default .2. */
  readonly evidenceClip: number;
  /** Credit only where the advantage is negative. Default false. */
  readonly negativeOnly: boolean;
  /** "symmetric", the default: clip(w). "pessimistic": min(w A, clip(w) A) as Eq. 16 is printed. */
  readonly clipMode: "symmetric" | "pessimistic";
  /** "sequence": the credit's mean over each sequence is 1. Default "none". */
  readonly normalize: "none" | "sequence";
  /** Which student log-probs the evidence is measured against: those of now, the default, or of sampling time (oldLogProbs). */
  readonly studentSource: "current" | "old";
}

declare const checked: unique symbol;
/** Fields to change. No objective: all of its fields would win, those of the credit among them. */
export type ObjectiveOptions = { readonly [K in keyof ObjectiveFields]?: ObjectiveFields[K] | undefined } & {
  readonly [checked]?: never;
};
/** A frozen, checked objective. Made by `grpo()`, `rlsd()` and their like; never by hand. */
export type Objective = ObjectiveFields & { readonly [checked]: true };
