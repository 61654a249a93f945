/** Supervised fine-tuning: a step whose completions are the traces that its rows bring. */
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS } from "./algorithms.js";
import type { RunState } from "./checkpoint.js";
import type { LossRow } from "./loss-rows.js";
import { type Numbers, optimizerMetrics } from "./metrics.js";
import { endlessOrder } from "./random.js";
import { PROMPTS_A_CALL, type Prompted } from "./rollout.js";
import { extremes } from "./statistics.js";
import type { StepContext, StepOutcome } from "./step.js";
import { Stopwatch } from "./stopwatch.js";
import { learningRateOf, update } from "./update.js";

/** A row's trace in the place of a completion that was drawn and found right. */
function toRow(prompt: Prompted, group: number): LossRow {
  const { ids: tokenIds, text } = prompt.demonstration!;
  const { id } = prompt.example;
  const rollout = { id, group, prompt, tokenIds, logProbs: new Float32Array(0), finish: "stop" as const, text };
  return { rollout, advantage: 1, evidence: undefined, span: undefined };
}

/** One step: the next rows, and cross-entropy over the tokens of their traces. An abort comes before it or after it. */
export async function sftStep(context: StepContext, state: RunState): Promise<StepOutcome> {
  const { config, materials, policy, signal } = context;
  const { train } = materials;
  const step = state.step + 1;
  const watch = new Stopwatch();
  const order = endlessOrder(train.length, config.seed, config.data.shuffle);
  const rows = Array.from({ length: config.rollout.prompts }, (_, i) =>
    toRow(train[order.at(state.cursor + i)]!, state.groups + i),
  );
  signal.throwIfAborted();
  context.onStage?.({ step, doing: "update", total: rows.length });
  const objective = ALGORITHMS[config.algorithm]!.objective(config);
  const result = await update(policy, rows, { config, objective, creditMix: 0, step });
  watch.lap("update");
  const lengths = rows.map(({ rollout }) => rollout.tokenIds.length);
  const tokens = lengths.reduce((a, b) => a + b, 0);
  return {
    state: {
      ...state,
      step,
      cursor: state.cursor + rows.length,
      groups: state.groups + rows.length,
      tokens: state.tokens + tokens,
    },
    metrics: {
      step,
      kind: "train",
      ...optimizerMetrics(result),
      length: tokens / rows.length,
      lengthMax: extremes(lengths).max,
      tokens,
      learningRate: learningRateOf(step, config.steps, config.optimizer),
      time: { ...watch.times, total: watch.total, tokensPerSecond: (1000 * tokens) / watch.total },
    },
    samples: [],
  };
}

/** Mean of -log P over the tokens of held-out traces, at temperature 1; nothing where no row has one. */
export async function traceLoss(policy: Policy, prompts: readonly Prompted[], signal: AbortSignal): Promise<Numbers> {
  const shown = prompts.filter(({ demonstration }) => demonstration !== undefined);
  let [sum, tokens] = [0, 0];
  for (let start = 0; start < shown.length; start += PROMPTS_A_CALL) {
    const requests = shown
      .slice(start, start + PROMPTS_A_CALL)
      .map((prompt) => ({ prompt: prompt.ids, completion: prompt.demonstration!.ids }));
    for (const logProbs of await policy.score(requests, { signal })) {
      for (const logProb of logProbs) sum -= logProb;
      tokens += logProbs.length;
    }
  }
  return tokens === 0 ? {} : { loss: sum / tokens };
}
