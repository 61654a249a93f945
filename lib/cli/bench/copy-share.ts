/** What a copying thread is given. */
export interface Share {
  /** Shared by all: the round to copy in, and how many threads have finished it. */
  readonly words: Int32Array;
  /** Elements of 4 bytes to copy in a round. */
  readonly floats: number;
}

/** Places in `words`. */
export const ROUND = 0;
export const COUNT = 1;
/** The round after the last. */
export const STOP = -1;
