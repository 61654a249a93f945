import type { ObjectiveFields } from "../../lib/objectives/objective.js";

/** Every objective field: plain token-mean PPO without credit, with the given ones replaced. */
export function objectiveFields(fields: Partial<ObjectiveFields> = {}): ObjectiveFields {
  return {
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
    importanceCorrection: "none",
    importanceMin: null,
    importanceMax: null,
    sapoTemperaturePos: 1,
    sapoTemperatureNeg: 1.05,
    creditMix: 0,
    evidenceClip: 0.2,
    negativeOnly: false,
    clipMode: "symmetric",
    normalize: "none",
    studentSource: "current",
    ...fields,
  };
}
