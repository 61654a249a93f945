import { RlsdError } from "../errors.js";
import { throwUnlessOk } from "../native/status.js";
import type { Objective } from "../objectives/objective.js";
import { checkAllFree } from "../tensor/lease.js";
import type { PolicyResult } from "../tensor/results.js";
import type { PolicyBatch } from "./batch.js";
import type { Call } from "./call.js";
import { lengthOf } from "./check.js";
import { refuseOverlap, type TokenOutputs, tokenOutputs, toResult } from "./outputs.js";
import { nativeCall, nativeCallSync, newMeta, plan, statsOf, writeMeta } from "./policy-call.js";
import { runQueued } from "./queued.js";
import { LEVEL_ABSENT } from "./scores.js";

const NO_CALL: Call = Object.freeze({});

/** A synchronous call is over before the next begins: one scratch serves all of them. */
const scratchMeta = newMeta();

/**
 * The policy loss, its gradient and its statistics, in one native call on this thread.
 *
 * L = sum_t omega_t (surrogate(log P - log P_old, A^) + klCoef KL_t - entropyCoef H_t), A^ = A rho (docs/maths.md).
 *
 * @param batch the tokens under the student, and under a teacher where there is one
 * @param objective made by `grpo()`, `rlsd()` or another factory
 * @returns loss; per-token log-probs, advantages, evidence weights (N); the gradient to the student's scores; stats
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT before anything is written; ERR_RLSD_NON_FINITE after the call, with the
 *   first bad token (`index`) and how many (`count`), unless the objective says `nonFinite: "skip"`; ERR_RLSD_BUSY
 *   while a queued call writes a tensor of the batch, or uses one that this call would write
 */
export function policyLossSync(batch: PolicyBatch, objective: Objective, call: Call = NO_CALL): PolicyResult {
  const p = plan(batch, objective, call);
  const out = tokenOutputs(p.checked.tokens, p.checked.teacher.level !== LEVEL_ABSENT, p.call.out);
  checkAllFree(p.use);
  writeMeta(scratchMeta, p, false);
  throwUnlessOk(nativeCallSync(p, scratchMeta, out));
  return toResult(p.checked, out, p.gradients, statsOf(scratchMeta));
}

const TOKEN_OUTPUTS = [
  "logProbs",
  "teacherLogProbs",
  "tokenAdvantages",
  "evidenceWeights",
  "gradientLogProbs",
] as const;

/** Results of a queued call land in memory that nobody else has, and are copied to the caller's arrays at its end. */
function copyOut(out: TokenOutputs, given: Call["out"]): TokenOutputs {
  if (given === undefined) return out;
  for (const name of TOKEN_OUTPUTS) {
    const to = given[name];
    if (to === undefined || lengthOf(to) === out.logProbs.length) continue;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `out.${name} was detached or resized while the call ran.`);
  }
  const copy = (from: Float32Array, to: Float32Array | undefined): Float32Array => {
    to?.set(from);
    return to ?? from;
  };
  return {
    logProbs: copy(out.logProbs, given.logProbs),
    teacherLogProbs: out.teacherLogProbs && copy(out.teacherLogProbs, given.teacherLogProbs),
    tokenAdvantages: copy(out.tokenAdvantages, given.tokenAdvantages),
    evidenceWeights: copy(out.evidenceWeights, given.evidenceWeights),
    gradientLogProbs: copy(out.gradientLogProbs, given.gradientLogProbs),
  };
}

/**
 * `policyLossSync` on the process's native queue: calls run first in, first out, results arrive in that order, and
 * this thread goes on. Inputs of N or B elements are copied when the call is made; tensors are leased until it ends.
 *
 * @throws as policyLossSync; the signal's reason when it is aborted. Outputs of a call that was stopped are unspecified.
 */
export async function policyLoss(
  batch: PolicyBatch,
  objective: Objective,
  given: Call = NO_CALL,
): Promise<PolicyResult> {
  const p = plan(batch, objective, given);
  const { call } = p;
  refuseOverlap(call.out);
  const out = tokenOutputs(p.checked.tokens, p.checked.teacher.level !== LEVEL_ABSENT, undefined);
  const meta = newMeta();
  writeMeta(meta, p, true);
  await runQueued((flags) => nativeCall(p, meta, out, flags), p.use, call.signal);
  return toResult(p.checked, copyOut(out, call.out), p.gradients, statsOf(meta));
}
