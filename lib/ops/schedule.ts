import { checkNumber, checkObject } from "../check.js";

/** lambda over a run: up to `peak` in `warmup` steps, held for `hold`, down to 0 in `decay` (0: held for ever). */
export interface CreditSchedule {
  /** Largest lambda, in [0, 1]. */
  readonly peak: number;
  /** Steps of linear rise. 0, the default: none. */
  readonly warmup?: number | undefined;
  /** Steps at the peak. Default 0. */
  readonly hold?: number | undefined;
  /** Steps of linear fall. 0, the default: lambda stays at the peak for ever. */
  readonly decay?: number | undefined;
  /** The number that the first step has: 1 (default) in the official code, 0 in ms-swift. */
  readonly stepBase?: number | undefined;
}

const FIELDS: ReadonlySet<string> = new Set(["peak", "warmup", "hold", "decay", "stepBase"]);

/**
 * lambda at a step, counted 1, 2, ... With s = step - 1 + stepBase:
 * s < warmup: peak s / warmup; s < warmup + hold: peak; then peak max(0, 1 - (s - warmup - hold) / decay).
 *
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT
 */
export function creditMixAt(step: number, schedule: CreditSchedule): number {
  checkObject(schedule, "schedule", FIELDS);
  const { peak, warmup = 0, hold = 0, decay = 0, stepBase = 1 } = schedule;
  checkNumber(step, "step", { min: 0 });
  checkNumber(peak, "peak", { min: 0, max: 1 });
  for (const [name, value] of Object.entries({ warmup, hold, decay, stepBase })) checkNumber(value, name, { min: 0 });
  const s = Math.max(0, step - 1 + stepBase);
  if (s < warmup) return (peak * s) / warmup;
  if (s < warmup + hold || decay === 0) return peak;
  return peak * Math.max(0, 1 - (s - warmup - hold) / decay);
}
