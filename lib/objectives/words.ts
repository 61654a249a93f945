/** Words that cross to native code by their place: the order of the enums in csrc/include/rlsd/rlsd.h. */
export const REDUCTIONS = ["token-mean", "sequence-mean", "sequence-sum", "token-sum"] as const;
export const DIVERGENCES = ["forward-kl", "reverse-kl", "jsd"] as const;
