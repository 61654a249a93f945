import type { Stats } from "../tensor/results.js";

/** Statistics in the order of rlsd_stat in csrc/include/rlsd/rlsd.h. */
export const STAT_NAMES = [
  "tokens",
  "sequences",
  "loss",
  "policyLoss",
  "klMean",
  "entropyMean",
  "ratioMean",
  "ratioClippedHigh",
  "ratioClippedLow",
  "dualClipped",
  "advantageMean",
  "advantageAbsMean",
  "deltaMean",
  "deltaMeanPositive",
  "deltaMeanNegative",
  "evidenceWeightMean",
  "clippedWeightMean",
  "evidenceClippedLow",
  "evidenceClippedHigh",
  "nonFiniteRows",
  "nanTeacherRows",
  "skippedRows",
] as const satisfies readonly (keyof Stats)[];

/** An object of the quantities that are present: NaN marks an absent one. */
export function toStats(values: Float64Array): Stats {
  const stats: { -readonly [K in keyof Stats]?: number } = {};
  for (let i = 0; i < STAT_NAMES.length; i++) {
    const value = values[i]!;
    if (!Number.isNaN(value)) stats[STAT_NAMES[i]!] = value;
  }
  return stats as Stats;
}
