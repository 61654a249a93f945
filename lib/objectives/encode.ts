import { invalid } from "../check.js";
import type { Objective, ObjectiveFields } from "./objective.js";
import { REDUCTIONS } from "./words.js";

const SURROGATES = ["ppo-clip", "gspo", "gspo-token", "cispo", "sapo", "luspo", "gmpo", "row-coefficient"] as const;
const ESTIMATORS = ["k1", "k2", "k3", "abs"] as const;
const CORRECTIONS = ["none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"] as const;

const off = (value: number | null): number => value ?? Number.POSITIVE_INFINITY;

/** log(1 - clip), or no bound where a ratio cannot fall that low. */
const logLow = (clip: number): number => (clip < 1 ? Math.log1p(-clip) : Number.NEGATIVE_INFINITY);

/** The fields as csrc/napi/objective.h reads them. */
function encode(o: ObjectiveFields): Float64Array {
  return Float64Array.of(
    SURROGATES.indexOf(o.objective),
    REDUCTIONS.indexOf(o.reduction),
    CORRECTIONS.indexOf(o.importanceCorrection),
    ESTIMATORS.indexOf(o.klEstimator),
    Number(o.klImportanceCorrection),
    Number(o.negativeOnly),
    Number(o.clipMode === "pessimistic"),
    Number(o.normalize === "sequence"),
    Number(o.studentSource === "old"),
    Number(o.nonFinite === "skip"),
    Number(o.logitRounding === "bf16"),
    o.clipLow,
    o.clipHigh,
    off(o.dualClip),
    off(o.ratioBound),
    o.normalizer ?? 0,
    o.klCoef,
    off(o.klClamp),
    o.temperature,
    o.entropyCoef,
    o.logitSoftcap ?? 0,
    o.creditMix,
    o.evidenceClip,
    o.sapoTemperaturePos,
    o.sapoTemperatureNeg,
    o.importanceMin ?? 0,
    off(o.importanceMax),
    logLow(o.clipLow),
    Math.log1p(o.clipHigh),
    logLow(o.evidenceClip),
    Math.log1p(o.evidenceClip),
  );
}

const encodings = new WeakMap<object, Float64Array>();

/** Freeze and encode checked fields, once. */
export function seal(fields: ObjectiveFields): Objective {
  const objective = Object.freeze({ ...fields }) as Objective;
  encodings.set(objective, encode(fields));
  return objective;
}

/** Whether a factory made it. */
export const isObjective = (value: unknown): value is Objective =>
  typeof value === "object" && encodings.has(value as object);

/** The encoding of an objective; ERR_RLSD_INVALID_ARGUMENT for an object that no factory made. */
export function encodingOf(objective: Objective): Float64Array {
  const encoding = encodings.get(objective);
  if (encoding !== undefined) return encoding;
  const mend =
    typeof objective === "function" ? "Call it: grpo()." : "Pass its fields to a factory: grpo({ clipHigh: 0.28 }).";
  throw invalid("an objective made by grpo(), rlsd() or another factory", "objective", objective, mend);
}
