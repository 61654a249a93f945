import type { Objective } from "../objectives/objective.js";
import { areEqual, groupAdvantages, summarizeGroups } from "../ops/advantages.js";
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS } from "./algorithms.js";
import type { RunState } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { type EvidenceResult, gatherEvidence, type PrivilegedFunction } from "./evidence.js";
import { type Judged, judge, requireVerdicts } from "./judge.js";
import { type Numbers, rolloutMetrics, updateMetrics } from "./metrics.js";
import type { Materials } from "./prepare.js";
import { endlessOrder, hashSeed } from "./random.js";
import { type Rollout, rollout, spanOf } from "./rollout.js";
import type { MetricsLine, SampleLine } from "./run-folder.js";
import { creditedWeights, sampleLine } from "./sample-line.js";
import type { OnStage } from "./stage.js";
import { Stopwatch } from "./stopwatch.js";
import { rightBy } from "./success.js";
import type { Teacher } from "./teacher.js";
import { type LossRow, learningRateOf, type UpdateResult, update } from "./update.js";
import type { VerdictJournal } from "./verdict-journal.js";

/** What a step works with. Only `policy` and `teacher` change under it. */
export interface StepContext {
  readonly config: ResolvedConfig;
  readonly materials: Materials;
  readonly policy: Policy;
  readonly teacher: Teacher | undefined;
  /** Policy that the KL term is measured against; never the teacher. */
  readonly reference: Policy | undefined;
  readonly journal: VerdictJournal | undefined;
  readonly privileged?: PrivilegedFunction | undefined;
  readonly signal: AbortSignal;
  readonly onStage?: OnStage | undefined;
}

export interface StepOutcome {
  readonly state: RunState;
  readonly metrics: MetricsLine;
  readonly samples: readonly SampleLine[];
}

/** Completions of a step with their verdicts, over all draws. */
interface Collected {
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

async function collect(context: StepContext, state: RunState, watch: Stopwatch): Promise<Collected> {
  const { config, materials, policy, signal, journal } = context;
  const order = endlessOrder(materials.train.length, config.seed, config.data.shuffle);
  const out: Collected & { cursor: number } = { rollouts: [], verdicts: [], cursor: state.cursor };
  const step = state.step + 1;
  const draws = config.groups.zeroVariance === "resample" ? 1 + config.groups.maxResamples : 1;
  let wanted = config.rollout.prompts;
  for (let draw = 0; draw < draws && wanted > 0; draw++) {
    const prompts = Array.from({ length: wanted }, (_, i) => materials.train[order.at(out.cursor + i)]!);
    const total = prompts.length * config.rollout.count;
    context.onStage?.({ step, doing: "rollout", total });
    const rollouts = await rollout(policy, materials.tokenizer, prompts, {
      sampling: config.rollout,
      count: config.rollout.count,
      temperature: config.rollout.temperature,
      seed: hashSeed(config.seed, "rollout", step, draw),
      firstGroup: state.groups + (out.cursor - state.cursor),
      signal,
    });
    watch.lap("rollout");
    const verdicts = await judge(materials.verifier, rollouts, config, {
      signal,
      occasion: { step, name: `train-${draw}` },
      journal,
      onJudged: (done) => context.onStage?.({ step, doing: "verify", done, total }),
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
function inLoss({ rollouts, verdicts }: Collected, config: ResolvedConfig): boolean[] {
  const flat = config.groups.zeroVariance === "keep" ? new Set<number>() : flatGroups(rollouts, verdicts);
  return rollouts.map(
    (one, i) =>
      verdicts[i]!.reward !== null &&
      !(config.overlong.mode === "mask" && one.finish === "length") &&
      !flat.has(one.group),
  );
}

const NO_EVIDENCE: EvidenceResult = { evidence: [], withoutPrivilege: 0, withoutContrast: 0 };

/** What the teacher says of the rollouts in the loss that have an advantage. */
async function askTeacher(
  { config, materials, privileged, teacher, signal }: StepContext,
  step: number,
  collected: Collected,
  advantages: Float32Array,
): Promise<EvidenceResult> {
  if (teacher === undefined || ALGORITHMS[config.algorithm]!.teacherView(config, step) === "none") return NO_EVIDENCE;
  const { block, prompter } = materials;
  const used = inLoss(collected, config);
  const worth = advantages.map((advantage, i) => (used[i] ? advantage : 0));
  const options = { config, block, prompter, privileged, signal };
  return gatherEvidence(teacher.policy, collected.rollouts, collected.verdicts, worth, options);
}

/** Log-probs of the policy before the updates, where these or the credit ask for them, and of the KL reference. */
async function scored(
  context: StepContext,
  rows: readonly LossRow[],
  { klCoef, studentSource }: Objective,
): Promise<LossRow[]> {
  const { config, policy, reference, signal } = context;
  const requests = rows.map((row) => ({ prompt: row.rollout.prompt.ids, completion: row.rollout.tokenIds }));
  const o = { temperature: config.rollout.temperature, signal };
  const asked = config.update.epochs * config.update.minibatches > 1 || studentSource === "old";
  const old = asked && rows.length > 0 ? await policy.score(requests, o) : undefined;
  const ref = klCoef > 0 && rows.length > 0 ? await reference?.score(requests, o) : undefined;
  return rows.map((row, i) => ({
    ...row,
    ...(old && { oldLogProbs: old[i]! }),
    ...(ref && { refLogProbs: ref[i]! }),
  }));
}

function toRows(
  collected: Collected,
  advantages: Float32Array,
  evidence: EvidenceResult["evidence"],
  context: StepContext,
): (LossRow | undefined)[] {
  const { config, materials } = context;
  const used = inLoss(collected, config);
  return collected.rollouts.map((one, i) =>
    used[i]
      ? {
          rollout: one,
          advantage: advantages[i]!,
          evidence: evidence[i],
          span: spanOf(one, materials.tokenizer, config),
        }
      : undefined,
  );
}

function sampleLines(
  step: number,
  collected: Collected,
  advantages: Float32Array,
  results: ReadonlyMap<Rollout, { row: LossRow; result: UpdateResult["rows"][number] }>,
  context: StepContext,
): SampleLine[] {
  const { config, materials } = context;
  const objective = ALGORITHMS[config.algorithm]!.objective(config);
  return collected.rollouts.slice(0, config.log.samples).map((one, i) => {
    const { row, result } = results.get(one) ?? {};
    const weights = result?.evidenceWeights;
    const given = { span: row?.span, advantage: advantages[i]!, negativeOnly: objective.negativeOnly };
    const told = {
      step,
      rollout: one,
      verdict: collected.verdicts[i]!,
      advantage: advantages[i]!,
      evidence: row?.evidence,
      evidenceWeights: weights && creditedWeights(weights, given),
      tokenAdvantages: result?.tokenAdvantages,
    };
    return sampleLine(told, materials.tokenizer);
  });
}

function groupMetrics(
  collected: Collected,
  advantages: Float32Array,
  evidence: EvidenceResult,
  config: ResolvedConfig,
): Numbers {
  const rewards = collected.verdicts.map((verdict) => verdict.reward);
  const { groups, zeroVariance, unjudged } = summarizeGroups(
    rewards,
    collected.rollouts.map((one) => one.group),
  );
  const used = inLoss(collected, config);
  const nonzero = advantages.filter((advantage, i) => used[i] && advantage !== 0).length;
  return {
    groups,
    zeroVarianceFraction: zeroVariance / groups,
    unjudgedGroups: unjudged,
    noPrivilegeFraction: nonzero === 0 ? 0 : evidence.withoutPrivilege / nonzero,
    teacherSequences: evidence.evidence.filter((e) => e !== undefined).length,
    truncatedPrivilege: evidence.evidence.filter((e) => e?.truncated).length,
    ...(evidence.withoutContrast > 0 && { withoutContrast: evidence.withoutContrast }),
  };
}

/**
 * One step: rollout, verify, advantage, teacher, loss, update. Until the first gradient nothing has changed, so an abort
 * before that leaves the run as it was; after it the step is finished.
 */
export async function trainStep(context: StepContext, state: RunState): Promise<StepOutcome> {
  const { config, materials, policy, teacher, signal } = context;
  const algorithm = ALGORITHMS[config.algorithm]!;
  const step = state.step + 1;
  const watch = new Stopwatch();
  const collected = await collect(context, state, watch);
  await requireVerdicts(collected.verdicts, `step ${step}`, () => context.journal?.forget(step, "train"));
  const groupIds = collected.rollouts.map((one) => one.group);
  const rewards = collected.verdicts.map((verdict) => verdict.reward);
  const advantages = groupAdvantages(rewards, groupIds, config.advantage);

  const total = collected.rollouts.length;
  context.onStage?.({ step, doing: "teacher", total });
  const evidence = await askTeacher(context, step, collected, advantages);
  watch.lap("teacher");

  context.onStage?.({ step, doing: "update", total });
  const objective = algorithm.objective(config);
  const candidates = toRows(collected, advantages, evidence.evidence, context).filter((row) => row !== undefined);
  const rows = await scored(context, candidates, objective);
  signal.throwIfAborted();
  const creditMix = algorithm.creditMix(config, step);
  const result = await update(policy, rows, { config, objective, creditMix, step });
  watch.lap("update");
  await teacher?.afterUpdate(step);

  const results = new Map(rows.map((row, i) => [row.rollout, { row, result: result.rows[i] }] as const));
  const rollouts = rolloutMetrics(collected.rollouts, collected.verdicts, {
    leaks: materials.leaks,
    isRight: rightBy(config),
  });
  const seconds = watch.total / 1000;
  return {
    state: {
      ...state,
      step,
      cursor: collected.cursor,
      groups: state.groups + (collected.cursor - state.cursor),
      tokens: state.tokens + rollouts.tokens!,
    },
    metrics: {
      step,
      kind: "train",
      ...rollouts,
      ...groupMetrics(collected, advantages, evidence, config),
      ...updateMetrics(rows, result, objective),
      creditMix,
      learningRate: learningRateOf(step, config.steps, config.optimizer),
      time: { ...watch.times, total: watch.total, tokensPerSecond: rollouts.tokens! / seconds },
    },
    samples: sampleLines(step, collected, advantages, results, context),
  };
}
