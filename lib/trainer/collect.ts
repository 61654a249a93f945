import { areEqual } from "../ops/advantages.js";
import type { RunState } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { complete } from "./conversation.js";
import { type Judged, judge } from "./judge.js";
import { endlessOrder, hashSeed } from "./random.js";
import type { Rollout } from "./rollout.js";
import { countTokens } from "./stage.js";
import type { StepContext } from "./step.js";
import type { Stopwatch } from "./stopwatch.js";

/** Completions of a step with their verdicts, over all draws. */
export interface Collected {
  readonly rollouts: Rollout[];
  readonly verdicts: Judged[];
  readonly cursor: number;
}

/** Numbers of the groups whose judged rewards are all equal. */
function flatGroups(rollouts: readonly Rollout[], verdicts: readonly Judged[]): Set<number> {
  const rewards = new Map<number, number[]>(rollouts.map(({ group }) => [group, []]));
  for (const [i, { group }] of rollouts.entries()) {
    const { reward } = verdicts[i]!;
    if (reward !== null) rewards.get(group)!.push(reward);
  }
  return new Set([...rewards.keys()].filter((group) => areEqual(rewards.get(group)!)));
}

/** Draws and judges until enough groups teach something, or there were enough draws. */
export async function collect(context: StepContext, state: RunState, watch: Stopwatch): Promise<Collected> {
  const { config, materials, policy, signal, journal } = context;
  const order = endlessOrder(materials.train.length, config.seed, config.data.shuffle);
  const out: Collected & { cursor: number } = { rollouts: [], verdicts: [], cursor: state.cursor };
  const step = state.step + 1;
  const draws = config.groups.zeroVariance === "resample" ? 1 + config.groups.maxResamples : 1;
  let wanted = config.rollout.prompts;
  for (let draw = 0; draw < draws && wanted > 0; draw++) {
    const prompts = Array.from({ length: wanted }, (_, i) => materials.train[order.at(out.cursor + i)]!);
    const total = prompts.length * config.rollout.count;
    const { onStage } = context;
    onStage?.({ step, doing: "rollout", total });
    const asked = {
      sampling: config.rollout,
      count: config.rollout.count,
      temperature: config.rollout.temperature,
      seed: hashSeed(config.seed, "rollout", step, draw),
      firstGroup: state.groups + (out.cursor - state.cursor),
      signal,
      onToken: countTokens(onStage && ((tokens) => onStage({ step, doing: "rollout", total, tokens }))),
    };
    const rollouts = await complete(policy, materials.tokenizer, prompts, asked, materials.talk);
    watch.lap("rollout");
    const verdicts = await judge(materials.verifier, rollouts, config, {
      signal,
      occasion: { step, name: `train-${draw}` },
      journal,
      onJudged: (done) => onStage?.({ step, doing: "verify", done, total }),
    });
    watch.lap("verify");
    // One by one: there may be more than a call has arguments.
    for (const [i, one] of rollouts.entries()) {
      out.rollouts.push(one);
      out.verdicts.push(verdicts[i]!);
    }
    out.cursor += prompts.length;
    wanted = flatGroups(rollouts, verdicts).size;
  }
  return out;
}

/** Which rollouts the loss sees: judged, not cut off where that is asked, not of a flat group where those are dropped. */
export function inLoss({ rollouts, verdicts }: Collected, config: ResolvedConfig): boolean[] {
  const flat = config.groups.zeroVariance === "keep" ? new Set<number>() : flatGroups(rollouts, verdicts);
  return rollouts.map(
    (one, i) =>
      verdicts[i]!.reward !== null &&
      !(config.overlong.mode === "mask" && one.finish === "length") &&
      !flat.has(one.group),
  );
}
