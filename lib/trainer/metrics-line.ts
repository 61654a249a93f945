/** Numbers that a step or an evaluation logs by these names. A quantity that is absent was not measured. Shares are from 0 to 1. */
interface NamedMetrics {
  /** Mean of what was judged. */
  readonly reward?: number;
  /** Share that is right; of an evaluation, greedy. */
  readonly accuracy?: number;
  /** Evaluation: lower bound of its 95 % interval. */
  readonly accuracyLow?: number;
  /** Evaluation: upper bound of its 95 % interval. */
  readonly accuracyHigh?: number;
  /** Evaluation: held-out rows. */
  readonly rows?: number;
  /** Verdicts of null. */
  readonly unjudged?: number;
  /** Mean tokens of a completion. */
  readonly length?: number;
  readonly lengthMax?: number;
  /** Of the model, in a conversation with an environment. */
  readonly turns?: number;
  /** Share cut at `rollout.maxTokens`. */
  readonly truncatedFraction?: number;
  /** Share of completions that match `leak.patterns`. */
  readonly leakRate?: number;
  /** Mean surprise of the drawn tokens, in nats. */
  readonly entropy?: number;
  /** Drawn in the step; of algorithm sft, learned. */
  readonly tokens?: number;
  readonly groups?: number;
  /** Share of groups whose rewards are all equal. */
  readonly zeroVarianceFraction?: number;
  /** Groups with fewer than two judged rewards. */
  readonly unjudgedGroups?: number;
  /** Share of what has an advantage that had no privileged text. */
  readonly noPrivilegeFraction?: number;
  /** Completions that the teacher read. */
  readonly teacherSequences?: number;
  /** Of them, those whose privileged text was cut. */
  readonly truncatedPrivilege?: number;
  /** `privileged.contrast`: completions without another rejected one. */
  readonly withoutContrast?: number;
  /** Of a step; of an evaluation, cross-entropy of held-out traces, where those are learned. */
  readonly loss?: number;
  /** Mean over the updates, before it is clipped. */
  readonly gradientNorm?: number;
  readonly updates?: number;
  /** Left out, as the gradient was not finite. */
  readonly skippedUpdates?: number;
  readonly nonFiniteRows?: number;
  readonly nanTeacherRows?: number;
  /** In nats. */
  readonly klMean?: number;
  readonly ratioMean?: number;
  readonly ratioClippedHigh?: number;
  readonly ratioClippedLow?: number;
  readonly dualClipped?: number;
  readonly advantageMean?: number;
  readonly advantageAbsMean?: number;
  /** Of log P_T - log P_S, in nats. */
  readonly deltaMean?: number;
  /** Where A > 0. */
  readonly deltaMeanPositive?: number;
  /** Where A < 0. */
  readonly deltaMeanNegative?: number;
  /** After the clip, as its quantiles below; in the `stats` of an operation before it. */
  readonly evidenceWeightMean?: number;
  readonly evidenceWeightP05?: number;
  readonly evidenceWeightP25?: number;
  readonly evidenceWeightP50?: number;
  readonly evidenceWeightP75?: number;
  readonly evidenceWeightP95?: number;
  /** Share of weights below 1 - evidenceClip. */
  readonly evidenceClippedLow?: number;
  /** Share of weights above 1 + evidenceClip. */
  readonly evidenceClippedHigh?: number;
  /** Of the student from the teacher, a token, in nats. */
  readonly divergenceMean?: number;
  /** Share of tokens held by `distill.valueClamp`. */
  readonly divergenceClamped?: number;
  /** lambda at this step. */
  readonly creditMix?: number;
  readonly learningRate?: number;
}

/**
 * A line of metrics.jsonl. All that depends on the clock is under `time`. Besides what is named here, `reward/NAME` is the mean
 * reward of a part, and `avg@K` and `pass@K` are what `eval.samples` asks for, each with its bounds (`avg@KLow`, `avg@KHigh`).
 */
export interface MetricsLine extends NamedMetrics {
  /** Updates made, that of this line included. */
  readonly step: number;
  readonly kind: "train" | "eval";
  /** Milliseconds by what took them; `tokensPerSecond` of a step. */
  readonly time: Readonly<Record<string, number>>;
  readonly [name: string]: number | string | Readonly<Record<string, number>> | undefined;
}
