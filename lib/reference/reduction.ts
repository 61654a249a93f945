import type { Reduction } from "../objectives/objective.js";
import { forEachSequence, type Numbers, tokenCount } from "./batch.js";

/**
 * (N): omega_t, the weight of each token's loss: loss = sum_t omega_t L_t. With len_b the unmasked tokens of a
 * sequence and D the divisor (or `normalizer` in its place):
 *   token-mean     1 / D            D = unmasked tokens
 *   sequence-mean  1 / (len_b D)    D = B, empty sequences counted
 *   sequence-sum   1 / D            D = B
 *   token-sum      1 / D            D = 1
 * Masked tokens weigh 0.
 */
export function reductionWeights(
  reduction: Reduction,
  normalizer: number | null,
  mask: Uint8Array,
  cuSeqlens: Numbers,
): Float64Array {
  const tokens = mask.reduce((count, one) => count + one, 0);
  const sequences = cuSeqlens.length - 1;
  const ownDivisor = { "token-mean": tokens, "sequence-mean": sequences, "sequence-sum": sequences, "token-sum": 1 };
  const divisor = normalizer ?? ownDivisor[reduction];

  const weights = new Float64Array(tokenCount(cuSeqlens));
  forEachSequence(cuSeqlens, (_, begin, end) => {
    const length = mask.subarray(begin, end).reduce((count, one) => count + one, 0);
    for (let i = begin; i < end; i++) {
      if (mask[i] === 1) weights[i] = 1 / (reduction === "sequence-mean" ? length * divisor : divisor);
    }
  });
  return weights;
}
