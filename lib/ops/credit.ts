import { checkObject, mendFor } from "../check.js";
import { throwUnlessOk } from "../native/status.js";
import { isObjective } from "../objectives/encode.js";
import type { Objective, ObjectiveFields } from "../objectives/objective.js";
import { rlsd } from "../objectives/presets.js";
import type { Stats } from "../tensor/results.js";
import { lengthOf } from "../typed-array.js";
import { readBatch } from "./batch.js";
import { checkF32, invalid, isF32 } from "./check.js";
import { nativeCallSync, newMeta, plan, statsOf, writeMeta } from "./policy-call.js";

/** Log-probs and advantages of packed tokens. */
export interface CreditInput {
  /** (N) of the student. */
  readonly logProbs: Float32Array;
  /** (N) of the same tokens under the privileged prompt. */
  readonly teacherLogProbs: Float32Array;
  /** (N) under a wrong hint: evidence is measured against it instead of the student. */
  readonly contrastLogProbs?: Float32Array | undefined;
  /** (B) or (N). */
  readonly advantages: Float32Array;
  /** (B + 1) */
  readonly cuSeqlens: Int32Array;
  /** (N) */
  readonly completionMask?: Uint8Array | undefined;
  /** (N) */
  readonly spanMask?: Uint8Array | undefined;
}

type CreditField = "creditMix" | "evidenceClip" | "negativeOnly" | "clipMode" | "normalize";
/** The credit's fields of an objective, with the defaults of `rlsd()`. */
export type CreditOptions = { readonly [K in CreditField]?: ObjectiveFields[K] | undefined };

/** The statistics of `policyLoss` that need neither loss nor ratio. */
export type CreditStats = Omit<Stats, "loss" | "policyLoss">;

/** What `rlsdCredit` returns. */
export interface CreditResult {
  /** (N): A rho */
  readonly tokenAdvantages: Float32Array;
  /** (N): clip(w), before creditMix */
  readonly evidenceWeights: Float32Array;
  readonly stats: CreditStats;
}

const INPUT: ReadonlySet<string> = new Set([
  "logProbs",
  "teacherLogProbs",
  "contrastLogProbs",
  "advantages",
  "cuSeqlens",
  "completionMask",
  "spanMask",
]);
const OPTIONS: ReadonlySet<string> = new Set(["creditMix", "evidenceClip", "negativeOnly", "clipMode", "normalize"]);

/** The credit of an objective, on whatever student's log-probs the caller gives, or of options. */
function creditOf(options: CreditOptions | Objective): Objective {
  if (!isObjective(options)) {
    checkObject(options, "options", OPTIONS);
    return rlsd(options);
  }
  const { creditMix, evidenceClip, negativeOnly, clipMode, normalize } = options;
  return rlsd({ creditMix, evidenceClip, negativeOnly, clipMode, normalize });
}

/**
 * RLSD credit alone (arXiv 2604.03128, Eq. 13-15), for a trainer with a loss of its own:
 * A^ = A ((1 - lambda) + lambda clip(exp(sign(A) (log P_T - log P_S)), 1 - eps, 1 + eps)).
 *
 * A token whose evidence cannot be measured (a NaN or +inf, or both log-probs -inf) keeps rho = 1 and is counted in
 * stats.nanTeacherRows. A masked token is never read and gets 0.
 *
 * @param options fields of the credit, or an objective that has them; `studentSource` is whose log-probs are given
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT before anything is computed
 */
export function rlsdCredit(input: CreditInput, options: CreditOptions | Objective = {}): CreditResult {
  checkObject(input, "input", INPUT);
  const objective = creditOf(options);
  const { logProbs, teacherLogProbs, contrastLogProbs } = input; // each field of the input is read once
  if (!isF32(logProbs)) {
    throw invalid("a Float32Array of N log-probs", "logProbs", logProbs, mendFor(logProbs, "Float32Array"));
  }
  const tokens = lengthOf(logProbs);
  checkF32(teacherLogProbs, "teacherLogProbs", tokens);
  const batch = readBatch({
    student: { logProbs },
    teacher: { logProbs: teacherLogProbs },
    contrast: contrastLogProbs === undefined ? undefined : { logProbs: contrastLogProbs },
    cuSeqlens: input.cuSeqlens,
    advantages: input.advantages,
    completionMask: input.completionMask,
    spanMask: input.spanMask,
  });
  const p = plan(batch, objective, {});
  const out = { tokenAdvantages: new Float32Array(tokens), evidenceWeights: new Float32Array(tokens) };
  const meta = newMeta();
  writeMeta(meta, p, false);
  throwUnlessOk(nativeCallSync(p, meta, out));
  const { loss: _loss, policyLoss: _policyLoss, ...stats } = statsOf(meta);
  return { ...out, stats };
}
