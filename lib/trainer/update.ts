import type { Objective } from "../objectives/objective.js";
import { rlsd } from "../objectives/presets.js";
import { packTokens } from "../ops/pack.js";
import type { Policy, StepResult, TrainBatch } from "../policy/policy.js";
import { learningRateAt } from "../policy/schedule.js";
import type { PolicyResult } from "../tensor/results.js";
import type { ResolvedConfig } from "./config.js";
import type { Evidence } from "./evidence.js";
import { hashSeed, permutation } from "./random.js";
import type { Rollout } from "./rollout.js";

/** One completion as the loss sees it. */
export interface LossRow {
  readonly rollout: Rollout;
  readonly advantage: number;
  readonly evidence: Evidence | undefined;
  /** Credit only where 1; undefined: everywhere. */
  readonly span: Uint8Array | undefined;
  /** Of the policy that drew it, by the kernel that trains; absent: the policy has not changed since. */
  readonly oldLogProbs?: Float32Array;
  readonly refLogProbs?: Float32Array;
}

/** What the first pass over a row told, one entry a token of its completion. */
export interface RowResult {
  readonly logProbs: Float32Array;
  readonly evidenceWeights: Float32Array | undefined;
  readonly tokenAdvantages: Float32Array;
}

export interface UpdateResult {
  /** By row; undefined: its gradient was known to be 0 and it was not run. */
  readonly rows: readonly (RowResult | undefined)[];
  readonly calls: readonly PolicyResult[];
  readonly steps: readonly StepResult[];
}

const concat = (parts: readonly Float32Array[]): Float32Array => packTokens(parts).values;

const zeros = (row: LossRow) => new Float32Array(row.rollout.tokenIds.length);

/** dL/dlogP of a mean over tokens of -A log P: with A = 1, cross-entropy. */
const coefficients = (rows: readonly LossRow[], normalizer: number): Float32Array =>
  concat(rows.map((row) => zeros(row).fill(-row.advantage / normalizer)));

/** A token batch of rows. Rows without evidence get a span of nothing: their credit is exactly 1. */
export function toBatch(rows: readonly LossRow[], objective: Objective): TrainBatch {
  const taught = rows.some((row) => row.evidence !== undefined);
  const contrasted = rows.some((row) => row.evidence?.contrastLogProbs !== undefined);
  const spanned = taught && rows.some((row) => row.evidence === undefined || row.span !== undefined);
  const teacher = (row: LossRow) => row.evidence?.teacherLogProbs ?? zeros(row);
  const spanOf = (row: LossRow) => {
    if (row.evidence === undefined) return new Uint8Array(row.rollout.tokenIds.length);
    return row.span ?? new Uint8Array(row.rollout.tokenIds.length).fill(1);
  };
  return {
    sequences: rows.map(({ rollout }) => ({ prompt: rollout.prompt.ids, completion: rollout.tokenIds })),
    advantages:
      objective.objective === "row-coefficient"
        ? coefficients(rows, objective.normalizer ?? 1)
        : Float32Array.from(rows, (row) => row.advantage),
    ...(taught && { teacherLogProbs: concat(rows.map(teacher)) }),
    // A row without evidence has no contrast either: the teacher itself.
    ...(contrasted && {
      contrastLogProbs: concat(rows.map((row) => row.evidence?.contrastLogProbs ?? teacher(row))),
    }),
    ...(spanned && { spanMask: Uint8Array.from(rows.flatMap((row) => [...spanOf(row)])) }),
    ...(rows[0]?.oldLogProbs && { oldLogProbs: concat(rows.map((row) => row.oldLogProbs!)) }),
    ...(rows[0]?.oldLogProbs &&
      objective.importanceCorrection !== "none" && {
        samplerLogProbs: concat(rows.map((row) => row.rollout.logProbs)),
      }),
    ...(rows[0]?.refLogProbs && { refLogProbs: concat(rows.map((row) => row.refLogProbs!)) }),
  };
}

/** What the reduction divides by, counted over a whole minibatch however it is cut up. */
export function normalizerOf(objective: Objective, rows: readonly LossRow[], config: ResolvedConfig): number {
  if (objective.normalizer !== null) return objective.normalizer;
  switch (objective.reduction) {
    case "token-mean":
      return rows.reduce((n, row) => n + row.rollout.tokenIds.length, 0);
    case "sequence-mean":
      return rows.length;
    case "sequence-sum":
      // Dr. GRPO divides by a length that no completion changes.
      return rows.length * (config.objective.preset === "drGrpo" ? config.rollout.maxTokens : 1);
    case "token-sum":
      return 1;
  }
}

/** Keys of attention for each token that is computed: the engine's bound as well (csrc/model/batch.cc). */
const KEYS_PER_TOKEN = 8;

/**
 * Cuts rows into runs of at most `budget` tokens, at least one row each. A prompt counts once for the completions of it
 * that lie side by side: they are computed together.
 */
export function microbatches(rows: readonly LossRow[], budget: number): LossRow[][] {
  const out: LossRow[][] = [];
  let [tokens, keys] = [0, 0];
  for (const row of rows) {
    const { prompt, tokenIds } = row.rollout;
    const whole = prompt.ids.length + tokenIds.length;
    const added = out.at(-1)?.at(-1)?.rollout.prompt === prompt ? tokenIds.length : whole;
    if (out.length === 0 || tokens + added > budget || keys + whole > KEYS_PER_TOKEN * budget) {
      out.push([row]);
      tokens = keys = whole;
    } else {
      out.at(-1)!.push(row);
      tokens += added;
      keys += whole;
    }
  }
  return out;
}

/** The rows of one update, in their own order, so that completions of a prompt lie side by side. */
const minibatch = (rows: readonly LossRow[], order: Int32Array, start: number, size: number): LossRow[] =>
  Array.from(order.slice(start, start + size).sort(), (i) => rows[i]!);

/** Rows that can move the policy: with a KL or an entropy term all of them, otherwise those with an advantage. */
const moving = (rows: readonly LossRow[], objective: Objective) =>
  objective.klCoef > 0 || objective.entropyCoef !== 0 ? rows : rows.filter((row) => row.advantage !== 0);

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

export interface UpdateOptions {
  readonly config: ResolvedConfig;
  readonly objective: Objective;
  readonly creditMix: number;
  readonly step: number;
}

/** Every update of one step: passes over its rows, minibatches, microbatches; one optimizer step a minibatch. */
export async function update(policy: Policy, rows: readonly LossRow[], o: UpdateOptions): Promise<UpdateResult> {
  const { config, step } = o;
  const results = new Map<LossRow, RowResult>();
  const calls: PolicyResult[] = [];
  const steps: StepResult[] = [];
  const { epochs, minibatches, microbatchTokens } = config.update;
  const budget = Math.min(microbatchTokens, policy.batchTokens ?? microbatchTokens);
  const { weightDecay, betas, eps, maxGradientNorm } = config.optimizer;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = permutation(rows.length, hashSeed(config.seed, "minibatches", step, epoch));
    const size = Math.ceil(rows.length / minibatches);
    for (let start = 0; start < rows.length; start += size) {
      const chosen = minibatch(rows, order, start, size);
      const normalizer = normalizerOf(o.objective, chosen, config);
      const objective = rlsd({ creditMix: o.creditMix, normalizer }, o.objective);
      const work = moving(chosen, objective);
      if (work.length === 0) continue;
      for (const part of microbatches(work, budget)) {
        const result = await policy.accumulate(toBatch(part, objective), objective);
        calls.push(result);
        keepRowResults(part, result, results);
      }
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
  return { rows: rows.map((row) => results.get(row)), calls, steps };
}
