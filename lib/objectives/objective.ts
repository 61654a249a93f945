/** The surrogate whose value each token adds to the loss. docs/maths.md has one formula for each. */
export type Surrogate = "ppo-clip" | "gspo" | "gspo-token" | "cispo" | "sapo" | "luspo" | "gmpo" | "row-coefficient";

export type Reduction = "token-mean" | "sequence-mean" | "sequence-sum" | "token-sum";
export type KlEstimator = "k1" | "k2" | "k3" | "abs";
export type ImportanceCorrection = "none" | "token-truncate" | "token-mask" | "sequence-truncate" | "sequence-mask";

/** Every field of an objective. A field that the surrogate does not use is kept and ignored. */
export interface ObjectiveFields {
  readonly objective: Surrogate;
  /** Ratios are clipped to [1 - clipLow, 1 + clipHigh]; `gmpo` clips log-ratios to [-clipLow, clipHigh]. */
  readonly clipLow: number;
  readonly clipHigh: number;
  /** For A < 0 a token's loss is at most -dualClip * A. null: off. */
  readonly dualClip: number | null;
  /** Two-sided clip: the unclipped branch's ratio is at most this. null: off. */
  readonly ratioBound: number | null;
  readonly reduction: Reduction;
  /** Replaces the reduction's divisor (tokens, sequences, sequences, 1). null: the reduction's own. */
  readonly normalizer: number | null;
  readonly klCoef: number;
  readonly klEstimator: KlEstimator;
  /** Bound of the k3 term (its exponent is clamped to +-20 first). null: neither clamp; e^d is then infinite from about d = 89 on. */
  readonly klClamp: number | null;
  /** Multiply each token's KL by its ratio (importance-corrected KL). */
  readonly klImportanceCorrection: boolean;
  /** Divides logits before the softmax: the rollout's temperature. */
  readonly temperature: number;
  /** The loss gains -entropyCoef * H. Needs logits or hidden states. */
  readonly entropyCoef: number;
  /** z -> softcap * tanh(z / softcap). null: off. */
  readonly logitSoftcap: number | null;
  /** "bf16": logits are rounded as an engine that stores bf16 logits rounds them. */
  readonly logitRounding: "none" | "bf16";
  /** What a non-finite row does after it was left out of loss and gradient. */
  readonly nonFinite: "error" | "skip";
  /** Correction from samplerLogProbs: exp(old - sampler), truncated or masked by token or by sequence. */
  readonly importanceCorrection: ImportanceCorrection;
  readonly importanceMin: number | null;
  readonly importanceMax: number | null;
  /** sapo's sigmoid temperatures for A > 0 and A <= 0. */
  readonly sapoTemperaturePos: number;
  readonly sapoTemperatureNeg: number;
  /** lambda: 0 is the bare objective, 1 the full credit. */
  readonly creditMix: number;
  /** eps_w: evidence weights are clipped to [1 - eps_w, 1 + eps_w]. */
  readonly evidenceClip: number;
  /** Credit only where the advantage is negative. */
  readonly negativeOnly: boolean;
  /** "symmetric": clip(w). "pessimistic": min(w A, clip(w) A) as Eq. 16 is printed. */
  readonly clipMode: "symmetric" | "pessimistic";
  /** "sequence": the credit's mean over each sequence is 1. */
  readonly normalize: "none" | "sequence";
  /** Which student log-probs the evidence is measured against. */
  readonly studentSource: "current" | "old";
}

declare const checked: unique symbol;
/** Fields to change. No objective: all of its fields would win, those of the credit among them. */
export type ObjectiveOptions = { readonly [K in keyof ObjectiveFields]?: ObjectiveFields[K] | undefined } & {
  readonly [checked]?: never;
};
/** A frozen, checked objective. Made by `grpo()`, `rlsd()` and their like; never by hand. */
export type Objective = ObjectiveFields & { readonly [checked]: true };
