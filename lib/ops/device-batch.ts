import type { DeviceTensor } from "../tensor/device.js";
import { isTensor } from "../tensor/tensor.js";
import { lengthOf } from "../typed-array.js";
import type { PolicyBatch } from "./batch.js";
import { checkI32, checkU8, invalid, isI32 } from "./check.js";
import { type CheckedValues, checkDeviceScores, checkValues, type DeviceScores } from "./device-scores.js";
import { kindOf, LEVEL_LOG_PROBS } from "./scores.js";

/** A batch whose student lies on a device. */
export interface DeviceBatch {
  readonly tokens: number;
  readonly sequences: number;
  readonly advantagesPerToken: boolean;
  readonly student: DeviceScores;
  readonly teacher: DeviceScores;
  readonly contrast: DeviceScores;
  readonly tokenIds: Int32Array | undefined;
  readonly cuSeqlens: Int32Array;
  readonly completionMask: Uint8Array | undefined;
  readonly spanMask: Uint8Array | undefined;
  readonly advantages: CheckedValues;
  readonly old: CheckedValues;
  readonly ref: CheckedValues;
  readonly sampler: CheckedValues;
}

/** N: from the student's log-probs or else the ids. */
function countTokens({ student, tokenIds }: PolicyBatch, home: DeviceTensor): number {
  if (kindOf(student) === "logProbs" && isTensor(student.logProbs)) return home.shape.reduce((a, b) => a * b, 1);
  if (isI32(tokenIds)) return lengthOf(tokenIds);
  throw invalid("an Int32Array of token ids", "tokenIds", tokenIds);
}

/** As `checkBatch`, and dtypes and devices; values are checked by the device before it writes anything. */
export function checkDeviceBatch(given: PolicyBatch, home: DeviceTensor): DeviceBatch {
  const { student, teacher, contrast, tokenIds, cuSeqlens, completionMask, spanMask } = given;
  const tokens = countTokens(given, home);
  if (!isI32(cuSeqlens) || lengthOf(cuSeqlens) < 1) {
    throw invalid("an Int32Array of B + 1 offsets", "cuSeqlens", cuSeqlens);
  }
  const sequences = lengthOf(cuSeqlens) - 1;
  if (completionMask !== undefined) checkU8(completionMask, "completionMask", tokens);
  if (spanMask !== undefined) checkU8(spanMask, "spanMask", tokens);
  const values = (name: "oldLogProbs" | "refLogProbs" | "samplerLogProbs") =>
    checkValues(given[name], name, [tokens], home);
  const advantages = checkValues(given.advantages, "advantages", [sequences, tokens], home);
  if (advantages.values === undefined) {
    throw invalid(`a Float32Array of B = ${sequences} or N = ${tokens}`, "advantages", undefined);
  }
  const scores = (name: "student" | "teacher" | "contrast", view: PolicyBatch["teacher"]) =>
    checkDeviceScores(view, name, tokens, home, "policyLoss");
  const batch = {
    tokens,
    sequences,
    advantagesPerToken: advantages.count !== sequences,
    student: scores("student", student),
    teacher: scores("teacher", teacher),
    contrast: scores("contrast", contrast),
    tokenIds,
    cuSeqlens,
    completionMask,
    spanMask,
    advantages,
    old: values("oldLogProbs"),
    ref: values("refLogProbs"),
    sampler: values("samplerLogProbs"),
  };
  if (contrast !== undefined && teacher === undefined) {
    throw invalid("a teacher beside the contrast", "teacher", undefined);
  }
  const needsIds = Math.max(batch.student.level, batch.teacher.level, batch.contrast.level) > LEVEL_LOG_PROBS;
  if (needsIds || tokenIds !== undefined) checkI32(tokenIds, "tokenIds", tokens);
  return batch;
}

/** The device's tensors among the inputs. */
export function tensorsOf(b: DeviceBatch): DeviceTensor[] {
  const all = [b.student, b.teacher, b.contrast, b.advantages, b.old, b.ref, b.sampler];
  return all.map(({ tensor }) => tensor).filter((tensor) => tensor !== undefined);
}
