import type { ObjectiveFields } from "../objectives/objective.js";
import { forEachSequence, type Numbers } from "./batch.js";

type ImportanceFields = Pick<ObjectiveFields, "importanceCorrection" | "importanceMin" | "importanceMax">;

/**
 * (N): the factor of each token's surrogate that corrects for a sampler whose log-probs differ from the trainer's,
 *   token modes     iw_t = exp(log P_old - log P_sampler)
 *   sequence modes  iw_t = exp(sum over the sequence's included tokens of the same difference)
 * truncate: clamped to [importanceMin, importanceMax]; mask: 0 outside that range. A constant to the gradient.
 */
export function importanceWeights(
  oldLogProbs: Numbers,
  samplerLogProbs: Numbers | undefined,
  included: Uint8Array,
  cuSeqlens: Numbers,
  { importanceCorrection, importanceMin, importanceMax }: ImportanceFields,
): Float64Array {
  const weights = new Float64Array(included.length).fill(1);
  if (importanceCorrection === "none" || samplerLogProbs === undefined) return weights;
  const [level, action] = importanceCorrection.split("-");
  const low = importanceMin ?? 0;
  const high = importanceMax ?? Number.POSITIVE_INFINITY;
  const bounded = (logWeight: number): number => {
    const weight = Math.exp(logWeight);
    if (action === "mask") return weight < low || weight > high ? 0 : weight;
    return Math.min(Math.max(weight, low), high);
  };

  forEachSequence(cuSeqlens, (_, begin, end) => {
    let total = 0;
    for (let i = begin; i < end; i++) {
      if (included[i] === 0) continue;
      const difference = oldLogProbs[i]! - samplerLogProbs[i]!;
      weights[i] = bounded(difference);
      total += difference;
    }
    if (level === "sequence") weights.fill(bounded(total), begin, end);
  });
  return weights;
}
