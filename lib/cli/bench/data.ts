/** Batches to time: numbers like those of training where the time depends on them, and quick to make. */
import type { PolicyOut } from "../../ops/call.js";
import { bf16Bits, f16Bits } from "../../rounding.js";
import type { DType } from "../../tensor/dtype.js";
import { empty, type Tensor, tensor } from "../../tensor/tensor.js";

export interface LogitsShape {
  readonly tokens: number;
  readonly vocab: number;
  readonly dtype: DType;
}

interface HeadShape extends LogitsShape {
  readonly hidden: number;
}

type Memory = Float32Array | Uint16Array;

export const bytesPerElement = (dtype: DType): number => (dtype === "f32" ? 4 : 2);

/** Numbers that are drawn; what is larger repeats them. A prime, so that no row begins where another does. */
const DRAWN = 1_048_573;

/** Uniform in [0, 1). */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Sums of four uniform numbers: quick, and near enough to normal for a clock. Deviation 1. */
function normal(seed: number): () => number {
  const next = uniform(seed);
  return () => (next() + next() + next() + next() - 2) * Math.sqrt(3);
}

/** Drawn numbers in the bits of a dtype. */
function pattern(count: number, dtype: DType, next: () => number): Memory {
  const drawn = Math.min(count, DRAWN);
  if (dtype === "f32") return Float32Array.from({ length: drawn }, next);
  const bits = dtype === "bf16" ? bf16Bits : f16Bits;
  return Uint16Array.from({ length: drawn }, () => bits(next()));
}

function repeat(data: Memory, drawn: Memory): void {
  for (let at = 0; at < data.length; at += drawn.length) {
    data.set(at + drawn.length <= data.length ? drawn : drawn.subarray(0, data.length - at), at);
  }
}

function filled(shape: readonly number[], dtype: DType, next: () => number): Tensor {
  const t = empty(shape, dtype);
  repeat(t.data, pattern(t.data.length, dtype, next));
  return t;
}

/** Logits between -4 and 4, again and again: a call in place leaves its gradient over them. */
export function logitsFiller({ tokens, vocab, dtype }: LogitsShape, seed: number): (logits: Tensor) => void {
  const next = uniform(seed);
  const drawn = pattern(tokens * vocab, dtype, () => 8 * next() - 4);
  return (logits) => repeat(logits.data, drawn);
}

export function makeLogits(shape: LogitsShape, seed: number): Tensor {
  const logits = empty([shape.tokens, shape.vocab], shape.dtype);
  logitsFiller(shape, seed)(logits);
  return logits;
}

/** The first elements of `memory` as logits of a narrower, or the same, dtype. */
export function viewLogits(memory: Tensor, { tokens, vocab, dtype }: LogitsShape): Tensor {
  const { buffer, byteOffset } = memory.data;
  const count = tokens * vocab;
  const view =
    dtype === "f32" ? new Float32Array(buffer, byteOffset, count) : new Uint16Array(buffer, byteOffset, count);
  return tensor(view, [tokens, vocab], dtype);
}

const tokenIdsOf = (tokens: number, vocab: number): Int32Array =>
  Int32Array.from({ length: tokens }, (_, i) => (i * 7919) % vocab);

/** At most `count` sequences of about the same length, advantages of both signs. */
function sequences(tokens: number, count: number) {
  const b = Math.max(1, Math.min(tokens, count));
  return {
    cuSeqlens: Int32Array.from({ length: b + 1 }, (_, i) => Math.floor((i * tokens) / b)),
    advantages: Float32Array.from({ length: b }, (_, i) => [1, -1, 0.5, -0.5][i % 4]!),
  };
}

/** All of a batch of logits but the logits. */
export const logitsRest = ({ tokens, vocab }: LogitsShape) => ({
  tokenIds: tokenIdsOf(tokens, vocab),
  ...sequences(tokens, 4),
});

export const logitsBatch = (shape: LogitsShape) => ({
  student: { logits: makeLogits(shape, 1) },
  teacher: { logits: makeLogits(shape, 2) },
  ...logitsRest(shape),
});

/** Hidden states of deviation 1 under the student, a little more under the teacher, and one head for both. */
export function headBatch({ tokens, vocab, hidden, dtype }: HeadShape) {
  const wide = normal(1);
  const head = filled([vocab, hidden], dtype, () => wide() / Math.sqrt(hidden));
  const states = (seed: number, scale: number) => {
    const next = normal(seed);
    return filled([tokens, hidden], dtype, () => scale * next());
  };
  return {
    student: { hidden: states(2, 1), head },
    teacher: { hidden: states(3, 1.01), head },
    tokenIds: tokenIdsOf(tokens, vocab),
    ...sequences(tokens, 4),
  };
}

/** A tensor whose pages are there. */
export function touched(shape: readonly number[], dtype: DType): Tensor {
  const t = empty(shape, dtype);
  t.data.fill(1);
  return t;
}

/** Log-probs of student, teacher and sampling time, in sequences of `length` tokens. */
export function logProbBatch(tokens: number, length: number) {
  const values = (seed: number) => {
    const next = uniform(seed);
    return Float32Array.from({ length: tokens }, () => -3 * next());
  };
  return {
    student: { logProbs: values(1) },
    teacher: { logProbs: values(2) },
    oldLogProbs: values(3),
    ...sequences(tokens, Math.ceil(tokens / length)),
  };
}

/** Memory for every result of a batch of log-probs. */
export function logProbOut(tokens: number): PolicyOut {
  const array = () => new Float32Array(tokens);
  return {
    logProbs: array(),
    teacherLogProbs: array(),
    tokenAdvantages: array(),
    evidenceWeights: array(),
    gradientLogProbs: array(),
  };
}
