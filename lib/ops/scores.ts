import { checkObject } from "../check.js";
import { DTYPE_CODES } from "../tensor/dtype.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";
import { checkI32, checkPositiveInteger, invalid, isF32, lengthOf, unshared } from "./check.js";

/**
 * One view of the same N tokens. `rows` (N) says which row of logits or hidden predicts token i, each at most once;
 * absent: row i. Columns at or beyond `vocabSize` are padding: p = 0, gradient 0.
 */
export type Scores =
  | { readonly logits: Tensor; readonly rows?: Int32Array | undefined; readonly vocabSize?: number | undefined }
  | {
      readonly hidden: Tensor;
      readonly head: Tensor;
      readonly bias?: Tensor | undefined;
      readonly rows?: Int32Array | undefined;
      readonly vocabSize?: number | undefined;
    }
  | { readonly logProbs: Float32Array | Tensor };

/** rlsd_level of csrc/include/rlsd/rlsd.h. */
export const LEVEL_ABSENT = 0;
export const LEVEL_LOG_PROBS = 1;
export const LEVEL_LOGITS = 2;
export const LEVEL_HIDDEN = 3;

export type TensorData = Float32Array | Uint16Array;

/** A view's arrays and sizes, as the native call takes them. */
export interface CheckedScores {
  readonly level: number;
  /** (N), (rows, vocab) or (rows, width) */
  readonly primary: TensorData | undefined;
  readonly head: TensorData | undefined;
  readonly bias: TensorData | undefined;
  readonly rowOf: Int32Array | undefined;
  readonly rows: number;
  readonly vocab: number;
  readonly width: number;
  readonly vocabSize: number;
  readonly dtype: number;
  readonly headDtype: number;
  readonly biasDtype: number;
  /** The tensors behind the arrays: each is leased while a call runs. */
  readonly tensors: readonly Tensor[];
}

const NONE: readonly Tensor[] = [];

export const ABSENT: CheckedScores = {
  level: LEVEL_ABSENT,
  primary: undefined,
  head: undefined,
  bias: undefined,
  rowOf: undefined,
  rows: 0,
  vocab: 0,
  width: 0,
  vocabSize: 0,
  dtype: 0,
  headDtype: 0,
  biasDtype: 0,
  tensors: NONE,
};

/** Fields of each kind of scores. */
export const LOGITS_FIELDS: ReadonlySet<string> = new Set(["logits", "rows", "vocabSize"]);
const HIDDEN_FIELDS: ReadonlySet<string> = new Set(["hidden", "head", "bias", "rows", "vocabSize"]);
export const LOG_PROBS_FIELDS: ReadonlySet<string> = new Set(["logProbs"]);

/** A tensor of that rank. */
export function checkTensor(value: unknown, name: string, rank: string, isRank: (rank: number) => boolean): Tensor {
  if (isTensor(value) && isRank(value.shape.length)) return value;
  throw invalid(`a tensor of shape ${rank}`, name, value);
}

const atLeastOne = (rank: number): boolean => rank >= 1;

/** Elements in front of the last dimension. */
export function leading(t: Tensor): number {
  return t.shape.slice(0, -1).reduce((a, b) => a * b, 1);
}

/** One row a token, unless it is said which; what was said. */
export function checkRows(
  given: Int32Array | undefined,
  name: string,
  tokens: number,
  available: number,
): Int32Array | undefined {
  const rows = unshared(given);
  if (rows !== undefined) {
    checkI32(rows, `${name}.rows`, tokens);
  } else if (available !== tokens) {
    throw invalid(`${tokens} rows, one a token`, name, available, "Say which row predicts each token with `rows`.");
  }
  return rows;
}

/** At most the columns; absent: all of them. */
export function checkVocabSize(vocabSize: number | undefined, name: string, vocab: number): number {
  if (vocabSize === undefined) return vocab;
  if (checkPositiveInteger(vocabSize, `${name}.vocabSize`) <= vocab) return vocabSize;
  throw invalid(`at most V = ${vocab}`, `${name}.vocabSize`, vocabSize);
}

function checkLogits(scores: Extract<Scores, { logits: Tensor }>, name: string, tokens: number): CheckedScores {
  checkObject(scores, name, LOGITS_FIELDS);
  const logits = checkTensor(scores.logits, `${name}.logits`, "(..., V)", atLeastOne);
  const vocab = logits.shape.at(-1) ?? 0;
  const rows = leading(logits);
  const rowOf = checkRows(scores.rows, name, tokens, rows);
  return {
    ...ABSENT,
    level: LEVEL_LOGITS,
    primary: logits.data,
    rowOf,
    rows,
    vocab,
    vocabSize: checkVocabSize(scores.vocabSize, name, vocab),
    dtype: DTYPE_CODES[logits.dtype],
    tensors: [logits],
  };
}

function checkHidden(scores: Extract<Scores, { hidden: Tensor }>, name: string, tokens: number): CheckedScores {
  checkObject(scores, name, HIDDEN_FIELDS);
  const hidden = checkTensor(scores.hidden, `${name}.hidden`, "(..., H)", atLeastOne);
  const width = hidden.shape.at(-1) ?? 0;
  const matches = (t: unknown): boolean => isTensor(t) && t.shape.length === 2 && t.shape[1] === width;
  const head = checkTensor(scores.head, `${name}.head`, `(V, ${width})`, () => matches(scores.head));
  const vocab = head.shape[0] ?? 0;
  const bias =
    scores.bias === undefined
      ? undefined
      : checkTensor(scores.bias, `${name}.bias`, `(${vocab})`, (r) => r === 1 && scores.bias?.shape[0] === vocab);
  const rows = leading(hidden);
  const rowOf = checkRows(scores.rows, name, tokens, rows);
  return {
    level: LEVEL_HIDDEN,
    primary: hidden.data,
    head: head.data,
    bias: bias?.data,
    rowOf,
    rows,
    vocab,
    width,
    vocabSize: checkVocabSize(scores.vocabSize, name, vocab),
    dtype: DTYPE_CODES[hidden.dtype],
    headDtype: DTYPE_CODES[head.dtype],
    biasDtype: bias === undefined ? 0 : DTYPE_CODES[bias.dtype],
    tensors: bias === undefined ? [hidden, head] : [hidden, head, bias],
  };
}

/** A Float32Array, or the memory of an f32 tensor. */
function checkLogProbs(scores: Extract<Scores, { logProbs: unknown }>, name: string, tokens: number): CheckedScores {
  checkObject(scores, name, LOG_PROBS_FIELDS);
  const given = scores.logProbs;
  const data = isTensor(given) && given.dtype === "f32" ? given.data : given;
  if (!isF32(data) || lengthOf(data) !== tokens) {
    throw invalid(`a Float32Array or an f32 tensor of ${tokens}`, `${name}.logProbs`, given);
  }
  return {
    level: LEVEL_LOG_PROBS,
    primary: data,
    head: undefined,
    bias: undefined,
    rowOf: undefined,
    rows: 0,
    vocab: 0,
    width: 0,
    vocabSize: 0,
    dtype: 0,
    headDtype: 0,
    biasDtype: 0,
    tensors: isTensor(given) ? [given] : NONE,
  };
}

/** Checks one view against the batch's N; throws ERR_RLSD_INVALID_ARGUMENT naming the field. */
export function checkScores(scores: Scores | undefined, name: string, tokens: number): CheckedScores {
  if (scores === undefined) return ABSENT;
  if (typeof scores !== "object" || scores === null) throw invalid("an object", name, scores);
  if ("logits" in scores) return checkLogits(scores, name, tokens);
  if ("hidden" in scores) return checkHidden(scores, name, tokens);
  if (!("logProbs" in scores)) throw invalid("{ logits }, { hidden, head } or { logProbs }", name, scores);
  return checkLogProbs(scores, name, tokens);
}

/** Writes a view's numbers where csrc/napi/op_call.h, read_scores, reads them. */
export function writeScores(meta: Float64Array, at: number, s: CheckedScores): void {
  meta[at] = s.level;
  meta[at + 1] = s.rows;
  meta[at + 2] = s.vocab;
  meta[at + 3] = s.width;
  meta[at + 4] = s.vocabSize;
  meta[at + 5] = s.dtype;
  meta[at + 6] = s.headDtype;
  meta[at + 7] = s.biasDtype;
}
