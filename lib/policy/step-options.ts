import { checkNumber, checkObject, invalid } from "../check.js";
import { STEP_NAMES } from "../other-names.js";
import type { StepOptions } from "./policy.js";

const FIELDS = new Set(["learningRate", "weightDecay", "betas", "eps", "maxGradientNorm"]);

/** The least normal float32: AdamW divides in float32, and where both moments are 0 by eps alone. */
export const LEAST_EPS = 2 ** -126;

/** Checked, as csrc/napi/engine.cc reads them. */
export function encodeStep(o: StepOptions): Float64Array {
  checkObject(o, "options", FIELDS, STEP_NAMES);
  const { weightDecay = 0, betas = [0.9, 0.95], eps = 1e-8, maxGradientNorm = 1 } = o;
  if (!Array.isArray(betas) || betas.length !== 2) throw invalid("two numbers", "betas", betas);
  if (typeof maxGradientNorm !== "number" || !(maxGradientNorm > 0))
    throw invalid("a number above 0", "maxGradientNorm", maxGradientNorm);
  return Float64Array.of(
    checkNumber(o.learningRate, "learningRate", { min: 0 }),
    checkNumber(weightDecay, "weightDecay", { min: 0 }),
    checkNumber(betas[0], "betas[0]", { min: 0, below: 1 }),
    checkNumber(betas[1], "betas[1]", { min: 0, below: 1 }),
    checkNumber(eps, "eps", { min: LEAST_EPS }),
    maxGradientNorm,
  );
}
