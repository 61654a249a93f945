import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import type { Verifier } from "../verifiers/verifier.js";
import type { ResolvedConfig } from "./config.js";
import { isRight, type Judged, judge, requireVerdicts } from "./judge.js";
import { type LeakDetector, type Numbers, partRewards } from "./metrics.js";
import { hashSeed } from "./random.js";
import { PROMPTS_A_CALL, type Prompted, type Rollout, rollout } from "./rollout.js";
import { traceLoss } from "./sft.js";
import type { OnStage } from "./stage.js";
import { bootstrapMean, passAtK, wilson } from "./statistics.js";
import type { VerdictJournal } from "./verdict-journal.js";

export interface EvaluationInput {
  readonly policy: Policy;
  readonly tokenizer: Tokenizer;
  readonly verifier: Verifier;
  readonly prompts: readonly Prompted[];
  readonly config: ResolvedConfig;
  readonly leaks: LeakDetector;
  /** Verdicts from before an interruption. */
  readonly journal?: VerdictJournal | undefined;
  /** Whole predictions from before one. */
  readonly kept?: KeptPredictions | undefined;
  readonly step: number;
  readonly signal: AbortSignal;
  readonly onStage?: OnStage | undefined;
}

/** Which of an evaluation's completions one is. */
export interface Place {
  readonly greedy: boolean;
  /** Of the held-out row, counted from 0. */
  readonly group: number;
  /** Of the row's completions of that kind, counted from 0. */
  readonly sample: number;
}

export interface Prediction extends Place {
  readonly rollout: Rollout;
  readonly verdict: Judged;
}

/** What metrics need of a prediction. */
export interface Scored {
  readonly group: number;
  readonly text: string;
  /** Tokens. */
  readonly length: number;
  readonly finish: Rollout["finish"];
  readonly verdict: Judged;
}

/** Where predictions are kept as they come, and are found again by an evaluation that goes on. */
export interface KeptPredictions {
  find(place: Place): Scored | undefined;
  keep(prediction: Prediction): Promise<Scored>;
  /** They are asked for again. */
  forget(): Promise<void>;
}

export interface Evaluation {
  /** accuracy, accuracyLow, accuracyHigh (greedy), and avg@k, pass@k with their bounds where samples are drawn, loss where traces are learned. */
  readonly metrics: Numbers;
  /** Those that this call drew. */
  readonly predictions: readonly Prediction[];
}

/** Completions of one kind. */
interface Kind {
  readonly name: "greedy" | "sampled";
  readonly count: number;
  readonly temperature: number;
  /** Completions of other kinds, which are done already. */
  readonly before: number;
}

const scoredOf = ({ rollout, verdict }: Prediction): Scored => {
  const { group, text, tokenIds, finish } = rollout;
  return { group, text, length: tokenIds.length, finish, verdict };
};

/** Draws and judges the completions of some prompts that are not kept already, from the prompt number `start` on. */
async function drawMissing(
  input: EvaluationInput,
  kind: Kind,
  start: number,
  asked: {
    readonly prompts: readonly Prompted[];
    readonly places: readonly Place[];
    readonly scored: (Scored | undefined)[];
  },
  onJudged: (judged: number) => void,
): Promise<Prediction[]> {
  const { policy, tokenizer, verifier, config, journal, kept, step, signal } = input;
  const { prompts, places, scored } = asked;
  const rollouts = await rollout(policy, tokenizer, prompts, {
    sampling: config.rollout,
    count: kind.count,
    temperature: kind.temperature,
    // The same draws at every evaluation: what changes between two of them is the policy.
    seed: hashSeed(config.seed, kind.name, start),
    firstGroup: start,
    signal,
  });
  const missing = new Map(rollouts.flatMap((one, i) => (scored[i] === undefined ? [[one, i] as const] : [])));
  const predictions: Prediction[] = [];
  const keep = async (one: Rollout, verdict: Judged) => {
    const i = missing.get(one)!;
    const prediction = { ...places[i]!, rollout: one, verdict };
    scored[i] = (await kept?.keep(prediction)) ?? scoredOf(prediction);
    predictions.push(prediction);
  };
  await judge(verifier, [...missing.keys()], config, {
    signal,
    occasion: { step, name: kind.name },
    journal,
    keep,
    onJudged,
  });
  return predictions.sort((a, b) => a.group - b.group || a.sample - b.sample);
}

/** Every completion of one kind, those that are drawn now in `drawn` too. */
async function complete(input: EvaluationInput, kind: Kind, drawn: Prediction[]): Promise<Scored[]> {
  const { prompts, config, kept, step } = input;
  const { name, count } = kind;
  const out: Scored[] = [];
  const total = prompts.length * (1 + config.eval.samples);
  const tell = (done: number) =>
    input.onStage?.({ step, doing: "evaluation", done: kind.before + out.length + done, total });
  tell(0);
  // As many completions at once as greedy ones: what an interruption loses is bounded by that.
  const atOnce = Math.max(1, Math.floor(PROMPTS_A_CALL / count));
  for (let start = 0; start < prompts.length; start += atOnce) {
    const asked = prompts.slice(start, start + atOnce);
    const places = Array.from({ length: asked.length * count }, (_, i) => ({
      greedy: name === "greedy",
      group: start + Math.floor(i / count),
      sample: i % count,
    }));
    const scored = places.map((place) => kept?.find(place));
    const there = scored.filter((one) => one !== undefined).length;
    if (there < places.length) {
      if (there > 0) tell(there);
      const some = { prompts: asked, places, scored };
      drawn.push(...(await drawMissing(input, kind, start, some, (judged) => tell(there + judged))));
    }
    for (const one of scored) out.push(one!);
  }
  return out;
}

const average = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

function greedyMetrics(predictions: readonly Scored[], threshold: number, leaks: LeakDetector): Numbers {
  const judged = predictions.flatMap(({ verdict }) => (verdict.reward === null ? [] : [verdict]));
  const right = judged.filter((verdict) => isRight(verdict, threshold)).length;
  const { low, high } = wilson(right, judged.length);
  return {
    accuracy: right / judged.length,
    accuracyLow: low,
    accuracyHigh: high,
    reward: average(judged.map(({ reward }) => reward!)),
    ...partRewards(predictions.map(({ verdict }) => verdict)),
    rows: predictions.length,
    unjudged: predictions.length - judged.length,
    length: average(predictions.map(({ length }) => length)),
    truncatedFraction: average(predictions.map(({ finish }) => Number(finish === "length"))),
    leakRate: average(predictions.map((one) => Number(leaks(one)))),
  };
}

/** avg@k and pass@k with bounds; samples that could not be judged are left out of their problem. */
function sampledMetrics(predictions: readonly Scored[], config: ResolvedConfig): Numbers {
  const problems = new Map<number, boolean[]>();
  for (const { group, verdict } of predictions) {
    const judged = problems.get(group) ?? [];
    if (verdict.reward !== null) judged.push(isRight(verdict, config.eval.successThreshold));
    problems.set(group, judged);
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
  const { config, journal, kept, step } = input;
  const { samples, temperature, successThreshold } = config.eval;
  const predictions: Prediction[] = [];
  const greedy = await complete(input, { name: "greedy", count: 1, temperature: 0, before: 0 }, predictions);
  const verdicts = greedy.map(({ verdict }) => verdict);
  await requireVerdicts(verdicts, "the evaluation", async () => {
    await journal?.forget(step, "greedy");
    await kept?.forget();
  });
  const metrics = {
    ...greedyMetrics(greedy, successThreshold, input.leaks),
    ...(await traceLoss(input.policy, input.prompts, input.signal)),
  };
  if (samples === 0) return { metrics, predictions };
  const kind = { name: "sampled", count: samples, temperature, before: greedy.length } as const;
  const sampled = await complete(input, kind, predictions);
  return { metrics: { ...metrics, ...sampledMetrics(sampled, config) }, predictions };
}
