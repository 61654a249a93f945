/** Words that cross to native code by their place: the order of the enums in csrc/include/rlsd/rlsd.h. */
export const REDUCTIONS = ["token-mean", "sequence-mean", "sequence-sum", "token-sum"] as const;
export const DIVERGENCES = ["forward-kl", "reverse-kl", "jsd"] as const;

/** Every option of a distillation loss, of `distillLoss` as of `Policy.distill`. */
export const DISTILL_FIELDS = [
  "divergence",
  "beta",
  "topK",
  "tail",
  "valueClamp",
  "reduction",
  "normalizer",
  "temperature",
  "logitSoftcap",
  "nonFinite",
] as const;
