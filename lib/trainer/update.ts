import type { Objective } from "../objectives/objective.js";
import { rlsd } from "../objectives/presets.js";
import { packTokens } from "../ops/pack.js";
import type { DistillResult, Policy, StepResult, TrainBatch } from "../policy/policy.js";
import { learningRateAt } from "../policy/schedule.js";
import type { PolicyResult } from "../tensor/results.js";
import type { ResolvedConfig } from "./config.js";
import { distillTerm, type RowDivergences } from "./distillation.js";
import { type LossRow, microbatches, normalizerOf, packMasks } from "./loss-rows.js";
import { hashSeed, permutation } from "./random.js";
import { sequenceOf } from "./rollout.js";

/** What the first pass over a row told, one entry a token of its completion. */
interface RowResult {
  readonly logProbs: Float32Array;
  readonly evidenceWeights: Float32Array | undefined;
  readonly tokenAdvantages: Float32Array;
}

export interface UpdateResult {
  /** By row; undefined: its gradient was known to be 0 and it was not run. */
  readonly rows: readonly (RowResult | undefined)[];
  readonly calls: readonly PolicyResult[];
  /** By row: each token's divergence from the teacher in the first pass; undefined: it has no lesson. */
  readonly divergences: readonly (Float32Array | undefined)[];
  readonly distilled: readonly DistillResult[];
  readonly steps: readonly StepResult[];
  /** Of an optimizer step, both parts together. */
  readonly loss: number;
}

const concat = (parts: readonly Float32Array[]): Float32Array => packTokens(parts).values;

const zeros = (row: LossRow) => new Float32Array(row.rollout.tokenIds.length);

/** dL/dlogP of a mean over tokens of -A log P: with A = 1, cross-entropy. */
const coefficients = (rows: readonly LossRow[], normalizer: number): Float32Array =>
  concat(rows.map((row) => zeros(row).fill(-row.advantage / normalizer)));

/** One an advantage of a row, or, where a row has its own for each token, one a token. */
function advantagesOf(rows: readonly LossRow[]): Float32Array {
  if (!rows.some((row) => row.tokenAdvantages !== undefined)) return Float32Array.from(rows, (row) => row.advantage);
  return concat(rows.map((row) => row.tokenAdvantages ?? zeros(row).fill(row.advantage)));
}

/** A token batch of rows. Rows without evidence get a span of nothing: their credit is exactly 1. */
export function toBatch(rows: readonly LossRow[], objective: Objective): TrainBatch {
  const taught = rows.some((row) => row.evidence !== undefined);
  const contrasted = rows.some((row) => row.evidence?.contrastLogProbs !== undefined);
  const spanned = taught && rows.some((row) => row.evidence === undefined || row.span !== undefined);
  const teacher = (row: LossRow) => row.evidence?.teacherLogProbs ?? zeros(row);
  const spanOf = (row: LossRow) =>
    row.evidence === undefined ? new Uint8Array(row.rollout.tokenIds.length) : row.span;
  return {
    sequences: rows.map(({ rollout }) => sequenceOf(rollout)),
    advantages:
      objective.objective === "row-coefficient" ? coefficients(rows, objective.normalizer ?? 1) : advantagesOf(rows),
    ...(rows.some((row) => row.mask !== undefined) && { completionMask: packMasks(rows, (row) => row.mask) }),
    ...(taught && { teacherLogProbs: concat(rows.map(teacher)) }),
    // A row without evidence has no contrast either: the teacher itself.
    ...(contrasted && {
      contrastLogProbs: concat(rows.map((row) => row.evidence?.contrastLogProbs ?? teacher(row))),
    }),
    ...(spanned && { spanMask: packMasks(rows, spanOf) }),
    ...(rows[0]?.oldLogProbs && { oldLogProbs: concat(rows.map((row) => row.oldLogProbs!)) }),
    // Of what was not drawn there are none.
    ...(objective.objective !== "row-coefficient" &&
      objective.importanceCorrection !== "none" && {
        samplerLogProbs: concat(rows.map((row) => row.rollout.logProbs)),
      }),
    ...(rows[0]?.refLogProbs && { refLogProbs: concat(rows.map((row) => row.refLogProbs!)) }),
  };
}

/** The rows of one update of a pass, in their own order, so that completions of a prompt lie side by side. */
function minibatch(rows: readonly LossRow[], order: Int32Array, at: number, updates: number): LossRow[] {
  const edge = (i: number) => Math.floor((i * rows.length) / updates);
  return Array.from(order.slice(edge(at), edge(at + 1)).sort(), (i) => rows[i]!);
}

const pushes = ({ advantage, tokenAdvantages }: LossRow): boolean =>
  tokenAdvantages === undefined ? advantage !== 0 : tokenAdvantages.some((one) => one !== 0);

/** Rows that can move the policy: with a KL or an entropy term all of them, otherwise those with an advantage. */
const moving = (rows: readonly LossRow[], objective: Objective) =>
  objective.klCoef > 0 || objective.entropyCoef !== 0 ? rows : rows.filter(pushes);

/** The learning rate at a step, counted from 1. */
export function learningRateOf(step: number, steps: number, o: ResolvedConfig["optimizer"]): number {
  const { learningRate: peak, warmup, schedule: decay, minRatio: floor } = o;
  return learningRateAt(step, { peak, total: Math.max(1, steps), warmup, decay, floor });
}

function keepRowResults(rows: readonly LossRow[], result: PolicyResult, into: Map<LossRow, RowResult>): void {
  let at = 0;
  for (const row of rows) {
    const end = at + row.rollout.tokenIds.length;
    if (!into.has(row)) {
      into.set(row, {
        logProbs: result.logProbs.slice(at, end),
        evidenceWeights: row.evidence === undefined ? undefined : result.evidenceWeights.slice(at, end),
        tokenAdvantages: result.tokenAdvantages.slice(at, end),
      });
    }
    at = end;
  }
}

interface UpdateOptions {
  readonly config: ResolvedConfig;
  readonly objective: Objective;
  readonly creditMix: number;
  readonly step: number;
  /** Whom rows with a lesson are brought nearer to, and how much that weighs in the loss. */
  readonly lessons?: { readonly teacher: Policy; readonly weight: number } | undefined;
}

/** What the passes over a step's rows told, as they are made. */
interface Told {
  readonly rows: Map<LossRow, RowResult>;
  readonly calls: PolicyResult[];
  readonly divergences: RowDivergences;
  readonly distilled: DistillResult[];
}

/** Adds up the gradient of one minibatch; false: it is known to be 0. */
async function gradient(policy: Policy, chosen: readonly LossRow[], o: UpdateOptions, told: Told): Promise<boolean> {
  const { config } = o;
  const { microbatchTokens } = config.update;
  const budget = Math.min(microbatchTokens, policy.batchTokens ?? microbatchTokens);
  const normalizer = normalizerOf(o.objective, chosen, config);
  const objective = rlsd({ creditMix: o.creditMix, normalizer }, o.objective);
  const before = told.calls.length + told.distilled.length;
  const work = moving(chosen, objective);
  for (const part of work.length === 0 ? [] : microbatches(work, budget)) {
    const result = await policy.accumulate(toBatch(part, objective), objective);
    told.calls.push(result);
    keepRowResults(part, result, told.rows);
  }
  if (o.lessons !== undefined) {
    const options = { config, objective: o.objective, budget, ...o.lessons };
    told.distilled.push(...(await distillTerm(policy, chosen, options, told.divergences)));
  }
  return told.calls.length + told.distilled.length > before;
}

/** Every update of one step: passes over its rows, minibatches, microbatches; one optimizer step a minibatch. */
export async function update(policy: Policy, rows: readonly LossRow[], o: UpdateOptions): Promise<UpdateResult> {
  const { config, step } = o;
  const told: Told = { rows: new Map(), calls: [], divergences: new Map(), distilled: [] };
  const steps: StepResult[] = [];
  const { epochs, minibatches } = config.update;
  const { weightDecay, betas, eps, maxGradientNorm } = config.optimizer;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = permutation(rows.length, hashSeed(config.seed, "minibatches", step, epoch));
    const updates = Math.min(minibatches, rows.length);
    for (let i = 0; i < updates; i++) {
      if (!(await gradient(policy, minibatch(rows, order, i, updates), o, told))) continue;
      steps.push(
        await policy.step({
          learningRate: learningRateOf(step, config.steps, config.optimizer),
          weightDecay,
          betas: [betas[0]!, betas[1]!],
          eps,
          maxGradientNorm: maxGradientNorm ?? Number.POSITIVE_INFINITY,
        }),
      );
    }
  }
  const { calls, distilled } = told;
  const lossOf = (parts: readonly { readonly loss: number }[]) => parts.reduce((sum, { loss }) => sum + loss, 0);
  const loss = lossOf(calls) + (o.lessons?.weight ?? 0) * lossOf(distilled);
  return {
    rows: rows.map((row) => told.rows.get(row)),
    calls,
    divergences: rows.map((row) => told.divergences.get(row)),
    distilled,
    steps,
    loss: steps.length === 0 ? 0 : loss / steps.length,
  };
}
