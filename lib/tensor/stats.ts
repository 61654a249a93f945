import type { Stats } from "./results.js";

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

const isPresent = (value: number): boolean => !Number.isNaN(value);

/**
 * An object of the statistics at values[at] and after, in the order of STAT_NAMES; NaN marks an absent one. Written out
 * field by field: an object built by computed names costs more than the loss of a small batch.
 */
export function toStats(values: Float64Array, at = 0): Stats {
  const v = (i: number): number => values[at + i] as number;
  const stats: { -readonly [K in keyof Stats]: Stats[K] } = {
    tokens: v(0),
    sequences: v(1),
    loss: v(2),
    policyLoss: v(3),
    nonFiniteRows: v(19),
    nanTeacherRows: v(20),
    skippedRows: v(21),
  };
  if (isPresent(v(4))) stats.klMean = v(4);
  if (isPresent(v(5))) stats.entropyMean = v(5);
  if (isPresent(v(6))) stats.ratioMean = v(6);
  if (isPresent(v(7))) stats.ratioClippedHigh = v(7);
  if (isPresent(v(8))) stats.ratioClippedLow = v(8);
  if (isPresent(v(9))) stats.dualClipped = v(9);
  if (isPresent(v(10))) stats.advantageMean = v(10);
  if (isPresent(v(11))) stats.advantageAbsMean = v(11);
  if (isPresent(v(12))) stats.deltaMean = v(12);
  if (isPresent(v(13))) stats.deltaMeanPositive = v(13);
  if (isPresent(v(14))) stats.deltaMeanNegative = v(14);
  if (isPresent(v(15))) stats.evidenceWeightMean = v(15);
  if (isPresent(v(16))) stats.clippedWeightMean = v(16);
  if (isPresent(v(17))) stats.evidenceClippedLow = v(17);
  if (isPresent(v(18))) stats.evidenceClippedHigh = v(18);
  return stats;
}
