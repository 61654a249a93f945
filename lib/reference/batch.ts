/** What the reference reads: plain numbers in row-major arrays, no tensors. Letters as in docs/maths.md. */
export type Numbers = ArrayLike<number>;

/** One view of the N tokens of a batch. */
export type ReferenceScores =
  /** (N), at the rollout's temperature. */
  | { readonly logProbs: Numbers }
  /** (R, V) and V. `rows` (N) names the row that predicts token i, default i. Columns >= vocabSize are padding. */
  | {
      readonly logits: Numbers;
      readonly columns: number;
      readonly rows?: Numbers | undefined;
      readonly vocabSize?: number | undefined;
    }
  /** (R, H), (V, H), (V) and H: logits = hidden head^T + bias. */
  | {
      readonly hidden: Numbers;
      readonly head: Numbers;
      readonly bias?: Numbers | undefined;
      readonly width: number;
      readonly rows?: Numbers | undefined;
      readonly vocabSize?: number | undefined;
    };

export interface ReferenceBatch {
  readonly student: ReferenceScores;
  readonly teacher?: ReferenceScores;
  readonly contrast?: ReferenceScores;
  /** (N); not read where every view is log-probs. */
  readonly tokenIds: Numbers;
  /** (B + 1): sequence b is tokens cuSeqlens[b] .. cuSeqlens[b + 1]. */
  readonly cuSeqlens: Numbers;
  /** (N) of 0 and 1; default all 1. */
  readonly completionMask?: Numbers;
  /** (B), or (N). When B = N: one a sequence, but one a token under row-coefficient. */
  readonly advantages: Numbers;
  readonly oldLogProbs?: Numbers;
  readonly refLogProbs?: Numbers;
  readonly samplerLogProbs?: Numbers;
  readonly spanMask?: Numbers;
}

/** The gradient of a loss to the tensors of a view; each has the size of its tensor. */
export interface ScoreGradients {
  readonly logits?: Float64Array;
  readonly hidden?: Float64Array;
  readonly head?: Float64Array;
  readonly bias?: Float64Array;
}

export const tokenCount = (cuSeqlens: Numbers): number => cuSeqlens[cuSeqlens.length - 1]!;

/** Calls `visit` with each sequence's number and its token range. */
export function forEachSequence(
  cuSeqlens: Numbers,
  visit: (sequence: number, begin: number, end: number) => void,
): void {
  for (let b = 0; b + 1 < cuSeqlens.length; b++) visit(b, cuSeqlens[b]!, cuSeqlens[b + 1]!);
}

/** (N): the sequence that each token belongs to. */
function sequenceOfTokens(cuSeqlens: Numbers): Int32Array {
  const owner = new Int32Array(tokenCount(cuSeqlens));
  forEachSequence(cuSeqlens, (b, begin, end) => owner.fill(b, begin, end));
  return owner;
}

/** (N): 1 where the token counts. */
export function maskOrOnes(mask: Numbers | undefined, tokens: number): Uint8Array {
  return Uint8Array.from({ length: tokens }, (_, i) => (mask === undefined || mask[i] === 1 ? 1 : 0));
}

/** (N): the advantages (B) given to each token of their sequence, or (N) as they are; `perToken`: (N) also when B = N. */
export function advantagePerToken(advantages: Numbers, cuSeqlens: Numbers, perToken = false): Float64Array {
  if (perToken || advantages.length !== cuSeqlens.length - 1) return Float64Array.from(advantages);
  return Float64Array.from(sequenceOfTokens(cuSeqlens), (b) => advantages[b]!);
}

/** (N): the mean of `values` over the included tokens of each token's sequence; 0 where there is none. */
export function sequenceMeans(values: Numbers, included: Uint8Array, cuSeqlens: Numbers): Float64Array {
  const means = new Float64Array(tokenCount(cuSeqlens));
  forEachSequence(cuSeqlens, (_, begin, end) => {
    let sum = 0;
    let count = 0;
    for (let i = begin; i < end; i++) {
      if (included[i] === 0) continue;
      sum += values[i]!;
      count++;
    }
    means.fill(count === 0 ? 0 : sum / count, begin, end);
  });
  return means;
}

/** The mean of `value(i)` over the tokens that `holds`; undefined when there is none, and for infinities that cancel. */
export function meanWhere(
  tokens: number,
  holds: (i: number) => boolean,
  value: (i: number) => number,
): number | undefined {
  let sum = 0;
  let count = 0;
  for (let i = 0; i < tokens; i++) {
    if (!holds(i)) continue;
    sum += value(i);
    count++;
  }
  return count === 0 || Number.isNaN(sum) ? undefined : sum / count;
}

/** The object without its undefined entries: an absent quantity is absent, never 0. */
export function present<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> };
}
