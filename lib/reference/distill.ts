import type { Reduction } from "../objectives/objective.js";
import { maskOrOnes, meanWhere, type Numbers, present, type ScoreGradients, tokenCount } from "./batch.js";
import { type Divergence, type DivergenceOptions, divergenceReference } from "./divergence.js";
import { addRowGradient, type LogitScores, rowDistribution, zeroGradients } from "./log-probs.js";
import { reductionWeights } from "./reduction.js";

export interface DistillBatch {
  readonly student: LogitScores;
  readonly teacher: LogitScores;
  readonly cuSeqlens: Numbers;
  readonly completionMask?: Numbers;
}

export interface DistillOptions extends DivergenceOptions {
  /** Compare only the teacher's k most probable tokens (smallest id on a tie). null: the whole vocabulary. */
  readonly topK?: number | null | undefined;
  /** With topK: one more bucket for the rest of the mass. Default true. */
  readonly tail?: boolean | undefined;
  /** Each token's value is clamped to +- this, its gradient 0 beyond. null: off. */
  readonly valueClamp?: number | null | undefined;
  readonly reduction: Reduction;
  readonly normalizer?: number | null | undefined;
  readonly temperature: number;
  readonly logitSoftcap?: number | null | undefined;
}

interface DistillReference {
  readonly loss: number;
  /** (N): D_t after the clamp; 0 where masked and in a bad row. */
  readonly tokenLosses: Float64Array;
  readonly gradient: ScoreGradients;
  readonly stats: {
    readonly tokens: number;
    readonly sequences: number;
    readonly loss: number;
    /** Mean of tokenLosses over the rows that are not bad. */
    readonly mean?: number;
    readonly nonFiniteRows: number;
    /** Part of those rows whose value the clamp changed. */
    readonly clampedFraction?: number;
  };
}

/** A bucket of the rest of the mass never gets less, so that its logarithm stays finite. */
const SMALLEST_TAIL = 1e-10;

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

/** The k largest, most probable first, the smaller id first on a tie. */
function largestIds(logProbs: Float64Array, k: number): number[] {
  const ids = Array.from(logProbs.keys());
  return ids.sort((a, b) => logProbs[b]! - logProbs[a]! || a - b).slice(0, k);
}

/** log q of the chosen tokens and of the bucket that holds the rest; does the rest move with them? */
function withTail(chosen: Float64Array): { buckets: Float64Array; tailMoves: boolean } {
  const rest = 1 - sum(chosen.map(Math.exp));
  const tail = Math.log(Math.max(rest, SMALLEST_TAIL));
  return { buckets: Float64Array.of(...chosen, tail), tailMoves: rest >= SMALLEST_TAIL };
}

const normalized = (chosen: Float64Array): Float64Array => {
  const logSum = Math.log(sum(chosen.map(Math.exp)));
  return chosen.map((logP) => logP - logSum);
};

/**
 * D over the teacher's top k, and its slopes to the student's log q of those ids.
 *   tail        one more bucket 1 - sum q (at least 1e-10): dD/dlog q_j -= dD/dlog q_tail q_j / q_tail
 *   no tail     forward-kl compares the k probabilities as they are, as the official code does;
 *               the others, which need distributions, renormalise both sides over the k
 */
function topKDivergence(teacher: Float64Array, student: Float64Array, options: DistillOptions): Divergence {
  if (options.tail ?? true) {
    const { buckets, tailMoves } = withTail(student);
    const { value, slopes } = divergenceReference(withTail(teacher).buckets, buckets, options);
    const perTailMass = tailMoves ? slopes.at(-1)! / Math.exp(buckets.at(-1)!) : 0;
    return { value, slopes: student.map((logQ, j) => slopes[j]! - perTailMass * Math.exp(logQ)) };
  }
  if (options.divergence === "forward-kl") return divergenceReference(teacher, student, options);
  const inside = normalized(student);
  const { value, slopes } = divergenceReference(normalized(teacher), inside, options);
  const total = sum(slopes);
  return { value, slopes: slopes.map((slope, j) => slope - Math.exp(inside[j]!) * total) };
}

/** D of one token, and (V) its slopes to every log q. */
function tokenDivergence(teacher: Float64Array, student: Float64Array, options: DistillOptions): Divergence {
  if (options.topK === undefined || options.topK === null) return divergenceReference(teacher, student, options);
  const ids = largestIds(teacher, options.topK);
  const pick = (logProbs: Float64Array): Float64Array => Float64Array.from(ids, (id) => logProbs[id]!);
  const { value, slopes } = topKDivergence(pick(teacher), pick(student), options);
  const all = new Float64Array(student.length);
  ids.forEach((id, j) => {
    all[id] = slopes[j]!;
  });
  return { value, slopes: all };
}

/**
 * Distribution matching on the student's own tokens: loss = sum_t omega_t D_t, D between the teacher's and the
 * student's next-token distributions at `temperature` (no factor temperature^2).
 *   dL/dz_v = omega_t (dD/dlog q_v - q_v sum_u dD/dlog q_u) ds_v/dz_v
 * A row is bad, and left out, when either side's logits are or D is not finite.
 */
export function distillReference(batch: DistillBatch, options: DistillOptions): DistillReference {
  const tokens = tokenCount(batch.cuSeqlens);
  const mask = maskOrOnes(batch.completionMask, tokens);
  const omega = reductionWeights(options.reduction, options.normalizer ?? null, mask, batch.cuSeqlens);
  const limit = options.valueClamp ?? Number.POSITIVE_INFINITY;
  const fields = {
    temperature: options.temperature,
    logitSoftcap: options.logitSoftcap ?? null,
    logitRounding: "none" as const,
  };
  const gradient = zeroGradients(batch.student);
  const tokenLosses = new Float64Array(tokens);
  const included = Uint8Array.from(mask);
  const clamped = new Uint8Array(tokens);
  for (let i = 0; i < tokens; i++) {
    if (mask[i] === 0) continue;
    const student = rowDistribution(batch.student, i, fields);
    const teacher = rowDistribution(batch.teacher, i, fields);
    const { value, slopes } = tokenDivergence(teacher.logProbs, student.logProbs, options);
    if (!Number.isFinite(value)) {
      included[i] = 0;
      continue;
    }
    clamped[i] = Math.abs(value) > limit ? 1 : 0;
    tokenLosses[i] = Math.min(Math.max(value, -limit), limit);
    if (clamped[i] === 1) continue;
    const total = sum(slopes);
    const dz = slopes.map(
      (slope, v) => omega[i]! * (slope - Math.exp(student.logProbs[v]!) * total) * student.slopes[v]!,
    );
    addRowGradient(batch.student, gradient, i, dz);
  }

  const loss = sum(tokenLosses.map((value, i) => omega[i]! * value));
  const read = (i: number): boolean => included[i] === 1;
  const stats = {
    tokens: mask.reduce((count, one) => count + one, 0),
    sequences: batch.cuSeqlens.length - 1,
    loss,
    mean: meanWhere(tokens, read, (i) => tokenLosses[i]!),
    nonFiniteRows: mask.reduce((count, one, i) => count + one - included[i]!, 0),
    clampedFraction: meanWhere(tokens, read, (i) => clamped[i]!),
  };
  return { loss, tokenLosses, gradient, stats: present(stats) };
}
