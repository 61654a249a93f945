import type { DType } from "./dtype.js";
import type { Tensor } from "./tensor.js";

/** Statistics of one call. Means are over unmasked tokens, fractions in [0, 1]; an absent quantity is absent, never 0. */
export interface Stats {
  /** Unmasked tokens. */
  readonly tokens: number;
  /** B, empty ones included. */
  readonly sequences: number;
  /** As `PolicyResult.loss`. */
  readonly loss: number;
  /** The loss without its KL and entropy terms. */
  readonly policyLoss: number;
  /** Of KL_t, by the objective's estimator, in nats. */
  readonly klMean?: number;
  /** In nats; where logits or hidden states were given. */
  readonly entropyMean?: number;
  /** Of r = P / P_old. */
  readonly ratioMean?: number;
  /** A > 0 and the ratio above 1 + clipHigh. */
  readonly ratioClippedHigh?: number;
  /** A < 0 and the ratio below 1 - clipLow. */
  readonly ratioClippedLow?: number;
  /** A < 0 and the loss held to -dualClip * A. */
  readonly dualClipped?: number;
  /** Of the token advantages, credit included. */
  readonly advantageMean?: number;
  /** Of their absolute values. */
  readonly advantageAbsMean?: number;
  /** Of delta = log P_T - log P_S, in nats; -Infinity where the teacher rules a token out. */
  readonly deltaMean?: number;
  /** Of delta where A > 0. */
  readonly deltaMeanPositive?: number;
  /** Of delta where A < 0. */
  readonly deltaMeanNegative?: number;
  /** w before the clip; may be Infinity. */
  readonly evidenceWeightMean?: number;
  /** Of clip(w, 1 - evidenceClip, 1 + evidenceClip). */
  readonly clippedWeightMean?: number;
  /** w below 1 - evidenceClip. */
  readonly evidenceClippedLow?: number;
  /** w above 1 + evidenceClip. */
  readonly evidenceClippedHigh?: number;
  /** Unmasked rows with a non-finite score: no loss, no gradient. */
  readonly nonFiniteRows: number;
  /** Rows whose teacher gave no usable evidence: rho = 1. */
  readonly nanTeacherRows: number;
  /** Unmasked rows that were not read because their gradient was known to be 0. */
  readonly skippedRows: number;
}

/** dL / dx times lossScale, of what the student was given as. Each tensor has the shape of what it is the gradient of. */
export interface ScoreGradient {
  /** Where the student was given as logits. */
  readonly logits?: Tensor;
  /** Where it was given as hidden states and a head, as the two below. */
  readonly hidden?: Tensor;
  /** Absent with `frozenHead`. */
  readonly head?: Tensor;
  /** Where the head has one. */
  readonly bias?: Tensor;
}

/** As ScoreGradient, and of the log-probs whatever it was given as. */
export interface PolicyGradient extends ScoreGradient {
  /** (N): dL / dlogP, times lossScale. */
  readonly logProbs: Float32Array;
}

/** G where more is known of some of its fields. */
export type Known<G, More> = Omit<G, keyof More> & More;

/** Of logits, in their dtype. */
export interface LogitGradient<D extends DType> {
  /** dL / dz times lossScale, in the shape of the logits; 0 in rows that no token names, where it was not written elsewhere. */
  readonly logits: Tensor<D>;
}

/** Of hidden states under a frozen head; f32 where `out` says so. */
export interface HiddenGradient<D extends DType> {
  /** In the shape of the hidden states. */
  readonly hidden: Tensor<D | "f32">;
  /** (V, H); absent with `frozenHead`. */
  readonly head?: Tensor<D | "f32">;
}

/** Of hidden states and the head that is trained; f32 where `out` says so. */
export interface HeadGradient<D extends DType> {
  /** In the shape of the hidden states. */
  readonly hidden: Tensor<D | "f32">;
  /** (V, H) */
  readonly head: Tensor<D | "f32">;
}

/**
 * What `policyLoss` returns. Every (N) array is 0 where the token is masked. Those that it made itself are views of one
 * buffer: copy one (`slice`) before you transfer its buffer or read all of it.
 */
export interface PolicyResult<G extends PolicyGradient = PolicyGradient> {
  /** sum_t omega_t (L_t + klCoef KL_t - entropyCoef H_t); not multiplied by lossScale. */
  readonly loss: number;
  /** (N): log P of each token, in nats. */
  readonly logProbs: Float32Array;
  /** (N); absent without a teacher. */
  readonly teacherLogProbs?: Float32Array;
  /** (N): A * rho, what the surrogate saw. */
  readonly tokenAdvantages: Float32Array;
  /** (N): c_t, after the clip and before creditMix; 1 without a teacher or where A = 0. */
  readonly evidenceWeights: Float32Array;
  /** Of what the student was given as. */
  readonly gradient: G;
  /** Of the whole call. */
  readonly stats: Stats;
}

/** What `policyLoss` returns with `results: "device"`: as PolicyResult, each a tensor on the call's device. */
export interface DevicePolicyResult extends Disposable {
  /** (), f32 */
  readonly loss: Tensor<"f32">;
  /** (N), f32: log P of each token, in nats. */
  readonly logProbs: Tensor<"f32">;
  /** (N), f32; absent without a teacher. */
  readonly teacherLogProbs?: Tensor<"f32">;
  /** (N), f32: A * rho, what the surrogate saw. */
  readonly tokenAdvantages: Tensor<"f32">;
  /** (N), f32: c_t, after the clip and before creditMix; 1 without a teacher or where A = 0. */
  readonly evidenceWeights: Tensor<"f32">;
  /** dL / dlogP (N), f32, and of the logits where the student was given as those; times lossScale. */
  readonly gradient: { readonly logProbs: Tensor<"f32">; readonly logits?: Tensor };
  /** Waits for the call without blocking this thread. Throws what it found wrong, as `toHost` of its results does. */
  stats(): Promise<Stats>;
}
