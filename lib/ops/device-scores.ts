import { RlsdError } from "../errors.js";
import type { DeviceValues } from "../native/device-binding.js";
import { DeviceTensor } from "../tensor/device.js";
import { DTYPE_CODES } from "../tensor/dtype.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";
import { lengthOf } from "../typed-array.js";
import { invalid, isF32 } from "./check.js";
import {
  checkColumns,
  checkKind,
  checkRows,
  checkVocabSize,
  kindOf,
  LEVEL_ABSENT,
  LEVEL_LOG_PROBS,
  LEVEL_LOGITS,
  type LogitScores,
  leading,
  type Scores,
} from "./scores.js";

/** The tensor by which a call runs on a device: that of the student's scores. */
export function homeOf(scores: Scores | undefined): DeviceTensor | undefined {
  if (typeof scores !== "object" || scores === null) return undefined;
  const { logits, hidden, logProbs } = scores as { logits?: unknown; hidden?: unknown; logProbs?: unknown };
  const first = logits ?? hidden ?? logProbs;
  return first instanceof DeviceTensor ? first : undefined;
}

/** What a device does not compute, and the way out. */
export function unsupported(what: string, lack: string, mend = "Pass"): RlsdError {
  const message = `There is no ${what}: the cuda backend has ${lack} yet. ${mend} tensors of the CPU (toHost).`;
  return new RlsdError("ERR_RLSD_UNSUPPORTED", message);
}

/** The tensor, when it lies on the call's device; "mixed devices" is this error. */
export function checkHome(value: unknown, name: string, home: DeviceTensor): DeviceTensor {
  if (value instanceof DeviceTensor && value.device === home.device) return value;
  throw invalid(`a tensor on ${home.device}, where the call runs,`, name, value);
}

const isVector = (t: Tensor, counts: readonly number[]): boolean =>
  t.dtype === "f32" && counts.includes(t.shape.reduce((a, b) => a * b, 1));

/** An (N) f32 tensor on the call's device. */
export function checkDeviceVector(value: unknown, name: string, n: number, home: DeviceTensor): DeviceTensor {
  const t = checkHome(value, name, home);
  if (isVector(t, [n])) return t;
  throw invalid(`an f32 tensor of ${n} elements`, name, value);
}

/** (N) values of the host or on the call's device, and how many they are. */
export interface CheckedValues {
  readonly values: DeviceValues | undefined;
  readonly count: number;
  readonly tensor: DeviceTensor | undefined;
}

const ABSENT_VALUES: CheckedValues = { values: undefined, count: 0, tensor: undefined };

/** A Float32Array, an f32 tensor of the CPU, which is copied up as well, or one of the device; of one of the counts. */
export function checkValues(
  value: Float32Array | Tensor | undefined,
  name: string,
  counts: readonly number[],
  home: DeviceTensor,
): CheckedValues {
  if (value === undefined) return ABSENT_VALUES;
  if (isF32(value) && counts.includes(lengthOf(value))) {
    return { values: value, count: lengthOf(value), tensor: undefined };
  }
  const expected = `a Float32Array or an f32 tensor of ${[...new Set(counts)].join(" or ")}`;
  if (!isTensor(value) || !isVector(value, counts)) throw invalid(expected, name, value);
  if (value.device === "cpu") {
    const data = value.data as Float32Array;
    return { values: data, count: data.length, tensor: undefined };
  }
  const tensor = checkHome(value, name, home);
  return { values: tensor.handle, count: tensor.shape.reduce((a, b) => a * b, 1), tensor };
}

/** A view's arrays and sizes, as the native call takes them. */
export interface DeviceScores {
  readonly level: number;
  readonly primary: DeviceValues | undefined;
  readonly rowOf: Int32Array | undefined;
  readonly rows: number;
  readonly vocab: number;
  readonly vocabSize: number;
  readonly dtype: number;
  readonly tensor: DeviceTensor | undefined;
}

const ABSENT: DeviceScores = {
  level: LEVEL_ABSENT,
  primary: undefined,
  rowOf: undefined,
  rows: 0,
  vocab: 0,
  vocabSize: 0,
  dtype: 0,
  tensor: undefined,
};

function checkLogits(scores: LogitScores, name: string, tokens: number, home: DeviceTensor): DeviceScores {
  checkKind(scores, name, "logits");
  const { logits: given, rows: rowOf, vocabSize } = scores;
  const logits = checkHome(checkColumns(given, `${name}.logits`, "V"), `${name}.logits`, home);
  const rows = leading(logits);
  const vocab = logits.shape.at(-1) ?? 0;
  checkRows(rowOf, name, tokens, logits, "logits");
  return {
    level: LEVEL_LOGITS,
    primary: logits.handle,
    rowOf,
    rows,
    vocab,
    vocabSize: checkVocabSize(vocabSize, name, vocab),
    dtype: DTYPE_CODES[logits.dtype],
    tensor: logits,
  };
}

/** Checks one view against the batch's N. `op` is named where the device does not serve the view's level. */
export function checkDeviceScores(
  scores: Scores | undefined,
  name: string,
  tokens: number,
  home: DeviceTensor,
  op: string,
): DeviceScores {
  if (scores === undefined) return ABSENT;
  if (typeof scores !== "object" || scores === null) throw invalid("an object", name, scores);
  const kind = kindOf(scores);
  if (kind === "logits") return checkLogits(scores as LogitScores, name, tokens, home);
  if (kind === "hidden") {
    throw unsupported(`${op} on ${home.device} of hidden states (${name})`, "no LM head", "Pass logits, or");
  }
  if (kind === undefined) throw invalid("{ logits } or { logProbs }", name, scores);
  checkKind(scores, name, "logProbs");
  const { values, tensor } = checkValues(scores.logProbs, `${name}.logProbs`, [tokens], home);
  if (values === undefined) throw invalid("a Float32Array or an f32 tensor", `${name}.logProbs`, undefined);
  return { ...ABSENT, level: LEVEL_LOG_PROBS, primary: values, tensor };
}

/** Writes a view's numbers where csrc/napi/device_call.h, scores, reads them. */
export function writeDeviceScores(meta: Float64Array, at: number, s: DeviceScores): void {
  meta.set([s.level, s.rows, s.vocab, s.vocabSize, s.dtype], at);
}
