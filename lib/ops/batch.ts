import { checkObject, mendFor } from "../check.js";
import { RlsdError } from "../errors.js";
import { BATCH_NAMES } from "../other-names.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";
import { isDetached, lengthOf } from "../typed-array.js";
import { checkF32, checkI32, checkU8, invalid, isF32, isI32, unshared } from "./check.js";
import { type CheckedScores, checkScores, LEVEL_LOG_PROBS, requireKind, type Scores } from "./scores.js";

/**
 * One packed batch: B sequences, N response tokens; sequence b owns tokens cuSeqlens[b] .. cuSeqlens[b + 1].
 *
 * A call runs where the student's scores lie. On a device, logits must lie there too, and each Float32Array may be an f32
 * tensor of the same shape there instead; arrays of the host are copied up when the call is made.
 */
export interface PolicyBatch<S extends Scores = Scores> {
  /** The policy that is trained. */
  readonly student: S;
  /** The same tokens, by the same ids, re-read under privileged information. Absent: no credit, whatever the objective. */
  readonly teacher?: Scores | undefined;
  /** A teacher given a wrong hint: evidence is measured against it instead of the student. */
  readonly contrast?: Scores | undefined;
  /** (N). Required for logits and hidden states. */
  readonly tokenIds?: Int32Array | undefined;
  /** (B + 1), from 0 to N. */
  readonly cuSeqlens: Int32Array;
  /** (N) of 0 and 1; default all 1. A masked token is never read and gets exactly 0 everywhere. */
  readonly completionMask?: Uint8Array | undefined;
  /** (B), one a sequence (also when B = N), or (N). Under `rowCoefficient()` always (N). */
  readonly advantages: Float32Array | Tensor;
  /** (N) log-probs when the update began. Absent: on-policy, ratio 1. */
  readonly oldLogProbs?: Float32Array | Tensor | undefined;
  /** (N) of the KL reference. Needed when klCoef > 0. */
  readonly refLogProbs?: Float32Array | Tensor | undefined;
  /** (N) as the sampling engine reported them: importance correction. */
  readonly samplerLogProbs?: Float32Array | Tensor | undefined;
  /** (N) of 0 and 1: credit only where 1. */
  readonly spanMask?: Uint8Array | undefined;
}

const FIELDS: ReadonlySet<string> = new Set([
  "student",
  "teacher",
  "contrast",
  "tokenIds",
  "cuSeqlens",
  "completionMask",
  "advantages",
  "oldLogProbs",
  "refLogProbs",
  "samplerLogProbs",
  "spanMask",
]);

type Memory = "advantages" | "oldLogProbs" | "refLogProbs" | "samplerLogProbs";
/** A batch with the memory of its tensors of N or B numbers. */
type HostBatch = Omit<PolicyBatch, Memory> & {
  readonly [K in Memory]: Exclude<PolicyBatch[K], Tensor>;
};

export interface CheckedBatch {
  readonly batch: HostBatch;
  readonly tokens: number;
  readonly sequences: number;
  readonly advantagesPerToken: boolean;
  readonly student: CheckedScores;
  readonly teacher: CheckedScores;
  readonly contrast: CheckedScores;
}

/** The fields of a batch, each read once: what is checked later is what is used. */
export function readBatch(b: PolicyBatch): PolicyBatch {
  checkObject(b, "batch", FIELDS, BATCH_NAMES);
  return {
    student: b.student,
    teacher: b.teacher,
    contrast: b.contrast,
    tokenIds: unshared(b.tokenIds),
    cuSeqlens: unshared(b.cuSeqlens),
    completionMask: unshared(b.completionMask),
    advantages: b.advantages,
    oldLogProbs: b.oldLogProbs,
    refLogProbs: b.refLogProbs,
    samplerLogProbs: b.samplerLogProbs,
    spanMask: unshared(b.spanMask),
  };
}

/** An array is itself, a tensor of the CPU its memory; another tensor throws ERR_RLSD_DEVICE_TENSOR. */
function memoryOf<T>(value: T | Tensor): T {
  return isTensor(value) && value.dtype === "f32" ? (value.data as T) : (value as T);
}

function hostBatch(b: PolicyBatch): HostBatch {
  const { advantages, oldLogProbs, refLogProbs, samplerLogProbs } = b;
  if (!isTensor(advantages) && !isTensor(oldLogProbs) && !isTensor(refLogProbs) && !isTensor(samplerLogProbs)) {
    return b as HostBatch;
  }
  return {
    ...b,
    advantages: memoryOf<HostBatch["advantages"]>(advantages),
    oldLogProbs: memoryOf<HostBatch["oldLogProbs"]>(oldLogProbs),
    refLogProbs: memoryOf<HostBatch["refLogProbs"]>(refLogProbs),
    samplerLogProbs: memoryOf<HostBatch["samplerLogProbs"]>(samplerLogProbs),
  };
}

/** N: how many tokens the batch has, from the student's log-probs or else its ids. */
function countTokens(batch: HostBatch): number {
  const { student } = batch;
  if (requireKind(student, "student") === "logProbs") {
    const { logProbs } = student;
    const data = isTensor(logProbs) ? logProbs.data : logProbs;
    if (isF32(data) && !isDetached(data)) return lengthOf(data);
    const expected = "a Float32Array or an f32 tensor of N log-probs";
    throw invalid(expected, "student.logProbs", logProbs, mendFor(logProbs, "Float32Array"));
  }
  if (isI32(batch.tokenIds)) return lengthOf(batch.tokenIds);
  throw invalid("an Int32Array of token ids", "tokenIds", batch.tokenIds, mendFor(batch.tokenIds, "Int32Array"));
}

function optionalF32(value: Float32Array | undefined, name: string, tokens: number): void {
  if (value !== undefined) checkF32(value, name, tokens);
}

/** What is wrong where advantages are neither (B) nor (N): themselves, or lengths in the place of the offsets that say B. */
function wrongAdvantages({ cuSeqlens, advantages }: HostBatch, tokens: number): RlsdError {
  if (isF32(advantages) && cuSeqlens[0] !== 0) {
    const message = `Expected cuSeqlens[0] to be 0 but received ${cuSeqlens[0]}. It has B + 1 offsets, not lengths: packTokens makes them.`;
    return new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
  const expected = `a Float32Array of B = ${lengthOf(cuSeqlens) - 1} or N = ${tokens}`;
  return invalid(expected, "advantages", advantages, mendFor(advantages, "Float32Array"));
}

/**
 * Types, lengths and what belongs together. Values are checked natively, in one pass, before anything is written.
 *
 * @param given from `readBatch`
 */
export function checkBatch(given: PolicyBatch): CheckedBatch {
  const batch = hostBatch(given);
  const tokens = countTokens(batch);
  const { cuSeqlens, advantages } = batch;
  if (!isI32(cuSeqlens) || lengthOf(cuSeqlens) < 1) {
    throw invalid("an Int32Array of B + 1 offsets", "cuSeqlens", cuSeqlens, mendFor(cuSeqlens, "Int32Array"));
  }
  const sequences = lengthOf(cuSeqlens) - 1;
  const perSequence = isF32(advantages) && lengthOf(advantages) === sequences;
  if (!perSequence && !(isF32(advantages) && lengthOf(advantages) === tokens)) {
    throw wrongAdvantages(batch, tokens);
  }
  if (batch.completionMask !== undefined) checkU8(batch.completionMask, "completionMask", tokens);
  if (batch.spanMask !== undefined) checkU8(batch.spanMask, "spanMask", tokens);
  optionalF32(batch.oldLogProbs, "oldLogProbs", tokens);
  optionalF32(batch.refLogProbs, "refLogProbs", tokens);
  optionalF32(batch.samplerLogProbs, "samplerLogProbs", tokens);
  const student = checkScores(batch.student, "student", tokens);
  const teacher = checkScores(batch.teacher, "teacher", tokens);
  const contrast = checkScores(batch.contrast, "contrast", tokens);
  if (batch.contrast !== undefined && batch.teacher === undefined) {
    throw invalid("a teacher beside the contrast", "teacher", undefined);
  }
  const needsIds = Math.max(student.level, teacher.level, contrast.level) > LEVEL_LOG_PROBS;
  if (needsIds || batch.tokenIds !== undefined) checkI32(batch.tokenIds, "tokenIds", tokens);
  return { batch, tokens, sequences, advantagesPerToken: !perSequence, student, teacher, contrast };
}
