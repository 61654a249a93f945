import type { ObjectiveFields } from "../objectives/objective.js";
import { abs, add, clamp, constant, type Dual, exp, multiply, scale, variable } from "./dual.js";

/**
 * KL_t, an estimate of KL(pi || pi_ref) from one sampled token, and its derivative to log P. With d = log P_ref - log P:
 *   k1 = -d      k2 = d^2 / 2      abs = |d|
 *   k3 = e^d - d - 1, with d clamped to +-20 and the value to klClamp (klClamp null: neither clamp)
 */
export function klReference(
  logProb: number,
  refLogProb: number,
  { klEstimator, klClamp }: Pick<ObjectiveFields, "klEstimator" | "klClamp">,
): Dual {
  const difference = add(constant(refLogProb), scale(-1, variable(logProb)));
  switch (klEstimator) {
    case "k1":
      return scale(-1, difference);
    case "k2":
      return scale(0.5, multiply(difference, difference));
    case "abs":
      return abs(difference);
    case "k3": {
      const d = klClamp === null ? difference : clamp(difference, -20, 20);
      const k3 = add(add(exp(d), scale(-1, d)), constant(-1));
      return klClamp === null ? k3 : clamp(k3, -klClamp, klClamp);
    }
  }
}
