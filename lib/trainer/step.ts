import type { Objective } from "../objectives/objective.js";
import { groupAdvantages, summarizeGroups } from "../ops/advantages.js";
import type { Policy } from "../policy/policy.js";
import { ALGORITHMS, distillWeight } from "./algorithms.js";
import type { RunState } from "./checkpoint.js";
import { type Collected, collect, inLoss } from "./collect.js";
import type { ResolvedConfig } from "./config.js";
import { sampledAdvantages } from "./distillation.js";
import { type EvidenceResult, gatherEvidence, teacherPrompts } from "./evidence.js";
import { requireVerdicts } from "./judge.js";
import type { LossRow } from "./loss-rows.js";
import { distillMetrics, type Numbers, rolloutMetrics, updateMetrics } from "./metrics.js";
import type { MetricsLine } from "./metrics-line.js";
import type { Materials } from "./prepare.js";
import type { PrivilegedFunction } from "./privileged-text.js";
import { type Rollout, sequenceOf, spanOf } from "./rollout.js";
import type { SampleLine } from "./run-folder.js";
import { creditedWeights, sampleLine } from "./sample-line.js";
import type { OnStage } from "./stage.js";
import { Stopwatch } from "./stopwatch.js";
import { rightBy } from "./success.js";
import type { Teacher } from "./teacher.js";
import { learningRateOf, type UpdateResult, update } from "./update.js";
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

const NO_EVIDENCE: EvidenceResult = {
  prompts: [],
  contrasts: [],
  evidence: [],
  withoutPrivilege: 0,
  withoutContrast: 0,
};

function advantagesOf({ rollouts, verdicts }: Collected, config: ResolvedConfig): Float32Array {
  // One alone has no baseline: its verdict is counted, and not learned from.
  if (config.rollout.count === 1) return new Float32Array(rollouts.length);
  const rewards = verdicts.map((verdict) => verdict.reward);
  const groupIds = rollouts.map((one) => one.group);
  return groupAdvantages(rewards, groupIds, config.advantage);
}

/** What a rollout's gradient may come to, or 0: it is not in the loss, or nothing that the teacher says could move it. */
function worthOf(collected: Collected, advantages: Float32Array, config: ResolvedConfig): Float32Array {
  const used = inLoss(collected, config);
  const teaches = distillWeight(config) > 0;
  return advantages.map((advantage, i) => (used[i] ? (teaches ? 1 : advantage) : 0));
}

/** What the teacher reads and says of the rollouts that are worth it; where it is compared with the student, it speaks later. */
async function askTeacher(
  { config, materials, privileged, teacher, signal }: StepContext,
  step: number,
  collected: Collected,
  worth: Float32Array,
): Promise<EvidenceResult> {
  const view = ALGORITHMS[config.algorithm].teacherView(config, step);
  if (teacher === undefined || view === "none") return NO_EVIDENCE;
  const { block, prompter } = materials;
  const { rollouts, verdicts } = collected;
  const options = { config, block, prompter, privileged, signal };
  if (view === "log-probs") return gatherEvidence(teacher.policy, rollouts, verdicts, worth, options);
  return { ...NO_EVIDENCE, ...teacherPrompts(teacher.policy, rollouts, verdicts, worth, options) };
}

/** Log-probs of the policy before the updates, where these or the credit ask for them, and of the KL reference. */
async function scored(
  context: StepContext,
  rows: readonly LossRow[],
  { klCoef, studentSource }: Objective,
): Promise<LossRow[]> {
  const { config, policy, reference, signal } = context;
  const requests = rows.map(({ rollout }) => sequenceOf(rollout));
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

/** A rollout in the loss of an algorithm that imitates the teacher: by its prompt, or by what it said of the drawn tokens. */
function imitating(base: LossRow, i: number, told: EvidenceResult, config: ResolvedConfig): LossRow {
  const { rewarded } = ALGORITHMS[config.algorithm].distills!;
  const advantage = rewarded ? base.advantage : 0;
  const said = told.evidence[i];
  if (said === undefined) return { ...base, advantage, lesson: told.prompts[i] };
  const weight = distillWeight(config);
  const towards = sampledAdvantages(said.teacherLogProbs, base.rollout.logProbs, base.span, config.distill);
  return { ...base, advantage, tokenAdvantages: towards.map((one) => advantage + weight * one) };
}

function toRows(
  collected: Collected,
  advantages: Float32Array,
  told: EvidenceResult,
  context: StepContext,
): (LossRow | undefined)[] {
  const { config, materials } = context;
  const used = inLoss(collected, config);
  const imitates = ALGORITHMS[config.algorithm].distills !== undefined;
  return collected.rollouts.map((rollout, i) => {
    if (!used[i]) return undefined;
    const base = {
      rollout,
      advantage: advantages[i]!,
      evidence: undefined,
      span: spanOf(rollout, materials.tokenizer, config),
      mask: rollout.conversation?.mask,
    };
    return imitates ? imitating(base, i, told, config) : { ...base, evidence: told.evidence[i] };
  });
}

/** A rollout's row in the loss, and what the update told of it. */
interface RowOutcome {
  readonly row: LossRow;
  readonly result: UpdateResult["rows"][number];
  readonly divergences: UpdateResult["divergences"][number];
}

function sampleLines(
  step: number,
  collected: Collected,
  advantages: Float32Array,
  told: EvidenceResult,
  results: ReadonlyMap<Rollout, RowOutcome>,
  context: StepContext,
): SampleLine[] {
  const { config, materials } = context;
  const objective = ALGORITHMS[config.algorithm].objective(config);
  return collected.rollouts.slice(0, config.log.samples).map((one, i) => {
    const { row, result, divergences } = results.get(one) ?? {};
    const weights = result?.evidenceWeights;
    const given = { span: row?.span, advantage: advantages[i]!, negativeOnly: objective.negativeOnly };
    const credited = {
      step,
      rollout: one,
      verdict: collected.verdicts[i]!,
      advantage: advantages[i]!,
      privileged: told.prompts[i]?.privileged,
      evidence: told.evidence[i],
      evidenceWeights: weights && creditedWeights(weights, given),
      tokenAdvantages: result?.tokenAdvantages,
      divergences,
    };
    return sampleLine(credited, materials.tokenizer);
  });
}

function groupMetrics(collected: Collected, worth: Float32Array, evidence: EvidenceResult): Numbers {
  const rewards = collected.verdicts.map((verdict) => verdict.reward);
  const { groups, zeroVariance, unjudged } = summarizeGroups(
    rewards,
    collected.rollouts.map((one) => one.group),
  );
  const asked = worth.filter((one) => one !== 0).length;
  return {
    groups,
    zeroVarianceFraction: zeroVariance / groups,
    unjudgedGroups: unjudged,
    noPrivilegeFraction: asked === 0 ? 0 : evidence.withoutPrivilege / asked,
    teacherSequences: evidence.prompts.filter((prompt) => prompt !== undefined).length,
    truncatedPrivilege: evidence.prompts.filter((prompt) => prompt?.truncated).length,
    ...(evidence.withoutContrast > 0 && { withoutContrast: evidence.withoutContrast }),
  };
}

/** The updates of a step, what they told, and of which rollout. The last moment to stop before anything has changed. */
async function learn(context: StepContext, candidates: readonly LossRow[], step: number) {
  const { config, policy, teacher, signal } = context;
  const algorithm = ALGORITHMS[config.algorithm];
  const objective = algorithm.objective(config);
  const rows = await scored(context, candidates, objective);
  signal.throwIfAborted();
  const creditMix = algorithm.creditMix(config, step);
  const weight = distillWeight(config);
  const lessons = teacher !== undefined && weight > 0 ? { teacher: teacher.policy, weight } : undefined;
  const result = await update(policy, rows, { config, objective, creditMix, step, lessons });
  const told = rows.map((row, i) => ({ row, result: result.rows[i], divergences: result.divergences[i] }));
  return {
    results: new Map<Rollout, RowOutcome>(told.map((one) => [one.row.rollout, one])),
    metrics: {
      ...updateMetrics(rows, result, objective),
      ...(weight > 0 && distillMetrics(rows, result, weight)),
      creditMix,
    },
  };
}

/**
 * One step: rollout, verify, advantage, teacher, loss, update. Until the first gradient nothing has changed, so an abort
 * before that leaves the run as it was; after it the step is finished.
 */
export async function trainStep(context: StepContext, state: RunState): Promise<StepOutcome> {
  const { config, materials } = context;
  const step = state.step + 1;
  const watch = new Stopwatch();
  const collected = await collect(context, state, watch);
  await requireVerdicts(collected.verdicts, `step ${step}`, () => context.journal?.forget(step, "train"));
  const advantages = advantagesOf(collected, config);
  const total = collected.rollouts.length;
  context.onStage?.({ step, doing: "teacher", total });
  const worth = worthOf(collected, advantages, config);
  const evidence = await askTeacher(context, step, collected, worth);
  watch.lap("teacher");

  context.onStage?.({ step, doing: "update", total });
  const candidates = toRows(collected, advantages, evidence, context).filter((row) => row !== undefined);
  const learned = await learn(context, candidates, step);
  watch.lap("update");
  await context.teacher?.afterUpdate(step);

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
      ...groupMetrics(collected, worth, evidence),
      ...learned.metrics,
      learningRate: learningRateOf(step, config.steps, config.optimizer),
      time: { ...watch.times, total: watch.total, tokensPerSecond: rollouts.tokens! / seconds },
    },
    samples: sampleLines(step, collected, advantages, evidence, learned.results, context),
  };
}
