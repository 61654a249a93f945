import { invalid, isObject, refusal } from "../check.js";
import { encodingOf, isObjective, seal } from "./encode.js";
import { readFields } from "./fields.js";
import type { Objective, ObjectiveFields, ObjectiveOptions } from "./objective.js";

export type { ObjectiveOptions };

/** What every preset starts from: plain ppo-clip, no KL, no entropy bonus, no credit. */
const BASE: ObjectiveFields = {
  objective: "ppo-clip",
  clipLow: 0.2,
  clipHigh: 0.2,
  dualClip: null,
  ratioBound: null,
  reduction: "token-mean",
  normalizer: null,
  klCoef: 0,
  klEstimator: "k3",
  klClamp: 10,
  klImportanceCorrection: false,
  temperature: 1,
  entropyCoef: 0,
  logitSoftcap: null,
  logitRounding: "none",
  nonFinite: "error",
  importanceCorrection: "token-truncate",
  importanceMin: null,
  importanceMax: 3,
  sapoTemperaturePos: 1,
  sapoTemperatureNeg: 1.05,
  creditMix: 0,
  evidenceClip: 0.2,
  negativeOnly: false,
  clipMode: "symmetric",
  normalize: "none",
  studentSource: "current",
};

/** Values of evidenceClip that were warned of: under a schedule every step makes an objective. */
const warnedOf = new Set<number>();

function make(
  preset: Partial<ObjectiveFields>,
  options: ObjectiveOptions = {},
  base: ObjectiveFields = BASE,
): Objective {
  if (!isObject(options)) {
    throw invalid("an object of objective fields", "options", options);
  }
  if (isObjective(options)) {
    const mend = "An objective is rlsd's second argument: rlsd({}, grpo()).";
    throw refusal("an object of objective fields", "options", "an objective, whose every field would win", mend);
  }
  const fields: ObjectiveFields = { ...base, ...preset, ...readFields(options) };
  if (fields.importanceMin !== null && fields.importanceMin > (fields.importanceMax ?? Infinity)) {
    throw invalid(`at most importanceMax ${fields.importanceMax}`, "importanceMin", fields.importanceMin);
  }
  if (fields.evidenceClip >= 1 && base.evidenceClip < 1 && !warnedOf.has(fields.evidenceClip)) {
    warnedOf.add(fields.evidenceClip);
    process.emitWarning(
      `evidenceClip ${fields.evidenceClip} is 1 or more: its lower bound never binds and a token's credit can vanish.`,
      { type: "RlsdWarning", code: "RLSD_EVIDENCE_CLIP" },
    );
  }
  return seal(fields);
}

/** GRPO (arXiv 2402.03300; TRL `loss_type="grpo"`): ppo-clip .2/.2, sequence-mean. */
export const grpo = (options?: ObjectiveOptions): Objective => make({ reduction: "sequence-mean" }, options);

/**
 * Dr. GRPO (arXiv 2503.20783): the sum over each sequence, over a given `normalizer`: sequences x longest completion allowed.
 * Without one it divides by the sequences alone, and a gradient is larger by the length of that completion.
 */
export const drGrpo = (options?: ObjectiveOptions): Objective => make({ reduction: "sequence-sum" }, options);

/** DAPO (arXiv 2503.14476): ppo-clip .2/.28, token-mean. */
export const dapo = (options?: ObjectiveOptions): Objective => make({ clipHigh: 0.28 }, options);

/** BNPO (TRL `loss_type="bnpo"`): ppo-clip .2/.2, token-mean. */
export const bnpo = (options?: ObjectiveOptions): Objective => make({}, options);

/** GSPO (arXiv 2507.18071; verl `gspo`): the sequence's mean log-ratio, clip 3e-4/4e-4, sequence-mean. */
export const gspo = (options?: ObjectiveOptions): Objective =>
  make({ objective: "gspo", clipLow: 3e-4, clipHigh: 4e-4, reduction: "sequence-mean" }, options);

/** CISPO (arXiv 2506.13585): -A sg(clip(ratio)) log P, token-mean. Upper side only: clipLow 1. */
export const cispo = (options?: ObjectiveOptions): Objective => make({ objective: "cispo", clipHigh: 0.28 }, options);

/** SAPO (arXiv 2511.20347; TRL `loss_type="sapo"`): a sigmoid gate in place of the clip, sequence-mean. */
export const sapo = (options?: ObjectiveOptions): Objective =>
  make({ objective: "sapo", reduction: "sequence-mean" }, options);

/** LUSPO (arXiv 2602.05261; TRL `loss_type="luspo"`): the sequence's ratio, weighted by its length. */
export const luspo = (options?: ObjectiveOptions): Objective =>
  make({ objective: "luspo", reduction: "sequence-sum" }, options);

/** GMPO (arXiv 2507.20673; verl `geo_mean`): the geometric mean of ratios, log-ratios clipped to -.4 and .4. */
export const gmpo = (options?: ObjectiveOptions): Objective =>
  make({ objective: "gmpo", clipLow: 0.4, clipHigh: 0.4, reduction: "sequence-mean" }, options);

/** The caller gives dL/dlogP itself, one number a token, as `advantages` (N); the kernels do the rest. */
export const rowCoefficient = (options?: ObjectiveOptions): Objective =>
  make({ objective: "row-coefficient", reduction: "token-sum" }, options);

/** RLSD's own ground when no base is given: the official script's loss. */
const OFFICIAL: Partial<ObjectiveFields> = { clipHigh: 0.28, dualClip: 3 };

/**
 * RLSD credit (arXiv 2604.03128, Eq. 13-15) on top of an objective: A^ = A ((1 - lambda) + lambda clip(w, 1 - eps, 1 + eps)),
 * w = exp(sign(A) (log P_T - log P_S)). Nothing else of `base` changes.
 *
 * Without a base it is the official script's: ppo-clip .2/.28, dual clip 3, token-mean, no KL.
 *
 * @param options creditMix (lambda, .5), evidenceClip (eps_w, .2), negativeOnly, clipMode, normalize, studentSource;
 *   and any other field of an objective
 */
export function rlsd(options: ObjectiveOptions = {}, base?: Objective): Objective {
  if (base === undefined) return make({ ...OFFICIAL, creditMix: 0.5 }, options);
  encodingOf(base);
  return make({ creditMix: 0.5 }, options, base);
}
