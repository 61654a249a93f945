/** Updates that match a teacher on the student's own completions: over whole distributions, or at the drawn tokens. */
import { RlsdError } from "../errors.js";
import type { Objective } from "../objectives/objective.js";
import type { DistillOptions, DistillResult, Policy } from "../policy/policy.js";
import { ALGORITHMS } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import { type LossRow, microbatches, normalizerOf, packMasks, spanTokens } from "./loss-rows.js";
import { sequenceOf } from "./rollout.js";

/** Each token's difference of log-probs is held to this where no `distill.valueClamp` says otherwise. */
const MOST_DIFFERENCE = 10;

/** Whether any step of a run compares whole distributions. */
export const comparesDistributions = (config: ResolvedConfig): boolean =>
  config.steps > 0 && ALGORITHMS[config.algorithm].teacherView(config, 1) === "distributions";

/** Throws ERR_RLSD_CONFIG where the run compares distributions and these two cannot be. */
export function checkComparable(config: ResolvedConfig, student: Policy, teacher?: Pick<Policy, "vocabSize">): void {
  if (!comparesDistributions(config)) return;
  const fail = (why: string): never => {
    const mend = 'set "distill.divergence" to sampled-reverse-kl, which needs the log-probs of drawn tokens alone';
    throw new RlsdError(
      "ERR_RLSD_CONFIG",
      `The algorithm ${config.algorithm} compares distributions, but ${why}: ${mend}.`,
    );
  };
  if (student.distill === undefined) fail("the policy has no distill()");
  if (teacher === undefined || teacher.vocabSize === student.vocabSize) return;
  fail(`the teacher's vocabulary has ${teacher.vocabSize} entries and the student's ${student.vocabSize}`);
}

/**
 * log P_T - log P_S of each drawn token: its mean is the reverse KL's estimate with the other sign, so that as advantages
 * they lower it. 0 outside the span, and where the teacher's word is not a number.
 */
export function sampledAdvantages(
  teacher: Float32Array,
  student: Float32Array,
  span: Uint8Array | undefined,
  { valueClamp }: ResolvedConfig["distill"],
): Float32Array {
  const most = valueClamp ?? MOST_DIFFERENCE;
  return teacher.map((logProb, t) => {
    const difference = span?.[t] === 0 ? 0 : logProb - student[t]!;
    return Number.isNaN(difference) ? 0 : Math.min(most, Math.max(-most, difference));
  });
}

function optionsOf(config: ResolvedConfig, objective: Objective, normalizer: number): DistillOptions {
  const { divergence, beta, topK, tail, valueClamp } = config.distill;
  const { reduction, logitSoftcap, nonFinite } = objective;
  return {
    divergence: divergence as DistillOptions["divergence"],
    ...(divergence === "jsd" && { beta }),
    ...(topK > 0 && { topK, tail }),
    ...(valueClamp !== null && { valueClamp }),
    reduction,
    normalizer,
    temperature: config.rollout.temperature,
    logitSoftcap,
    nonFinite,
  };
}

interface DistillTermOptions {
  readonly config: ResolvedConfig;
  readonly objective: Objective;
  readonly teacher: Policy;
  /** Of the divergence in the loss. */
  readonly weight: number;
  readonly budget: number;
}

/** Each row's divergences, one entry a token. */
export type RowDivergences = Map<LossRow, Float32Array>;

/** Adds to the gradient what brings the student nearer to the teacher on the rows that this one has read. */
export async function distillTerm(
  policy: Policy,
  rows: readonly LossRow[],
  o: DistillTermOptions,
  into: RowDivergences,
): Promise<DistillResult[]> {
  const taught = rows.filter((row) => row.lesson !== undefined && spanTokens(row) > 0);
  const options = optionsOf(o.config, o.objective, normalizerOf(o.objective, taught, o.config, spanTokens));
  const results: DistillResult[] = [];
  for (const part of taught.length === 0 ? [] : microbatches(taught, o.budget)) {
    const spanned = part.some((row) => row.span !== undefined);
    const batch = {
      sequences: part.map(({ rollout }) => sequenceOf(rollout)),
      teacher: o.teacher,
      teacherSequences: part.map(({ rollout, lesson }) => ({ prompt: lesson!.ids, completion: rollout.tokenIds })),
      ...(spanned && { completionMask: packMasks(part, (row) => row.span) }),
    };
    const result = await policy.distill!(batch, options, { lossScale: o.weight });
    results.push(result);
    let at = 0;
    for (const row of part) {
      const end = at + row.rollout.tokenIds.length;
      if (!into.has(row)) into.set(row, result.tokenLosses.slice(at, end));
      at = end;
    }
  }
  return results;
}
