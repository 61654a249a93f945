import type { ResolvedConfig } from "./config.js";
import { requireVerdicts } from "./judge.js";
import { type LeakDetector, type Numbers, partRewards } from "./metrics.js";
import { type Prediction, type PredictionInput, predict, type Scored } from "./predict.js";
import { hashSeed } from "./random.js";
import { reasonMetrics } from "./reasons.js";
import { traceLoss } from "./sft.js";
import { bootstrapMean, mean, passAtK, wilson } from "./statistics.js";
import { rightBy, type Success } from "./success.js";

interface EvaluationInput extends PredictionInput {
  readonly leaks: LeakDetector;
}

interface Evaluation {
  /** accuracy, accuracyLow, accuracyHigh (greedy), and avg@k, pass@k with their bounds where samples are drawn, loss where traces are learned. */
  readonly metrics: Numbers;
  /** Those that this call drew. */
  readonly predictions: readonly Prediction[];
}

function greedyMetrics(predictions: readonly Scored[], isRight: Success, leaks: LeakDetector): Numbers {
  const judged = predictions.flatMap(({ verdict }) => (verdict.reward === null ? [] : [verdict]));
  const right = judged.filter(isRight).length;
  const { low, high } = wilson(right, judged.length);
  const turns = predictions.flatMap((one) => one.turns ?? []);
  return {
    accuracy: right / judged.length,
    accuracyLow: low,
    accuracyHigh: high,
    reward: mean(judged.map(({ reward }) => reward!)),
    ...partRewards(predictions.map(({ verdict }) => verdict)),
    rows: predictions.length,
    unjudged: predictions.length - judged.length,
    ...reasonMetrics(predictions.map(({ verdict }) => verdict)),
    length: mean(predictions.map(({ length }) => length)),
    ...(turns.length > 0 && { turns: mean(turns) }),
    truncatedFraction: mean(predictions.map(({ finish }) => Number(finish === "length"))),
    leakRate: mean(predictions.map((one) => Number(leaks(one)))),
  };
}

/** avg@k and pass@k with bounds; samples that could not be judged are left out of their problem. */
function sampledMetrics(predictions: readonly Scored[], config: ResolvedConfig): Numbers {
  const isRight = rightBy(config);
  const problems = new Map<number, boolean[]>();
  for (const { group, verdict } of predictions) {
    const judged = problems.get(group) ?? [];
    if (verdict.reward !== null) judged.push(isRight(verdict));
    problems.set(group, judged);
  }
  const counts = [...problems.values()].map((judged) => ({ n: judged.length, c: judged.filter(Boolean).length }));
  const bounded = (name: string, values: readonly number[]): Numbers => {
    if (values.length === 0) return {};
    const { low, high } = bootstrapMean(values, hashSeed(config.seed, name));
    return { [name]: mean(values), [`${name}Low`]: low, [`${name}High`]: high };
  };
  const samples = config.eval.samples;
  const averages = counts.filter(({ n }) => n > 0).map(({ n, c }) => c / n);
  return Object.assign(
    bounded(`avg@${samples}`, averages),
    ...config.eval.passAt.map((k) => {
      const usable = counts.filter(({ n }) => n >= k);
      return bounded(
        `pass@${k}`,
        usable.map(({ n, c }) => passAtK(n, c, k)),
      );
    }),
  ) as Numbers;
}

/** Greedy accuracy on held-out rows and, with `eval.samples`, avg@k and pass@k. Deterministic. */
export async function evaluate(input: EvaluationInput): Promise<Evaluation> {
  const { config, journal, kept, step } = input;
  const { samples, temperature } = config.eval;
  const predictions: Prediction[] = [];
  const greedy = await predict(input, { name: "greedy", count: 1, temperature: 0, before: 0 }, predictions);
  const verdicts = greedy.map(({ verdict }) => verdict);
  await requireVerdicts(verdicts, "the evaluation", async () => {
    await journal?.forget(step, "greedy");
    await kept?.forget();
  });
  const metrics = {
    ...greedyMetrics(greedy, rightBy(config), input.leaks),
    ...(await traceLoss(input.policy, input.prompts, input.signal)),
  };
  if (samples === 0) return { metrics, predictions };
  const kind = { name: "sampled", count: samples, temperature, before: greedy.length } as const;
  const sampled = await predict(input, kind, predictions);
  return { metrics: { ...metrics, ...sampledMetrics(sampled, config) }, predictions };
}
