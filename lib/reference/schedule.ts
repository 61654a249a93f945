interface CreditSchedule {
  readonly peak: number;
  /** Steps of linear rise from 0. */
  readonly warmup: number;
  /** Steps at the peak. */
  readonly hold: number;
  /** Steps of linear fall to 0; 0: the peak stays for ever. */
  readonly decay: number;
  /** Number of the first step: 1 as the official code counts, 0 as ms-swift does. */
  readonly stepBase: number;
}

/**
 * lambda at a step. s = max(0, step - 1 + stepBase) and
 *   s < warmup         peak s / warmup
 *   s < warmup + hold  peak
 *   otherwise          peak max(0, 1 - (s - warmup - hold) / decay), or peak when decay is 0
 */
export function creditMixAtReference(step: number, { peak, warmup, hold, decay, stepBase }: CreditSchedule): number {
  const s = Math.max(0, step - 1 + stepBase);
  if (s < warmup) return (peak * s) / warmup;
  if (s < warmup + hold || decay === 0) return peak;
  return peak * Math.max(0, 1 - (s - warmup - hold) / decay);
}
