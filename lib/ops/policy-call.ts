import type { Outcome } from "../native/binding.js";
import { native } from "../native/load.js";
import { encodingOf } from "../objectives/encode.js";
import type { Objective } from "../objectives/objective.js";
import type { MemoryUse } from "../tensor/lease.js";
import type { Stats } from "../tensor/results.js";
import { STAT_NAMES, toStats } from "../tensor/stats.js";
import { type CheckedBatch, checkBatch, type PolicyBatch } from "./batch.js";
import { type Call, checkCall, refuseUseless } from "./call.js";
import { invalid } from "./check.js";
import { type GradientOutputs, gradientDtype, gradientOutputs } from "./outputs.js";
import { LEVEL_LOG_PROBS, type TensorData, writeScores } from "./scores.js";

/** Places of the numbers in meta: csrc/napi/policy_args.h, enum Meta. */
const SCORES = 10;
const SCORE_FIELDS = 8;
const OUT_DTYPES = SCORES + 3 * SCORE_FIELDS;
const STATS = OUT_DTYPES + 4;
const META_COUNT = STATS + STAT_NAMES.length;

/** The numbers of one call; the native side writes its statistics at the end. */
export const newMeta = (): Float64Array => new Float64Array(META_COUNT);

/** The statistics that a finished call left in its meta. */
export const statsOf = (meta: Float64Array): Stats => toStats(meta, STATS);

/** A call whose arguments have been checked. */
interface Plan {
  readonly checked: CheckedBatch;
  readonly call: Call;
  readonly objective: Float64Array;
  readonly gradients: GradientOutputs;
  readonly use: MemoryUse;
}

/** What an objective needs that the batch does not have. */
export function checkNeeds(
  objective: Objective,
  batch: Pick<PolicyBatch, "advantages" | "oldLogProbs" | "refLogProbs" | "teacher">,
  checked: Pick<CheckedBatch, "tokens" | "sequences" | "advantagesPerToken"> & { readonly student: { level: number } },
): void {
  if (objective.klCoef > 0 && batch.refLogProbs === undefined && objective.objective !== "row-coefficient") {
    throw invalid("a Float32Array, as klCoef is above 0,", "refLogProbs", undefined);
  }
  if (objective.studentSource === "old" && batch.oldLogProbs === undefined && batch.teacher !== undefined) {
    throw invalid('a Float32Array, as studentSource is "old",', "oldLogProbs", undefined);
  }
  if (objective.entropyCoef !== 0 && checked.student.level === LEVEL_LOG_PROBS) {
    throw invalid(
      "0, as log-probs have no entropy,",
      "entropyCoef",
      objective.entropyCoef,
      "Pass logits or hidden states.",
    );
  }
  if (
    objective.objective === "row-coefficient" &&
    !checked.advantagesPerToken &&
    checked.tokens !== checked.sequences
  ) {
    throw invalid(`dL/dlogP, a Float32Array of N = ${checked.tokens},`, "advantages", batch.advantages);
  }
}

const NO_USE: MemoryUse = { reads: [], writes: [] };

/** Under row-coefficient advantages are dL/dlogP of the tokens, also when B = N. After `checkNeeds`. */
export function settleAdvantages<T extends { readonly advantagesPerToken: boolean }>(
  checked: T,
  objective: Objective,
): T {
  return objective.objective === "row-coefficient" ? { ...checked, advantagesPerToken: true } : checked;
}

/** The tensors of the batch are read, those of the gradients written. */
function memoryUse({ student, teacher, contrast }: CheckedBatch, g: GradientOutputs): MemoryUse {
  if (student.tensors.length + teacher.tensors.length + contrast.tensors.length === 0) return NO_USE;
  const read = [...student.tensors, ...teacher.tensors, ...contrast.tensors];
  const written = [g.logits, g.hidden, g.head, g.bias].filter((t) => t !== undefined);
  return { reads: read.map((t) => t.data), writes: written.map((t) => t.data) };
}

/** Checks everything that can be checked before native code sees it. `batch` is from readBatch. */
export function plan(batch: PolicyBatch, objective: Objective, given: Call): Plan {
  const encoded = encodingOf(objective);
  const read = checkBatch(batch);
  const call = checkCall(given, read.tokens);
  checkNeeds(objective, read.batch, read);
  const checked = settleAdvantages(read, objective);
  refuseUseless(call, checked.student.level);
  const gradients = gradientOutputs(checked.student, call);
  return { checked, call, objective: encoded, gradients, use: memoryUse(checked, gradients) };
}

export function writeMeta(meta: Float64Array, p: Plan, queued: boolean): void {
  const { checked, call, gradients } = p;
  meta[0] = 0;
  meta[1] = Number(queued);
  meta[2] = checked.tokens;
  meta[3] = checked.sequences;
  meta[4] = Number(checked.advantagesPerToken);
  meta[5] = call.lossScale ?? 1;
  meta[6] = call.threads ?? 0;
  meta[7] = Number(call.accumulate === true);
  meta[8] = Number(call.skipZeroRows === true);
  meta[9] = Number(gradients.fresh);
  writeScores(meta, SCORES, checked.student);
  writeScores(meta, SCORES + SCORE_FIELDS, checked.teacher);
  writeScores(meta, SCORES + 2 * SCORE_FIELDS, checked.contrast);
  meta[OUT_DTYPES] = gradientDtype(gradients.logits);
  meta[OUT_DTYPES + 1] = gradientDtype(gradients.hidden);
  meta[OUT_DTYPES + 2] = gradientDtype(gradients.head);
  meta[OUT_DTYPES + 3] = gradientDtype(gradients.bias);
}

/** (N) arrays to write; without gradientLogProbs only the credit is computed. */
interface TokenTargets {
  readonly logProbs?: Float32Array | undefined;
  readonly teacherLogProbs?: Float32Array | undefined;
  readonly tokenAdvantages: Float32Array;
  readonly evidenceWeights: Float32Array;
  readonly gradientLogProbs?: Float32Array | undefined;
}

/** The native call of any level: a status, or a promise when meta asks for a queued call. */
export function nativeCall(
  p: Plan,
  meta: Float64Array,
  out: TokenTargets,
  cancel?: Int32Array,
): number | Promise<Outcome> {
  const { batch, student, teacher, contrast } = p.checked;
  const { gradients } = p;
  return native.policyLoss(
    meta,
    p.objective,
    batch.tokenIds,
    batch.cuSeqlens,
    batch.completionMask,
    batch.spanMask,
    batch.advantages,
    batch.oldLogProbs,
    batch.refLogProbs,
    batch.samplerLogProbs,
    student.primary as TensorData,
    student.head,
    student.bias,
    student.rowOf,
    teacher.primary,
    teacher.head,
    teacher.bias,
    teacher.rowOf,
    contrast.primary,
    contrast.head,
    contrast.bias,
    contrast.rowOf,
    out.logProbs,
    out.teacherLogProbs,
    out.tokenAdvantages,
    out.evidenceWeights,
    out.gradientLogProbs,
    gradients.logits?.data,
    gradients.hidden?.data,
    gradients.head?.data,
    gradients.bias?.data,
    cancel,
  );
}

/** The synchronous call; a batch of log-probs alone takes the one with few arguments. */
export function nativeCallSync(p: Plan, meta: Float64Array, out: TokenTargets): number {
  const { batch, student, teacher, contrast } = p.checked;
  if (student.level > LEVEL_LOG_PROBS || teacher.level > LEVEL_LOG_PROBS || contrast.level > LEVEL_LOG_PROBS) {
    return nativeCall(p, meta, out) as number;
  }
  return native.policyTokens(
    meta,
    p.objective,
    batch.cuSeqlens,
    batch.completionMask,
    batch.spanMask,
    batch.advantages,
    batch.oldLogProbs,
    batch.refLogProbs,
    batch.samplerLogProbs,
    student.primary as Float32Array,
    teacher.primary as Float32Array | undefined,
    contrast.primary as Float32Array | undefined,
    out.logProbs,
    out.teacherLogProbs,
    out.tokenAdvantages,
    out.evidenceWeights,
    out.gradientLogProbs,
  );
}
