import { checkInteger, checkNumber, checkObject, checkWord } from "../check.js";

/** The learning rate over a run. */
export interface LearningRateSchedule {
  /** Largest rate, reached after the warm-up. */
  readonly peak: number;
  /** Steps in all. Beyond them the rate stays at its last value. */
  readonly total: number;
  /** Steps of linear rise from peak / warmup. Default 0. */
  readonly warmup?: number | undefined;
  /** How it falls after the warm-up. Default "constant". */
  readonly decay?: "constant" | "linear" | "cosine" | undefined;
  /** Rate at the end of the decay, as a fraction of the peak. Default 0. */
  readonly floor?: number | undefined;
}

const FIELDS = new Set(["peak", "total", "warmup", "decay", "floor"]);

/**
 * Learning rate of update `step`, counted from 1.
 *
 *   step <= warmup:  peak step / warmup
 *   then, with t = (step - warmup) / (total - warmup) in (0, 1]:
 *   linear:  peak (floor + (1 - floor) (1 - t))      cosine:  peak (floor + (1 - floor) (1 + cos(pi t)) / 2)
 */
export function learningRateAt(step: number, schedule: LearningRateSchedule): number {
  checkInteger(step, "step", { min: 1 });
  checkObject(schedule, "schedule", FIELDS);
  const { peak, total, warmup = 0, decay = "constant", floor = 0 } = schedule;
  checkNumber(peak, "schedule.peak", { min: 0 });
  checkInteger(total, "schedule.total", { min: 1 });
  checkInteger(warmup, "schedule.warmup", { min: 0 });
  checkNumber(floor, "schedule.floor", { min: 0, max: 1 });
  checkWord(decay, "schedule.decay", ["constant", "linear", "cosine"]);
  if (step <= warmup) return (peak * step) / warmup;
  if (decay === "constant") return peak;
  const t = Math.min(1, (step - warmup) / Math.max(1, total - warmup));
  const rest = decay === "linear" ? 1 - t : (1 + Math.cos(Math.PI * t)) / 2;
  return peak * (floor + (1 - floor) * rest);
}
