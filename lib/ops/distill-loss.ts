import { checkObject } from "../check.js";
import type { Outcome } from "../native/binding.js";
import { native } from "../native/load.js";
import { throwUnlessOk } from "../native/status.js";
import {
  type CheckedDistillOptions,
  checkDistillOptions,
  type DistillLossOptions,
} from "../objectives/distill-options.js";
import type { DType } from "../tensor/dtype.js";
import { checkAllFree, type MemoryUse } from "../tensor/lease.js";
import type { HeadGradient, HiddenGradient, Known, LogitGradient, ScoreGradient } from "../tensor/results.js";
import { lengthOf } from "../typed-array.js";
import {
  type Call,
  checkCall,
  GRADIENT_OUTPUTS,
  type PolicyOut,
  refuseUseless,
  TOKEN_OUTPUTS,
  type TrainedHead,
} from "./call.js";
import { checkI32, checkU8, invalid, isI32, unshared } from "./check.js";
import { homeOf, unsupported } from "./device-scores.js";
import { type GradientOutputs, gradientDtype, gradientOutputs } from "./outputs.js";
import { runQueued } from "./queued.js";
import {
  type CheckedScores,
  checkScores,
  type DistributionScores,
  type HiddenScores,
  LEVEL_LOG_PROBS,
  type LogitScores,
  writeScores,
} from "./scores.js";

/** One packed batch: B sequences, N tokens. */
export interface DistillLossBatch<S extends DistributionScores = DistributionScores> {
  /** Logits, or hidden states and their head. */
  readonly student: S;
  /** The same tokens under the teacher, over the same vocabulary; the levels may differ. */
  readonly teacher: DistributionScores;
  /** (B + 1), from 0 to N. */
  readonly cuSeqlens: Int32Array;
  /** (N) of 0 and 1; default all 1. A masked token is never read and gets exactly 0 everywhere. */
  readonly completionMask?: Uint8Array | undefined;
  /** (N). Not read: whole distributions are compared, whichever token was sampled. */
  readonly tokenIds?: Int32Array | undefined;
}

/** As `Call`, on the CPU. Every row is read, and of the results only gradients of tensors can be written elsewhere. */
export interface DistillLossCall extends Omit<Call, "stream" | "out" | "skipZeroRows"> {
  /** Written instead of allocated. None may overlap another, or what is read. */
  readonly out?: Pick<PolicyOut, "logits" | "hidden" | "head" | "bias"> | undefined;
}

/** Statistics of one call. An absent quantity is absent, never 0. */
export interface DistillLossStats {
  /** Unmasked tokens. */
  readonly tokens: number;
  /** B, empty ones included. */
  readonly sequences: number;
  /** As `DistillLossResult.loss`. */
  readonly loss: number;
  /** Mean of the tokens' values, whatever the reduction; absent when no row could be read. */
  readonly mean?: number;
  /** Unmasked rows with a non-finite logit on either side, or an infinite divergence: no loss, no gradient. */
  readonly nonFiniteRows: number;
  /** Fraction of rows whose value the clamp changed. */
  readonly clampedFraction?: number;
}

/** dL / dx times lossScale, of what the student was given as. */
export type DistillLossGradient = ScoreGradient;

/** What `distillLoss` returns. */
export interface DistillLossResult<G extends DistillLossGradient = DistillLossGradient> {
  /** sum_t omega_t D_t, in nats. */
  readonly loss: number;
  /** (N): each token's value; 0 where masked. */
  readonly tokenLosses: Float32Array;
  /** Nothing for the teacher. */
  readonly gradient: G;
  /** Of the whole call. */
  readonly stats: DistillLossStats;
}

const BATCH_FIELDS: ReadonlySet<string> = new Set(["student", "teacher", "cuSeqlens", "completionMask", "tokenIds"]);
const STAT_NAMES = ["tokens", "sequences", "loss", "mean", "nonFiniteRows", "clampedFraction"] as const;

/** Places of the numbers in meta: csrc/napi/distill_loss.cc, enum Meta. */
const VIEWS = 18;
const OUT_DTYPES = VIEWS + 2 * 8;
const STATS = OUT_DTYPES + 4;
const META_COUNT = STATS + STAT_NAMES.length;

interface Plan {
  readonly batch: DistillLossBatch;
  readonly tokens: number;
  readonly student: CheckedScores;
  readonly teacher: CheckedScores;
  readonly options: CheckedDistillOptions;
  readonly call: Call;
  readonly gradients: GradientOutputs;
  readonly tokenLosses: Float32Array;
  readonly meta: Float64Array;
  readonly use: MemoryUse;
}

function checkDistribution(scores: DistributionScores | undefined, name: string, tokens: number): CheckedScores {
  const home = homeOf(scores);
  if (home !== undefined) throw unsupported(`distillLoss on ${home.device} (${name})`, "no distillation");
  const checked = checkScores(scores, name, tokens);
  if (checked.level > LEVEL_LOG_PROBS) return checked;
  throw invalid("{ logits } or { hidden, head }, as whole distributions are compared,", name, scores);
}

function refuseOfPolicyLoss(call: Call): void {
  if (call.skipZeroRows) throw invalid("false, as distillLoss compares every row,", "skipZeroRows", true);
  for (const name of TOKEN_OUTPUTS) {
    if (call.out?.[name] !== undefined)
      throw invalid("nothing, as distillLoss does not compute it,", `out.${name}`, call.out[name]);
  }
}

function plan(given: DistillLossBatch, o: DistillLossOptions, givenCall: DistillLossCall): Plan {
  checkObject(given, "batch", BATCH_FIELDS);
  const { student: studentScores, teacher: teacherScores } = given;
  const cuSeqlens = unshared(given.cuSeqlens);
  const completionMask = unshared(given.completionMask);
  const tokenIds = unshared(given.tokenIds);
  const batch = { student: studentScores, teacher: teacherScores, cuSeqlens, completionMask, tokenIds };
  if (!isI32(cuSeqlens) || lengthOf(cuSeqlens) < 1) {
    throw invalid("an Int32Array of B + 1 offsets", "cuSeqlens", cuSeqlens);
  }
  const tokens = Math.max(0, cuSeqlens[lengthOf(cuSeqlens) - 1]!);
  if (completionMask !== undefined) checkU8(completionMask, "completionMask", tokens);
  if (tokenIds !== undefined) checkI32(tokenIds, "tokenIds", tokens);
  const student = checkDistribution(studentScores, "student", tokens);
  const teacher = checkDistribution(teacherScores, "teacher", tokens);
  const options = checkDistillOptions(o);
  const call = checkCall(givenCall, tokens);
  refuseOfPolicyLoss(call);
  refuseUseless(call, student.level);
  const gradients = gradientOutputs(student, call);
  const written = GRADIENT_OUTPUTS.flatMap((name) => gradients[name] ?? []);
  return {
    batch,
    tokens,
    student,
    teacher,
    options,
    call,
    gradients,
    tokenLosses: new Float32Array(tokens),
    meta: new Float64Array(META_COUNT),
    use: {
      reads: [...student.tensors, ...teacher.tensors].map((t) => t.data),
      writes: written.map((t) => t.data),
    },
  };
}

function writeMeta({ meta, batch, tokens, student, teacher, options, call, gradients }: Plan, queued: boolean): void {
  meta.set([
    0,
    Number(queued),
    tokens,
    lengthOf(batch.cuSeqlens) - 1,
    call.threads ?? 0,
    options.divergence,
    options.reduction,
    options.topK,
    Number(options.tail),
    Number(options.skipNonFinite),
    Number(call.accumulate === true),
    Number(gradients.fresh),
    options.beta,
    options.valueClamp,
    options.temperature,
    options.logitSoftcap,
    options.normalizer,
    call.lossScale ?? 1,
  ]);
  writeScores(meta, VIEWS, student);
  writeScores(meta, VIEWS + 8, teacher);
  const { logits, hidden, head, bias } = gradients;
  meta.set([logits, hidden, head, bias].map(gradientDtype), OUT_DTYPES);
}

function nativeCall(p: Plan, queued: boolean, flags?: Int32Array): number | Promise<Outcome> {
  writeMeta(p, queued);
  const { batch, student, teacher, gradients } = p;
  return native.distillLoss(
    p.meta,
    batch.cuSeqlens,
    batch.completionMask,
    student.primary,
    student.head,
    student.bias,
    student.rowOf,
    teacher.primary,
    teacher.head,
    teacher.bias,
    teacher.rowOf,
    p.tokenLosses,
    gradients.logits?.data,
    gradients.hidden?.data,
    gradients.head?.data,
    gradients.bias?.data,
    flags,
  );
}

function toResult({ meta, gradients, tokenLosses }: Plan): DistillLossResult {
  const present = STAT_NAMES.map((name, i) => [name, meta[STATS + i]!] as const).filter(([, x]) => !Number.isNaN(x));
  const stats = Object.fromEntries(present) as unknown as DistillLossStats;
  const tensors = GRADIENT_OUTPUTS.map((name) => [name, gradients[name]] as const);
  const gradient = Object.fromEntries(tensors.filter(([, t]) => t !== undefined)) as DistillLossGradient;
  return { loss: stats.loss, tokenLosses, gradient, stats };
}

/**
 * Distribution matching on the student's own tokens, in one native call on this thread:
 *
 *   loss = sum_t omega_t D(teacher_t, student_t)    dL/dz_v = omega_t (dD/dlog q_v - q_v sum_u dD/dlog q_u) ds_v/dz_v
 *
 * @param batch the tokens under the student and under the teacher, as logits or as hidden states with their head
 * @param options which divergence, over what, and how tokens are reduced
 * @returns loss; each token's value (N); the gradient to the student's scores; stats
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT before anything is written; ERR_RLSD_NON_FINITE after the call, with the
 *   first bad token (`index`) and how many (`count`), unless `nonFinite` is "skip"; ERR_RLSD_BUSY as policyLoss
 */
export function distillLossSync<D extends DType>(
  batch: DistillLossBatch<LogitScores<D>>,
  options: DistillLossOptions,
  call?: DistillLossCall,
): DistillLossResult<Known<DistillLossGradient, LogitGradient<D>>>;
export function distillLossSync<D extends DType>(
  batch: DistillLossBatch<HiddenScores<D>>,
  options: DistillLossOptions,
  call?: DistillLossCall & TrainedHead,
): DistillLossResult<Known<DistillLossGradient, HeadGradient<D>>>;
export function distillLossSync<D extends DType>(
  batch: DistillLossBatch<HiddenScores<D>>,
  options: DistillLossOptions,
  call?: DistillLossCall,
): DistillLossResult<Known<DistillLossGradient, HiddenGradient<D>>>;
export function distillLossSync(
  batch: DistillLossBatch,
  options: DistillLossOptions,
  call?: DistillLossCall,
): DistillLossResult;
export function distillLossSync(
  batch: DistillLossBatch,
  options: DistillLossOptions,
  call: DistillLossCall = {},
): DistillLossResult {
  const p = plan(batch, options, call);
  checkAllFree(p.use);
  throwUnlessOk(nativeCall(p, false) as number);
  return toResult(p);
}

/** `distillLossSync` on the process's native queue. Rejects with the signal's reason when it is aborted. */
export async function distillLoss<D extends DType>(
  batch: DistillLossBatch<LogitScores<D>>,
  options: DistillLossOptions,
  call?: DistillLossCall,
): Promise<DistillLossResult<Known<DistillLossGradient, LogitGradient<D>>>>;
export async function distillLoss<D extends DType>(
  batch: DistillLossBatch<HiddenScores<D>>,
  options: DistillLossOptions,
  call?: DistillLossCall & TrainedHead,
): Promise<DistillLossResult<Known<DistillLossGradient, HeadGradient<D>>>>;
export async function distillLoss<D extends DType>(
  batch: DistillLossBatch<HiddenScores<D>>,
  options: DistillLossOptions,
  call?: DistillLossCall,
): Promise<DistillLossResult<Known<DistillLossGradient, HiddenGradient<D>>>>;
export async function distillLoss(
  batch: DistillLossBatch,
  options: DistillLossOptions,
  call?: DistillLossCall,
): Promise<DistillLossResult>;
export async function distillLoss(
  batch: DistillLossBatch,
  options: DistillLossOptions,
  call: DistillLossCall = {},
): Promise<DistillLossResult> {
  const p = plan(batch, options, call);
  await runQueued((flags) => nativeCall(p, true, flags), p.use, p.call.signal);
  return toResult(p);
}
