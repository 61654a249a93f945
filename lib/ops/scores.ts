import { checkObject, isObject, mendFor, unknownName } from "../check.js";
import { DTYPE_CODES, type DType } from "../tensor/dtype.js";
import { isTensor, type Tensor } from "../tensor/tensor.js";
import { lengthOf, typedArrayName } from "../typed-array.js";
import { checkI32, checkPositiveInteger, invalid, isF32, unshared } from "./check.js";

/** One view of the same N tokens: whole distributions, or the log-probs of the tokens. */
export type Scores = DistributionScores | LogProbScores;

/** A view of whole distributions: logits, or hidden states with their head. */
export type DistributionScores = LogitScores | HiddenScores;

type Field = "logits" | "hidden" | "head" | "bias" | "logProbs" | "rows" | "vocabSize";
/** A view with these fields and none of the other kinds'. */
type Kind<T> = T & { readonly [K in Exclude<Field, keyof T>]?: undefined };

interface Rows {
  /** (N): which row predicts token i, each at most once. Absent: row i, and there are N of them. */
  readonly rows?: Int32Array | undefined;
  /** Columns at or beyond it are padding: p = 0, gradient 0. Default: V, there is none. */
  readonly vocabSize?: number | undefined;
}

interface Logits<D extends DType> extends Rows {
  /** (..., V): a row of logits a token, at temperature 1. */
  readonly logits: Tensor<D>;
}

interface Hidden<D extends DType> extends Rows {
  /** (..., H): a row a token, as the head reads it. */
  readonly hidden: Tensor<D>;
  /** (V, H): the logits are hidden head^T + bias. */
  readonly head: Tensor<D>;
  /** (V). Default: none. */
  readonly bias?: Tensor | undefined;
}

interface LogProbs {
  /** (N): of the tokens themselves, at the temperature that they were drawn with. */
  readonly logProbs: Float32Array | Tensor;
}

export type LogitScores<D extends DType = DType> = Kind<Logits<D>>;

export type HiddenScores<D extends DType = DType> = Kind<Hidden<D>>;

type LogProbScores = Kind<LogProbs>;

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

const ABSENT: CheckedScores = {
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

const KINDS = ["logits", "hidden", "logProbs"] as const;
type Kinds = (typeof KINDS)[number];
const KIND_FIELDS = {
  logits: new Set(["logits", "rows", "vocabSize"]),
  hidden: new Set(["hidden", "head", "bias", "rows", "vocabSize"]),
  logProbs: new Set(["logProbs"]),
} as const satisfies Record<Kinds, ReadonlySet<string>>;
const FIELDS: ReadonlySet<string> = new Set(Object.values(KIND_FIELDS).flatMap((fields) => [...fields]));

/** The kind of a view: by what it holds, else by what it names; undefined: none. Written out, as every call asks. */
export function kindOf(scores: unknown): Kinds | undefined {
  if (typeof scores !== "object" || scores === null) return undefined;
  const { logProbs, logits, hidden } = scores as Scores;
  if (logits !== undefined) return "logits";
  if (hidden !== undefined) return "hidden";
  if (logProbs !== undefined) return "logProbs";
  return KINDS.find((kind) => kind in scores);
}

const ANY_KIND = "{ logits }, { hidden, head } or { logProbs }";

/** A view of some kind. `expected` says which. */
export function requireKind(scores: unknown, name: string, expected = ANY_KIND): Kinds {
  const kind = kindOf(scores);
  if (kind !== undefined) return kind;
  const bare = isTensor(scores) || typedArrayName(scores) !== undefined;
  if (!bare && isObject(scores)) checkObject(scores, name, FIELDS);
  throw invalid(expected, name, scores, bare ? "Say what it holds, by one of these names." : "");
}

/** Fields of other kinds may be there when they are undefined, as in what `condition ? { logits } : { logProbs }` is. */
export function checkKind(scores: Scores, name: string, kind: Kinds): void {
  const known: ReadonlySet<string> = KIND_FIELDS[kind];
  for (const key in scores) {
    if (known.has(key) || (FIELDS.has(key) && scores[key as Field] === undefined)) continue;
    throw unknownName(`field ${name}.${key}`, key, known);
  }
}

/** A tensor of that rank. */
function checkTensor(value: unknown, name: string, rank: string, isRank: (rank: number) => boolean): Tensor {
  if (isTensor(value) && isRank(value.shape.length)) return value;
  const list = Array.isArray(value) || typedArrayName(value) !== undefined;
  throw invalid(`a tensor of shape ${rank}`, name, value, list ? "Make one with tensor(data, shape)." : "");
}

const atLeastOne = (rank: number): boolean => rank >= 1;

/** A tensor whose last dimension, called by `letter`, has elements. */
export function checkColumns(value: unknown, name: string, letter: "V" | "H"): Tensor {
  const t = checkTensor(value, name, `(..., ${letter})`, atLeastOne);
  if (t.shape.at(-1) !== 0) return t;
  throw invalid(`a tensor of shape (..., ${letter}) with ${letter} at least 1`, name, value);
}

/** Elements in front of the last dimension. */
export function leading(t: Tensor): number {
  return t.shape.slice(0, -1).reduce((a, b) => a * b, 1);
}

/** One row a token, unless it is said which; what was said. `t` is called `of`. */
export function checkRows(
  given: Int32Array | undefined,
  name: string,
  tokens: number,
  t: Tensor,
  of: "logits" | "hidden",
): Int32Array | undefined {
  const rows = unshared(given);
  if (rows !== undefined) {
    checkI32(rows, `${name}.rows`, tokens);
  } else if (leading(t) !== tokens) {
    const last = of === "logits" ? "V" : "H";
    const turned = t.shape.at(-1) === tokens ? `Its last dimension has to be ${last}: it seems to be transposed. ` : "";
    const mend = `${turned}Where there are other rows too, say which one predicts each token with \`rows\`.`;
    throw invalid(`a tensor of N = ${tokens} rows, one a token,`, `${name}.${of}`, t, mend);
  }
  return rows;
}

/** At most the columns; absent: all of them. */
export function checkVocabSize(vocabSize: number | undefined, name: string, vocab: number): number {
  if (vocabSize === undefined) return vocab;
  if (checkPositiveInteger(vocabSize, `${name}.vocabSize`) <= vocab) return vocabSize;
  throw invalid(`at most V = ${vocab}`, `${name}.vocabSize`, vocabSize);
}

function checkLogits(scores: LogitScores, name: string, tokens: number): CheckedScores {
  checkKind(scores, name, "logits");
  const logits = checkColumns(scores.logits, `${name}.logits`, "V");
  const vocab = logits.shape.at(-1) ?? 0;
  const rows = leading(logits);
  const rowOf = checkRows(scores.rows, name, tokens, logits, "logits");
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

function checkHidden(scores: HiddenScores, name: string, tokens: number): CheckedScores {
  checkKind(scores, name, "hidden");
  const hidden = checkColumns(scores.hidden, `${name}.hidden`, "H");
  const width = hidden.shape.at(-1) ?? 0;
  const matches = (t: unknown): boolean =>
    isTensor(t) && t.shape.length === 2 && t.shape[0] !== 0 && t.shape[1] === width;
  const head = checkTensor(scores.head, `${name}.head`, `(V, ${width})`, () => matches(scores.head));
  const vocab = head.shape[0] ?? 0;
  const bias =
    scores.bias === undefined
      ? undefined
      : checkTensor(scores.bias, `${name}.bias`, `(${vocab})`, (r) => r === 1 && scores.bias?.shape[0] === vocab);
  const rows = leading(hidden);
  const rowOf = checkRows(scores.rows, name, tokens, hidden, "hidden");
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
function checkLogProbs(scores: LogProbScores, name: string, tokens: number): CheckedScores {
  checkKind(scores, name, "logProbs");
  const given = scores.logProbs;
  const data = isTensor(given) && given.dtype === "f32" ? given.data : given;
  if (!isF32(data) || lengthOf(data) !== tokens) {
    const mend = mendFor(given, "Float32Array");
    throw invalid(`a Float32Array or an f32 tensor of ${tokens}`, `${name}.logProbs`, given, mend);
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
  switch (requireKind(scores, name)) {
    case "logits":
      return checkLogits(scores as LogitScores, name, tokens);
    case "hidden":
      return checkHidden(scores as HiddenScores, name, tokens);
    case "logProbs":
      return checkLogProbs(scores as LogProbScores, name, tokens);
  }
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
