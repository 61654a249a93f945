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

/** "no-answer 93%, too-long 4%": what verifiers said most, of metrics of one prefix; "" where they said nothing. */
function saidMost(lines: readonly MetricsLine[], prefix: string, show: (value: number) => string): string {
  const names = new Set(lines.flatMap((line) => Object.keys(line)).filter((name) => name.startsWith(prefix)));
  const totals = [...names].map((name) => [name.slice(prefix.length), sum(numbers(lines, name))] as const);
  const most = totals.toSorted(([, a], [, b]) => b - a).slice(0, 3);
  return most.map(([name, total]) => `${name} ${show(total)}`).join(", ");
}

/** Groups whose rewards are all equal, and on which side. */
const flatGroups: Rule = (late) => {
  const metric = "zeroVarianceFraction";
  const flat = numbers(late, metric);
  if (flat.length === 0 || mean(flat) <= 0.5) return undefined;
  const begins = `${percent(mean(flat), 0)} of the groups had equal rewards and taught nothing`;
  const right = mean(numbers(late, "accuracy"));
  if (right >= 0.98) {
    return { metric, message: `${begins}: ${percent(right, 0)} of the completions are right, the data is too easy.` };
  }
  if (right <= 0.02) {
    const said = saidMost(late, "reason/", (total) => percent(total / late.length, 0));
    const why = said === "" ? "" : `, the verifier says ${said}`;
    const message = `${begins}: ${percent(right, 0)} of the completions are right${why}. Read some in the report or by rlsd credit: is it the answer that is wrong, or its form, or the reward's? --dry-run tells what the verifier says of the data's own traces. Where the model does not know the form, begin with algorithm=sft.`;
    return { metric, message };
  }
  const message = `${begins}: most questions are always answered alike, rightly or wrongly. groups.zeroVariance=resample draws others, a larger rollout.count tells more of them apart.`;
  return { metric, message };
};

/** Parts of a reward that no completion earns, where others are earned. */
const deadParts: Rule = (late) => {
  if (late.every((line) => (numberIn(line, "reward") ?? 0) === 0)) return undefined;
  const names = [...new Set(late.flatMap((line) => Object.keys(line)))].filter((name) => name.startsWith("reward/"));
  const dead = names.filter((name) => numbers(late, name).every((value) => value === 0));
  if (dead.length === 0) return undefined;
  const message = `was 0 for every completion, while others of the reward were earned: that part teaches nothing.`;
  return { metric: dead[0]!, message: `${dead.map((name) => name.slice("reward/".length)).join(" and ")} ${message}` };
};

/** Verdicts of null, of steps and of evaluations. */
function unjudged(metrics: readonly MetricsLine[]): Warning[] {
  const count = sum(numbers(metrics, "unjudged"));
  if (count === 0) return [];
  const said = saidMost(metrics, "unjudged/", String);
  const message = `${count} completions had no verdict${said === "" ? "" : ` (${said})`}: they are left out of losses and accuracies. samples.jsonl has what was said of those that were logged.`;
  return [{ metric: "unjudged", message }];
}

/** The first lines of a run, as many as the last ones. */
const earlyOf = (late: readonly MetricsLine[], all: readonly MetricsLine[]) => all.slice(0, Math.max(1, late.length));

/** How many times what it was at first a mean is now; undefined: not to be said. */
function growth(late: readonly MetricsLine[], all: readonly MetricsLine[], name: string): number | undefined {
  const [first, last] = [numbers(earlyOf(late, all), name), numbers(late, name)];
  return first.length === 0 || last.length === 0 || mean(first) === 0 ? undefined : mean(last) / mean(first);
}

/** A reward that is less than half of what it was. */
const fallenReward: Rule = (late, all) => {
  const times = growth(late, all, "reward");
  const before = mean(numbers(earlyOf(late, all), "reward"));
  if (times === undefined || !(times < 0.5) || before < 0.1) return undefined;
  const fell = `The mean reward fell from ${before.toFixed(2)} to ${(times * before).toFixed(2)}`;
  const nearer = (growth(late, all, "divergenceMean") ?? Number.POSITIVE_INFINITY) <= 1;
  const message = nearer
    ? `${fell} while the student came nearer to its teacher: what it imitates is worse than what it did. See what the teacher is asked (--dry-run), or let verdicts give the direction (algorithm=rlsd).`
    : `${fell}: updates do harm. A lower optimizer.learningRate or an objective.klCoef may hold it.`;
  return { metric: "reward", message };
};

/** Tokens whose weights are all about 1, whatever the verdict. */
const silentTeacher: Rule = (late) => {
  const [low, high] = [numbers(late, "evidenceWeightP05"), numbers(late, "evidenceWeightP95")];
  const clipped = [...numbers(late, "evidenceClippedLow"), ...numbers(late, "evidenceClippedHigh")];
  const deltas = ["deltaMeanPositive", "deltaMeanNegative"].flatMap((name) => numbers(late, name));
  if (low.length === 0 || mean(low) < 0.995 || mean(high) > 1.005 || mean(clipped) > 0.001) return undefined;
  // A few tokens that matter do not show in quantiles.
  if (deltas.some((delta) => Math.abs(delta) > 0.001)) return undefined;
  const message = `Nearly all weights lie between ${mean(low).toFixed(3)} and ${mean(high).toFixed(3)}: with the privileged text the teacher says what the student says, and the credit changes nothing. --dry-run shows what it is asked.`;
  return { metric: "evidenceWeightMean", message };
};

/** A teacher that is put off by its prompt more than it tells right from wrong. */
const confusedTeacher: Rule = (late) => {
  const [right, wrong] = [numbers(late, "deltaMeanPositive"), numbers(late, "deltaMeanNegative")];
  if (right.length === 0 || wrong.length === 0) return undefined;
  const [ofRight, ofWrong] = [mean(right), mean(wrong)];
  if (ofRight < ofWrong) {
    const message = "The teacher liked rejected completions better than accepted ones: is the privileged text right?";
    return { metric: "deltaMeanPositive", message };
  }
  if (ofRight > -0.25 || ofRight - ofWrong > -0.5 * ofRight) return undefined;
  const message = `The teacher's prompt puts it off more than it tells right from wrong: a token loses ${(-ofRight).toFixed(2)} nats in accepted completions and ${(-ofWrong).toFixed(2)} in rejected ones. Is privileged.template one that this model can read? --dry-run shows it.`;
  return { metric: "deltaMeanPositive", message };
};

const RULES: readonly Rule[] = [
  never("skippedUpdates", "updates were skipped: the gradient was not finite."),
  never("nonFiniteRows", "tokens had logits that are not finite."),
  never("nanTeacherRows", "tokens got no evidence: the teacher's log-probs were not numbers."),
  never("truncatedPrivilege", "privileged texts were cut to fit: raise privileged.maxTokens, or use a shorter source."),
  // Where the teacher is imitated, such groups teach too.
  (late, all) => (numbers(late, "divergenceMean").length > 0 ? undefined : flatGroups(late, all)),
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
    const times = growth(late, all, "entropy");
    if (times === undefined || (times >= 0.1 && (times <= 3 || mean(numbers(late, "entropy")) < 1))) return undefined;
    const message =
      times < 0.1
        ? "Entropy fell to less than a tenth: the policy has stopped exploring."
        : `Entropy rose ${times.toFixed(1)} times: the policy comes apart. A lower optimizer.learningRate or an objective.klCoef holds it.`;
    return { metric: "entropy", message };
  },
  (late, all) => {
    const times = growth(late, all, "length");
    if (times === undefined || times >= 0.5 || numbers(late, "reward").length === 0) return undefined;
    const message = `Completions shrank to ${percent(times, 0)} of their length: does the reward pay for what is short? Read some.`;
    return { metric: "length", message };
  },
  fallenReward,
  deadParts,
  silentTeacher,
  confusedTeacher,
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

/** What the steps alone say, also while a run goes on. Shares are means over the last quarter of them. */
export function stepWarnings(metrics: readonly MetricsLine[]): Warning[] {
  const train = metrics.filter((line) => line.kind === "train");
  if (train.length === 0) return [];
  const late = train.slice(-Math.max(1, Math.ceil(train.length / 4)));
  const told = RULES.map((rule) => rule(late, train)).filter((warning) => warning !== undefined);
  return [...unjudged(metrics), ...told];
}

/** What a look at the curves should not miss. */
export function warningsOf({ metrics }: Pick<RunDigest, "metrics">): Warning[] {
  if (!metrics.some((line) => line.kind === "train")) return [];
  const evals = metrics.filter((line) => line.kind === "eval");
  return [...neverBetter(evals), ...lostAgain(evals), ...stepWarnings(metrics)];
}
