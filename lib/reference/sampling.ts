interface SamplingFilter {
  /** 0: greedy, the largest logit, the smallest id on a tie. */
  readonly temperature: number;
  /** Keep the k most probable. 0: off. */
  readonly topK: number;
  /** Keep the smallest set of most probable tokens whose mass reaches topP. 1: off. */
  readonly topP: number;
  /** Keep tokens with at least minP times the largest probability. 0: off. */
  readonly minP: number;
}

/**
 * (V): the distribution that a token is drawn from: softmax(logits / temperature), cut by top-k, then top-p, then
 * min-p, in that order, each seeing what the one before left, renormalised. Among equals the smaller id stays.
 * Logits of -inf, and columns at or beyond vocabSize, have probability 0.
 */
export function samplingProbabilities(
  logits: ArrayLike<number>,
  { temperature, topK, topP, minP }: SamplingFilter,
  vocabSize = logits.length,
): Float64Array {
  const ids = Array.from({ length: vocabSize }, (_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const largest = logits[ids[0]!]!;
  const probabilities = new Float64Array(logits.length);
  if (temperature === 0) {
    probabilities[ids[0]!] = 1;
    return probabilities;
  }

  const mass = (id: number): number => Math.exp((logits[id]! - largest) / temperature);
  const total = (kept: readonly number[]): number => kept.reduce((sum, id) => sum + mass(id), 0);
  let kept = topK === 0 ? ids : ids.slice(0, topK);
  if (topP < 1) {
    const wanted = topP * total(kept);
    let reached = 0;
    kept = kept.filter((id) => {
      const needed = reached < wanted || id === ids[0];
      reached += mass(id);
      return needed;
    });
  }
  kept = kept.filter((id) => mass(id) >= minP);
  const sum = total(kept);
  for (const id of kept) probabilities[id] = mass(id) / sum;
  return probabilities;
}
