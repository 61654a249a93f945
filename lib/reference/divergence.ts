/** Divergences between a teacher and a student distribution, each with its derivative to the student's log-probs. */
export interface DivergenceOptions {
  readonly divergence: "forward-kl" | "reverse-kl" | "jsd";
  /** Weight of the teacher in jsd's mixture, in (0, 1). Default 0.5. */
  readonly beta?: number | undefined;
}

export interface Divergence {
  readonly value: number;
  /** dD / dlog q_j, each log q_j varied on its own. */
  readonly slopes: Float64Array;
}

/** x log(a / b) with 0 log 0 = 0. */
const term = (x: number, logRatio: number): number => (x === 0 ? 0 : x * logRatio);

/**
 * With p the teacher's and q the student's probabilities:
 *   forward-kl  KL(p || q) = sum p (log p - log q)                        dD/dlog q = -p
 *   reverse-kl  KL(q || p) = sum q (log q - log p)                        dD/dlog q = q (log q - log p + 1)
 *   jsd         m = beta p + (1 - beta) q                                 dD/dlog q = (1 - beta) q (log q - log m)
 *               beta KL(p || m) + (1 - beta) KL(q || m)
 */
export function divergenceReference(
  teacherLogProbs: Float64Array,
  studentLogProbs: Float64Array,
  { divergence, beta = 0.5 }: DivergenceOptions,
): Divergence {
  let value = 0;
  const slopes = new Float64Array(studentLogProbs.length);
  for (let j = 0; j < slopes.length; j++) {
    const logP = teacherLogProbs[j]!;
    const logQ = studentLogProbs[j]!;
    const p = Math.exp(logP);
    const q = Math.exp(logQ);
    if (divergence === "forward-kl") {
      value += term(p, logP - logQ);
      slopes[j] = -p;
    } else if (divergence === "reverse-kl") {
      value += term(q, logQ - logP);
      slopes[j] = term(q, logQ - logP + 1);
    } else {
      const logM = Math.log(beta * p + (1 - beta) * q);
      value += beta * term(p, logP - logM) + (1 - beta) * term(q, logQ - logM);
      slopes[j] = (1 - beta) * term(q, logQ - logM);
    }
  }
  return { value, slopes };
}
