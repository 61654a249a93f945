/** Supervised fine-tuning: a step whose completions are the traces, or all turns of the assistant, that its rows bring. */
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS } from "./algorithms.js";
import type { RunState } from "./checkpoint.js";
import { type LossRow, lossTokens } from "./loss-rows.js";
import { type Numbers, optimizerMetrics } from "./metrics.js";
import { endlessOrder } from "./random.js";
import { PROMPTS_A_CALL, type Prompted } from "./rollout.js";
import { extremes, sum } from "./statistics.js";
import type { StepContext, StepOutcome } from "./step.js";
import { Stopwatch } from "./stopwatch.js";
import { learningRateOf, update } from "./update.js";

/** What a row answers in the place of completions that were drawn and found right. */
function toRows(prompt: Prompted, group: number): LossRow[] {
  const { id } = prompt.example;
  return prompt.imitations!.map(({ prompt: read, ids: tokenIds, mask }) => {
    const drawn = { logProbs: new Float32Array(0), finish: "stop" as const, text: "" };
    const rollout = { id, group, prompt: { ...prompt, ...read }, tokenIds, ...drawn };
    return { rollout, advantage: 1, evidence: undefined, span: undefined, mask };
  });
}

/** One step: the next rows, and cross-entropy over the tokens of what they answer. An abort comes before it or after it. */
export async function sftStep(context: StepContext, state: RunState): Promise<StepOutcome> {
  const { config, materials, policy, signal } = context;
  const { train } = materials;
  const step = state.step + 1;
  const watch = new Stopwatch();
  const order = endlessOrder(train.length, config.seed, config.data.shuffle);
  const conversations = Array.from({ length: config.rollout.prompts }, (_, i) =>
    toRows(train[order.at(state.cursor + i)]!, state.groups + i),
  );
  const rows = conversations.flat();
  signal.throwIfAborted();
  context.onStage?.({ step, doing: "update", total: conversations.length });
  const objective = ALGORITHMS[config.algorithm].objective(config);
  const result = await update(policy, rows, { config, objective, creditMix: 0, step });
  watch.lap("update");
  const lengths = conversations.map((answers) => answers.reduce((n, row) => n + lossTokens(row), 0));
  const tokens = sum(lengths);
  return {
    state: {
      ...state,
      step,
      cursor: state.cursor + conversations.length,
      groups: state.groups + conversations.length,
      tokens: state.tokens + tokens,
    },
    metrics: {
      step,
      kind: "train",
      ...optimizerMetrics(result),
      length: tokens / conversations.length,
      lengthMax: extremes(lengths).max,
      tokens,
      learningRate: learningRateOf(step, config.steps, config.optimizer),
      time: { ...watch.times, total: watch.total, tokensPerSecond: (1000 * tokens) / watch.total },
    },
    samples: [],
  };
}

/** Mean of -log P over the tokens of held-out traces that would be learned, at temperature 1; nothing where no row has one. */
export async function traceLoss(policy: Policy, prompts: readonly Prompted[], signal: AbortSignal): Promise<Numbers> {
  const imitations = prompts.flatMap((prompt) => prompt.imitations ?? []);
  let [surprise, tokens] = [0, 0];
  for (let start = 0; start < imitations.length; start += PROMPTS_A_CALL) {
    const some = imitations.slice(start, start + PROMPTS_A_CALL);
    const requests = some.map(({ prompt, ids }) => ({ prompt: prompt.ids, completion: ids }));
    for (const [i, logProbs] of (await policy.score(requests, { signal })).entries()) {
      const { mask } = some[i]!;
      for (const [t, logProb] of logProbs.entries()) {
        if (mask?.[t] === 0) continue;
        surprise -= logProb;
        tokens++;
      }
    }
  }
  return tokens === 0 ? {} : { loss: surprise / tokens };
}
