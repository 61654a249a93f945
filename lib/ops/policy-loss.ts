import { RlsdError } from "../errors.js";
import { throwUnlessOk } from "../native/status.js";
import type { Objective } from "../objectives/objective.js";
import type { DType } from "../tensor/dtype.js";
import { checkAllFree } from "../tensor/lease.js";
import type {
  DevicePolicyResult,
  HeadGradient,
  HiddenGradient,
  Known,
  LogitGradient,
  PolicyGradient,
  PolicyResult,
} from "../tensor/results.js";
import { type PolicyBatch, readBatch } from "./batch.js";
import type { Call, DeviceCall, TrainedHead } from "./call.js";
import { devicePolicyLoss, devicePolicyLossSync } from "./device-policy-loss.js";
import { homeOf } from "./device-scores.js";
import { copyOut, refuseOverlap, tokenOutputs, toResult } from "./outputs.js";
import { nativeCall, nativeCallSync, newMeta, plan, statsOf, writeMeta } from "./policy-call.js";
import { runQueued } from "./queued.js";
import { type HiddenScores, LEVEL_ABSENT, type LogitScores } from "./scores.js";

const NO_CALL: Call = Object.freeze({});

/** A synchronous call is over before the next begins: one scratch serves all of them. */
const scratchMeta = newMeta();

/**
 * The policy loss, its gradient and its statistics, in one native call on this thread.
 *
 * L = sum_t omega_t (surrogate(log P - log P_old, A^) + klCoef KL_t - entropyCoef H_t), A^ = A rho (docs/maths.md).
 *
 * It runs where the student's scores lie. On a device it is enqueued on `stream`; with `results: "host"` it waits, and
 * per-token results come back while gradient.logits stays there. With `results: "device"` nothing waits and all of them
 * stay: what the device finds wrong (an id out of range, a row that is not finite) is thrown by `stats()` and by
 * `toHost` of a result, and every result is then as it was.
 *
 * @param batch the tokens under the student, and under a teacher where there is one
 * @param objective made by `grpo()`, `rlsd()` or another factory
 * @returns loss; per-token log-probs, advantages, evidence weights (N); the gradient to the student's scores; stats
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT before anything is written; ERR_RLSD_NON_FINITE after the call, with the
 *   first bad token (`index`) and how many (`count`), unless the objective says `nonFinite: "skip"`; ERR_RLSD_BUSY
 *   while a queued call writes a tensor of the batch, or uses one that this call would write (on a device: uses it on
 *   another stream); ERR_RLSD_UNSUPPORTED for what the device does not serve
 */
export function policyLossSync(batch: PolicyBatch, objective: Objective, call: DeviceCall): DevicePolicyResult;
export function policyLossSync<D extends DType>(
  batch: PolicyBatch<LogitScores<D>>,
  objective: Objective,
  call?: Call,
): PolicyResult<Known<PolicyGradient, LogitGradient<D>>>;
export function policyLossSync<D extends DType>(
  batch: PolicyBatch<HiddenScores<D>>,
  objective: Objective,
  call?: Call & TrainedHead,
): PolicyResult<Known<PolicyGradient, HeadGradient<D>>>;
export function policyLossSync<D extends DType>(
  batch: PolicyBatch<HiddenScores<D>>,
  objective: Objective,
  call?: Call,
): PolicyResult<Known<PolicyGradient, HiddenGradient<D>>>;
export function policyLossSync(batch: PolicyBatch, objective: Objective, call?: Call): PolicyResult;
export function policyLossSync(
  batch: PolicyBatch,
  objective: Objective,
  call: Call | DeviceCall = NO_CALL,
): PolicyResult | DevicePolicyResult {
  const read = readBatch(batch);
  const home = homeOf(read.student);
  if (home !== undefined) return devicePolicyLossSync(home, read, objective, call);
  const p = plan(read, objective, call as Call);
  const out = tokenOutputs(p.checked.tokens, p.checked.teacher.level !== LEVEL_ABSENT, p.call.out);
  checkAllFree(p.use);
  writeMeta(scratchMeta, p, false);
  throwUnlessOk(nativeCallSync(p, scratchMeta, out));
  return toResult(out, p.gradients, statsOf(scratchMeta));
}

/**
 * `policyLossSync` on the process's native queue: calls run first in, first out, results arrive in that order, and
 * this thread goes on. Inputs of N or B elements are copied when the call is made; tensors are leased until it ends.
 * On a device the work is enqueued before this returns, in its stream's order; the queue only waits for its results.
 *
 * @throws as policyLossSync; the signal's reason when it is aborted. Outputs of a call that was stopped are unspecified.
 */
export async function policyLoss(
  batch: PolicyBatch,
  objective: Objective,
  call: DeviceCall,
): Promise<DevicePolicyResult>;
export async function policyLoss<D extends DType>(
  batch: PolicyBatch<LogitScores<D>>,
  objective: Objective,
  call?: Call,
): Promise<PolicyResult<Known<PolicyGradient, LogitGradient<D>>>>;
export async function policyLoss<D extends DType>(
  batch: PolicyBatch<HiddenScores<D>>,
  objective: Objective,
  call?: Call & TrainedHead,
): Promise<PolicyResult<Known<PolicyGradient, HeadGradient<D>>>>;
export async function policyLoss<D extends DType>(
  batch: PolicyBatch<HiddenScores<D>>,
  objective: Objective,
  call?: Call,
): Promise<PolicyResult<Known<PolicyGradient, HiddenGradient<D>>>>;
export async function policyLoss(batch: PolicyBatch, objective: Objective, call?: Call): Promise<PolicyResult>;
export async function policyLoss(
  batch: PolicyBatch,
  objective: Objective,
  given: Call | DeviceCall = NO_CALL,
): Promise<PolicyResult | DevicePolicyResult> {
  const read = readBatch(batch);
  const home = homeOf(read.student);
  if (home !== undefined) return await devicePolicyLoss(home, read, objective, given);
  const p = plan(read, objective, given as Call);
  const { call } = p;
  refuseOverlap(call.out);
  const out = tokenOutputs(p.checked.tokens, p.checked.teacher.level !== LEVEL_ABSENT, undefined);
  const meta = newMeta();
  writeMeta(meta, p, true);
  try {
    await runQueued((flags) => nativeCall(p, meta, out, flags), p.use, call.signal);
  } catch (error) {
    if (error instanceof RlsdError && error.code === "ERR_RLSD_NON_FINITE") copyOut(out, call.out); // it finished
    throw error;
  }
  return toResult(copyOut(out, call.out), p.gradients, statsOf(meta));
}
