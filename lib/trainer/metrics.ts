import type { Objective } from "../objectives/objective.js";
import type { PolicyResult, Stats } from "../tensor/results.js";
import { allSaid } from "./conversation.js";
import { type Judged, partsOf } from "./judge.js";
import type { LossRow } from "./loss-rows.js";
import { reasonMetrics } from "./reasons.js";
import type { Rollout } from "./rollout.js";
import { extremes } from "./statistics.js";
import type { Success } from "./success.js";
import type { UpdateResult } from "./update.js";

export type Numbers = Record<string, number>;

const mean = (values: readonly number[]): number | undefined =>
  values.length === 0 ? undefined : values.reduce((a, b) => a + b, 0) / values.length;

/** Leaves out what is not there: an absent quantity is absent, never 0. */
function present(values: Readonly<Record<string, number | undefined>>): Numbers {
  const entries = Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

/** Nearest-rank quantiles. */
export function quantiles(values: Float64Array, at: readonly number[]): number[] {
  const sorted = values.toSorted();
  return at.map((q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!);
}

/** Whether a completion speaks of what only the teacher saw. */
export type LeakDetector = (completion: Pick<Rollout, "text">) => boolean;

export function createLeakDetector(patterns: readonly string[]): LeakDetector {
  const expressions = patterns.map((pattern) => new RegExp(pattern, "i"));
  return ({ text }) => expressions.some((expression) => expression.test(text));
}

/** Parts are few and the same for all completions; what else looks like one must not fill the log. */
const MOST_PARTS = 32;

/** Mean reward of each part of a sum or a gate, as `reward/<name>`, over the completions that it judged. */
export function partRewards(verdicts: readonly Judged[]): Numbers {
  const parts = new Map<string, number[]>();
  const visit = (verdict: Partial<Judged>, path: string): void => {
    for (const [name, part] of partsOf(verdict)) {
      if (typeof part.reward !== "number") continue;
      const key = `${path}/${name}`;
      if (!parts.has(key) && parts.size >= MOST_PARTS) continue;
      const rewards = parts.get(key) ?? [];
      rewards.push(part.reward);
      parts.set(key, rewards);
      visit(part, key);
    }
  };
  for (const verdict of verdicts) visit(verdict, "reward");
  return present(Object.fromEntries([...parts].map(([name, rewards]) => [name, mean(rewards)])));
}

/** How completions and rewards look, before anything is learned from them. */
export function rolloutMetrics(
  rollouts: readonly Rollout[],
  verdicts: readonly Judged[],
  o: { readonly leaks: LeakDetector; readonly isRight: Success },
): Numbers {
  const lengths = rollouts.map((rollout) => rollout.tokenIds.length);
  const judged = verdicts.filter(({ reward }) => reward !== null);
  const talks = rollouts.flatMap(({ conversation }) => conversation ?? []);
  const surprise = rollouts.flatMap(({ logProbs, conversation }) =>
    Array.from(logProbs, (p) => -p).filter((_, t) => conversation?.mask[t] !== 0),
  );
  return present({
    reward: mean(judged.map(({ reward }) => reward!)),
    ...partRewards(verdicts),
    accuracy: mean(judged.map((verdict) => Number(o.isRight(verdict)))),
    unjudged: verdicts.length - judged.length,
    ...reasonMetrics(verdicts),
    length: mean(lengths),
    lengthMax: extremes(lengths).max,
    turns: mean(talks.map(({ turns }) => turns)),
    truncatedFraction: mean(rollouts.map((rollout) => Number(rollout.finish === "length"))),
    leakRate: mean(
      rollouts.map(({ text, conversation }) => Number(o.leaks({ text: allSaid({ text, ...conversation }) }))),
    ),
    // The mean surprise of what was drawn: an unbiased estimate of the entropy at the rollout's temperature.
    entropy: mean(surprise),
    tokens: surprise.length,
  });
}

/** Means over several calls, each weighed by its tokens; counts are added up. */
function merged(calls: readonly PolicyResult[], names: readonly (keyof Stats)[]): Numbers {
  return present(
    Object.fromEntries(
      names.map((name) => {
        const seen = calls.filter((call) => call.stats[name] !== undefined);
        const weight = seen.reduce((n, call) => n + call.stats.tokens, 0);
        const sum = seen.reduce((n, call) => n + call.stats[name]! * call.stats.tokens, 0);
        return [name, weight === 0 ? undefined : sum / weight];
      }),
    ),
  );
}

function sum<N extends string>(calls: readonly { readonly stats: Readonly<Record<N, number>> }[], name: N): number {
  return calls.reduce((n, { stats }) => n + stats[name], 0);
}

/** Evidence token by token, over the rows that a teacher spoke about and inside the span: the weights are those after the clip. */
function evidenceMetrics(
  rows: readonly LossRow[],
  result: UpdateResult,
  { evidenceClip, studentSource }: Pick<Objective, "evidenceClip" | "studentSource">,
): Numbers {
  const weights: number[] = [];
  const clipped: { low: number; high: number }[] = [];
  const deltas: { delta: number; positive: boolean }[] = [];
  for (const [i, row] of rows.entries()) {
    const told = result.rows[i];
    if (row.evidence === undefined || told?.evidenceWeights === undefined) continue;
    const student = studentSource === "old" ? row.oldLogProbs : undefined;
    const against = row.evidence.contrastLogProbs ?? student ?? told.logProbs;
    for (const [t, weight] of told.evidenceWeights.entries()) {
      if (row.span !== undefined && row.span[t] === 0) continue;
      weights.push(weight);
      const delta = row.evidence.teacherLogProbs[t]! - against[t]!;
      if (Number.isFinite(delta)) deltas.push({ delta, positive: row.advantage > 0 });
      if (Number.isNaN(delta)) continue;
      const unclipped = Math.exp(Math.sign(row.advantage) * delta);
      clipped.push({ low: Number(unclipped < 1 - evidenceClip), high: Number(unclipped > 1 + evidenceClip) });
    }
  }
  if (weights.length === 0) return {};
  const [p05, p25, p50, p75, p95] = quantiles(Float64Array.from(weights), [0.05, 0.25, 0.5, 0.75, 0.95]);
  const deltaWhere = (positive: boolean) => mean(deltas.filter((d) => d.positive === positive).map((d) => d.delta));
  return present({
    deltaMean: mean(deltas.map((d) => d.delta)),
    deltaMeanPositive: deltaWhere(true),
    deltaMeanNegative: deltaWhere(false),
    evidenceWeightMean: mean(weights),
    evidenceWeightP05: p05,
    evidenceWeightP25: p25,
    evidenceWeightP50: p50,
    evidenceWeightP75: p75,
    evidenceWeightP95: p95,
    evidenceClippedLow: mean(clipped.map((one) => one.low)),
    evidenceClippedHigh: mean(clipped.map((one) => one.high)),
  });
}

/** What every update tells, whatever it minimised. */
export function optimizerMetrics({ calls, distilled, steps, loss }: UpdateResult): Numbers {
  return {
    loss,
    ...present({ gradientNorm: mean(steps.map((step) => step.gradientNorm)) }),
    updates: steps.length,
    skippedUpdates: steps.filter((step) => step.skipped).length,
    nonFiniteRows: sum(calls, "nonFiniteRows") + sum(distilled, "nonFiniteRows"),
  };
}

/** How far the student is from the teacher a token, in nats, over the rows that it has read and inside the span. */
export function distillMetrics(rows: readonly LossRow[], { distilled }: UpdateResult, weight: number): Numbers {
  if (distilled.length > 0) {
    const tokens = sum(distilled, "tokens");
    const meanOf = (name: "mean" | "clampedFraction") =>
      distilled.reduce((total, { stats }) => total + stats[name] * stats.tokens, 0) / tokens;
    return { divergenceMean: meanOf("mean"), divergenceClamped: meanOf("clampedFraction") };
  }
  // Estimated at the drawn tokens: what their advantages have of it, with the other sign.
  const estimates = rows.flatMap(({ tokenAdvantages, advantage, span }) =>
    Array.from(tokenAdvantages ?? [], (one) => (advantage - one) / weight).filter((_, t) => span?.[t] !== 0),
  );
  return present({ divergenceMean: mean(estimates) });
}

/** What the loss and the optimizer said. */
export function updateMetrics(rows: readonly LossRow[], result: UpdateResult, objective: Objective): Numbers {
  return {
    ...optimizerMetrics(result),
    ...merged(result.calls, [
      "klMean",
      "ratioMean",
      "ratioClippedHigh",
      "ratioClippedLow",
      "dualClipped",
      "advantageMean",
      "advantageAbsMean",
    ]),
    ...evidenceMetrics(rows, result, objective),
    nanTeacherRows: sum(result.calls, "nanTeacherRows"),
  };
}
