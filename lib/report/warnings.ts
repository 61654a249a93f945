import type { MetricsLine } from "../trainer/metrics-line.js";
import type { RunDigest } from "./digest.js";
import { mean, numberIn, percent } from "./numbers.js";

/** Something in a run's metrics that its owner should look at. */
export interface Warning {
  /** Name of the quantity in metrics.jsonl. */
  readonly metric: string;
  readonly message: string;
}

const numbers = (lines: readonly MetricsLine[], name: string): number[] =>
  lines.flatMap((line) => (typeof line[name] === "number" ? [line[name]] : []));

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

type Rule = (late: readonly MetricsLine[], all: readonly MetricsLine[]) => Warning | undefined;

/** A share that is too large over the last quarter of a run. */
const tooLarge =
  (metric: string, most: number, message: string): Rule =>
  (late) => {
    const values = numbers(late, metric);
    if (values.length === 0 || mean(values) <= most) return undefined;
    return { metric, message: `${percent(mean(values), 0)} ${message}` };
  };

/** Something that should never happen, counted over the whole run. */
const never =
  (metric: string, message: string): Rule =>
  (_, all) => {
    const count = sum(numbers(all, metric));
    return count > 0 ? { metric, message: `${count} ${message}` } : undefined;
  };

const FLAT_GROUPS = tooLarge(
  "zeroVarianceFraction",
  0.5,
  "of the groups had equal rewards and taught nothing: the data is too easy or too hard, see groups.zeroVariance.",
);

const RULES: readonly Rule[] = [
  never("unjudged", "completions had no verdict: the verifier failed or ran out of time, see `detail.reason`."),
  never("skippedUpdates", "updates were skipped: the gradient was not finite."),
  never("nonFiniteRows", "tokens had logits that are not finite."),
  never("nanTeacherRows", "tokens got no evidence: the teacher's log-probs were not numbers."),
  never("truncatedPrivilege", "privileged texts were cut to fit: raise privileged.maxTokens, or use a shorter source."),
  // Where the teacher is imitated, such groups teach too.
  (late, all) => (numbers(late, "divergenceMean").length > 0 ? undefined : FLAT_GROUPS(late, all)),
  tooLarge(
    "truncatedFraction",
    0.25,
    "of the completions were cut off: raise rollout.maxTokens, or see overlong.mode.",
  ),
  tooLarge(
    "noPrivilegeFraction",
    0.25,
    "of the completions that the teacher would have read had no privileged text, and so nothing from it.",
  ),
  tooLarge("leakRate", 0.01, "of the completions speak of what only the teacher saw (leak.patterns)."),
  tooLarge("ratioClippedHigh", 0.3, "of the ratios were clipped above: updates go further than the rollouts warrant."),
  tooLarge(
    "evidenceClippedHigh",
    0.5,
    "of the weights were clipped above: evidenceClip, not the teacher, says how much a token counts.",
  ),
  (late, all) => {
    const [first, last] = [numbers(all, "entropy").slice(0, Math.max(1, late.length)), numbers(late, "entropy")];
    if (last.length === 0 || mean(last) >= 0.1 * mean(first)) return undefined;
    return { metric: "entropy", message: "Entropy fell to less than a tenth: the policy has stopped exploring." };
  },
  (late) => {
    const [right, wrong] = [numbers(late, "deltaMeanPositive"), numbers(late, "deltaMeanNegative")];
    if (right.length === 0 || wrong.length === 0 || mean(right) >= mean(wrong)) return undefined;
    const message = "The teacher liked rejected completions better than accepted ones: is the privileged text right?";
    return { metric: "deltaMeanPositive", message };
  },
];

/** A run whose checkpoints are all no better than the model that it began with. */
function neverBetter(metrics: readonly MetricsLine[]): Warning[] {
  const [first, ...later] = numbers(metrics, "accuracy");
  if (first === undefined || metrics[0]?.step !== 0 || later.length === 0 || later.some((one) => one > first))
    return [];
  const message =
    "No evaluation was better than the one before the first update: the best is the model that the run began with.";
  return [{ metric: "accuracy", message }];
}

/** A run that was better once, by more than either evaluation can be wrong. */
function lostAgain(evals: readonly MetricsLine[]): Warning[] {
  const [last, ...before] = evals.filter((line) => numberIn(line, "accuracy") !== undefined).reverse();
  if (last === undefined || before.length === 0) return [];
  const of = (line: MetricsLine, name: string) => numberIn(line, name) ?? Number.NaN;
  const best = before.reduce((a, b) => (of(b, "accuracy") > of(a, "accuracy") ? b : a));
  if (!(of(last, "accuracyHigh") < of(best, "accuracyLow"))) return [];
  const [then, now] = [percent(of(best, "accuracy")), percent(of(last, "accuracy"))];
  const message = `Held-out accuracy was ${then} at step ${best.step} and is ${now} now: later updates did harm. The best checkpoint is kept; stop.patience ends a run in time.`;
  return [{ metric: "accuracy", message }];
}

/** What a look at the curves should not miss. Shares are means over the last quarter of the run. */
export function warningsOf({ metrics }: Pick<RunDigest, "metrics">): Warning[] {
  const train = metrics.filter((line) => line.kind === "train");
  if (train.length === 0) return [];
  const late = train.slice(-Math.max(1, Math.ceil(train.length / 4)));
  const told = RULES.map((rule) => rule(late, train)).filter((warning) => warning !== undefined);
  const evals = metrics.filter((line) => line.kind === "eval");
  return [...neverBetter(evals), ...lostAgain(evals), ...told];
}
