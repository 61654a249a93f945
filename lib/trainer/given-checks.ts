/** Settings that mean something beside another one alone. */
import { RlsdError } from "../errors.js";

/** By the setting that they need, whose default leaves them without effect. */
const NEEDED: Readonly<Record<string, readonly string[]>> = {
  environment: ["rollout.turns"],
  "data.eval": ["eval.limit", "eval.samples", "stop.minDelta"],
  "eval.samples": ["eval.temperature", "eval.passAt"],
  "overlong.mode": ["overlong.buffer", "overlong.penalty"],
  "groups.zeroVariance": ["groups.maxResamples"],
  "creditSchedule.decay": ["creditSchedule.hold"],
  "lora.rank": ["lora.alpha", "lora.rankStabilized", "lora.targets"],
  "teacher.kind": ["teacher.every", "teacher.rate", "teacher.model"],
  "distill.topK": ["distill.tail"],
  "optimizer.schedule": ["optimizer.minRatio"],
};

/** What was given at a dotted name; undefined: nothing. */
const at = (given: unknown, name: string): unknown =>
  name.split(".").reduce<unknown>((value, key) => (Object(value) as Readonly<Record<string, unknown>>)[key], given);

/**
 * Throws ERR_RLSD_CONFIG for a setting without the one that it needs: one of them was forgotten. Where that one is given it
 * may also be what leaves the other without effect, as when `--set` or an arm of a comparison changes it alone.
 */
export function checkNeeded(given: unknown): void {
  for (const [needed, names] of Object.entries(NEEDED)) {
    if (at(given, needed) !== undefined) continue;
    // null and an empty text are defaults, where settings may be that.
    const idle = names.find((name) => ![undefined, null, ""].includes(at(given, name) as string | null | undefined));
    if (idle === undefined) continue;
    const message = `"${idle}" has no effect without "${needed}", which is not given: set that too, or leave this out.`;
    throw new RlsdError("ERR_RLSD_CONFIG", message);
  }
}
