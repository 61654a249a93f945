import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import type { Verifier } from "../verifiers/verifier.js";
import type { ResolvedConfig } from "./config.js";
import { type Judged, judge, requireVerdicts } from "./judge.js";
import { type LeakDetector, type Numbers, partRewards } from "./metrics.js";
import { hashSeed } from "./random.js";
import { PROMPTS_A_CALL, type Prompted, type Rollout, rollout } from "./rollout.js";
import { traceLoss } from "./sft.js";
import type { OnStage } from "./stage.js";
import { bootstrapMean, passAtK, wilson } from "./statistics.js";
import { rightBy, type Success } from "./success.js";
import type { VerdictJournal } from "./verdict-journal.js";

export interface EvaluationInput {
  readonly policy: Policy;
  readonly tokenizer: Tokenizer;
  readonly verifier: Verifier;
  readonly prompts: readonly Prompted[];
  readonly config: ResolvedConfig;
  readonly leaks: LeakDetector;
  readonly journal?: VerdictJournal | undefined;
  readonly step: number;
  readonly signal: AbortSignal;
  readonly onStage?: OnStage | undefined;
}

export interface Prediction {
  readonly rollout: Rollout;
  readonly verdict: Judged;
  readonly greedy: boolean;
}

export interface Evaluation {
  /** accuracy, accuracyLow, accuracyHigh (greedy), and avg@k, pass@k with their bounds where samples are drawn, loss where traces are learned. */
  readonly metrics: Numbers;
  readonly predictions: readonly Prediction[];
}

/** `before`: completions that are done already. */
async function complete(input: EvaluationInput, count: number, temperature: number, name: string, before = 0) {
  const { policy, tokenizer, verifier, prompts, config, journal, step, signal } = input;
  const predictions: Prediction[] = [];
  const total = prompts.length * (1 + config.eval.samples);
  const tell = (judged: number) =>
    input.onStage?.({ step, doing: "evaluation", done: before + predictions.length + judged, total });
  tell(0);
  for (let start = 0; start < prompts.length; start += PROMPTS_A_CALL) {
    const rollouts = await rollout(policy, tokenizer, prompts.slice(start, start + PROMPTS_A_CALL), {
      sampling: config.rollout,
      count,
      temperature,
      // The same draws at every evaluation: what changes between two of them is the policy.
      seed: hashSeed(config.seed, name, start),
      firstGroup: start,
      signal,
    });
    const verdicts = await judge(verifier, rollouts, config, {
      signal,
      occasion: { step, name },
      journal,
      onJudged: tell,
    });
    for (const [i, one] of rollouts.entries()) {
      predictions.push({ rollout: one, verdict: verdicts[i]!, greedy: name === "greedy" });
    }
  }
  return predictions;
}

const average = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

function greedyMetrics(predictions: readonly Prediction[], isRight: Success, leaks: LeakDetector): Numbers {
  const judged = predictions.flatMap(({ verdict }) => (verdict.reward === null ? [] : [verdict]));
  const right = judged.filter(isRight).length;
  const { low, high } = wilson(right, judged.length);
  return {
    accuracy: right / judged.length,
    accuracyLow: low,
    accuracyHigh: high,
    reward: average(judged.map(({ reward }) => reward!)),
    ...partRewards(predictions.map(({ verdict }) => verdict)),
    rows: predictions.length,
    unjudged: predictions.length - judged.length,
    length: average(predictions.map((p) => p.rollout.tokenIds.length)),
    truncatedFraction: average(predictions.map((p) => Number(p.rollout.finish === "length"))),
    leakRate: average(predictions.map((p) => Number(leaks(p.rollout)))),
  };
}

/** avg@k and pass@k with bounds; samples that could not be judged are left out of their problem. */
function sampledMetrics(predictions: readonly Prediction[], config: ResolvedConfig): Numbers {
  const isRight = rightBy(config);
  const problems = new Map<number, boolean[]>();
  for (const { rollout: one, verdict } of predictions) {
    const judged = problems.get(one.group) ?? [];
    if (verdict.reward !== null) judged.push(isRight(verdict));
    problems.set(one.group, judged);
  }
  const counts = [...problems.values()].map((judged) => ({ n: judged.length, c: judged.filter(Boolean).length }));
  const bounded = (name: string, values: readonly number[]): Numbers => {
    if (values.length === 0) return {};
    const { low, high } = bootstrapMean(values, hashSeed(config.seed, name));
    return { [name]: average(values), [`${name}Low`]: low, [`${name}High`]: high };
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
  const { config } = input;
  const greedy = await complete(input, 1, 0, "greedy");
  const verdicts = greedy.map(({ verdict }) => verdict);
  await requireVerdicts(verdicts, "the evaluation", () => input.journal?.forget(input.step, "greedy"));
  const metrics = {
    ...greedyMetrics(greedy, rightBy(config), input.leaks),
    ...(await traceLoss(input.policy, input.prompts, input.signal)),
  };
  if (config.eval.samples === 0) return { metrics, predictions: greedy };
  const sampled = await complete(input, config.eval.samples, config.eval.temperature, "sampled", greedy.length);
  return { metrics: { ...metrics, ...sampledMetrics(sampled, config) }, predictions: [...greedy, ...sampled] };
}
