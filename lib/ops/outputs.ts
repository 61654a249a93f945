import { RlsdError } from "../errors.js";
import { DTYPE_CODES } from "../tensor/dtype.js";
import type { PolicyResult } from "../tensor/results.js";
import { empty, isTensor, type Tensor } from "../tensor/tensor.js";
import { lengthOf } from "../typed-array.js";
import { type Call, GRADIENT_OUTPUTS, TOKEN_OUTPUTS } from "./call.js";
import { invalid } from "./check.js";
import { type CheckedScores, LEVEL_HIDDEN, LEVEL_LOGITS } from "./scores.js";

/** (N) arrays that a call writes. */
interface TokenOutputs {
  readonly logProbs: Float32Array;
  readonly teacherLogProbs: Float32Array | undefined;
  readonly tokenAdvantages: Float32Array;
  readonly evidenceWeights: Float32Array;
  readonly gradientLogProbs: Float32Array;
}

/** The given arrays, and views of one new block for those not given. */
export function tokenOutputs(n: number, hasTeacher: boolean, out: Call["out"]): TokenOutputs {
  if (out === undefined) {
    const block = new ArrayBuffer(4 * n * (hasTeacher ? 5 : 4));
    return {
      logProbs: new Float32Array(block, 0, n),
      tokenAdvantages: new Float32Array(block, 4 * n, n),
      evidenceWeights: new Float32Array(block, 8 * n, n),
      gradientLogProbs: new Float32Array(block, 12 * n, n),
      teacherLogProbs: hasTeacher ? new Float32Array(block, 16 * n, n) : undefined,
    };
  }
  return {
    logProbs: out.logProbs ?? new Float32Array(n),
    tokenAdvantages: out.tokenAdvantages ?? new Float32Array(n),
    evidenceWeights: out.evidenceWeights ?? new Float32Array(n),
    gradientLogProbs: out.gradientLogProbs ?? new Float32Array(n),
    teacherLogProbs: hasTeacher ? (out.teacherLogProbs ?? new Float32Array(n)) : undefined,
  };
}

/** Results of a queued call land in memory that nobody else has, and are copied to the caller's arrays at its end. */
export function copyOut(out: TokenOutputs, given: Call["out"]): TokenOutputs {
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

function overlap(a: Float32Array, b: Float32Array): boolean {
  if (a.buffer !== b.buffer || a.length === 0) return false;
  return a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength;
}

/** Throws when two of the arrays share memory: a queued call would copy one result over the other. */
export function refuseOverlap(out: Call["out"]): void {
  const arrays = Object.entries(out ?? {}).filter((entry): entry is [string, Float32Array] =>
    ArrayBuffer.isView(entry[1]),
  );
  for (const [i, [name, array]] of arrays.entries()) {
    const other = arrays.slice(0, i).find(([, earlier]) => overlap(array, earlier));
    if (other === undefined) continue;
    const message = `Expected memory of its own for out.${name} but it overlaps out.${other[0]}.`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
}

/** Gradients of tensors; absent where the level has none or none is wanted. */
type Gradients = { readonly [K in (typeof GRADIENT_OUTPUTS)[number]]?: Tensor | undefined };

export interface GradientOutputs extends Gradients {
  /** The memory is new: rows that no token names must be zeroed. */
  readonly fresh: boolean;
}

const NO_GRADIENTS: GradientOutputs = { fresh: false };

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

/** The tensor given as out.<name>, checked against what it is the gradient of; else a new one. */
function gradientTensor(given: Tensor | undefined, of: Tensor, name: string, mayBeF32: boolean): Tensor {
  if (given === undefined) return empty(of.shape, of.dtype);
  const dtypeFits = isTensor(given) && (given.dtype === of.dtype || (mayBeF32 && given.dtype === "f32"));
  if (dtypeFits && sameShape(given.shape, of.shape)) return given;
  throw invalid(`a tensor of shape [${of.shape.join(", ")}] and dtype ${of.dtype}`, `out.${name}`, given);
}

function refuseUnused(call: Call, names: readonly (typeof GRADIENT_OUTPUTS)[number][], level: string): void {
  for (const name of names) {
    if (call.out?.[name] !== undefined)
      throw invalid(`no tensor, as the student is ${level},`, `out.${name}`, call.out[name]);
  }
}

/** Where the gradients of the student's own tensors go. */
export function gradientOutputs(student: CheckedScores, call: Call): GradientOutputs {
  if (call.inPlace && student.level !== LEVEL_LOGITS) {
    throw invalid("false, as only logits can be overwritten,", "inPlace", true);
  }
  if (student.level === LEVEL_LOGITS) return logitGradients(student.tensors[0] as Tensor, call);
  if (student.level === LEVEL_HIDDEN) return hiddenGradients(student, call);
  refuseUnused(call, GRADIENT_OUTPUTS, "log-probs");
  return NO_GRADIENTS;
}

function logitGradients(of: Tensor, call: Call): GradientOutputs {
  refuseUnused(call, ["hidden", "head", "bias"], "logits");
  const given = call.out?.logits;
  if (call.inPlace && given !== undefined) {
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", "Expected either inPlace or out.logits but received both.");
  }
  const logits = call.inPlace ? of : gradientTensor(given, of, "logits", false);
  return { logits, fresh: !call.inPlace && given === undefined };
}

function hiddenGradients({ tensors }: CheckedScores, call: Call): GradientOutputs {
  const [hidden, head, bias] = tensors as readonly [Tensor, Tensor, Tensor?];
  refuseUnused(call, ["logits"], "hidden states");
  const trainHead = call.frozenHead !== true;
  if (!trainHead) refuseUnused(call, ["head", "bias"], "hidden states under a frozen head");
  if (call.accumulate && trainHead && call.out?.head === undefined) {
    throw invalid("a tensor to add to", "out.head", undefined, "Without one there is nothing to accumulate into.");
  }
  return {
    hidden: gradientTensor(call.out?.hidden, hidden, "hidden", true),
    head: trainHead ? gradientTensor(call.out?.head, head, "head", true) : undefined,
    bias: trainHead && bias !== undefined ? gradientTensor(call.out?.bias, bias, "bias", true) : undefined,
    fresh: call.out?.hidden === undefined,
  };
}

export const gradientDtype = (t: Tensor | undefined): number => (t === undefined ? 0 : DTYPE_CODES[t.dtype]);

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The arrays of a call as its result. */
export function toResult(
  tokens: TokenOutputs,
  { logits, hidden, head, bias }: Gradients,
  stats: PolicyResult["stats"],
): PolicyResult {
  const gradient: Mutable<PolicyResult["gradient"]> = { logProbs: tokens.gradientLogProbs };
  if (logits !== undefined) gradient.logits = logits;
  if (hidden !== undefined) gradient.hidden = hidden;
  if (head !== undefined) gradient.head = head;
  if (bias !== undefined) gradient.bias = bias;
  const result: Mutable<PolicyResult> = {
    loss: stats.loss,
    logProbs: tokens.logProbs,
    tokenAdvantages: tokens.tokenAdvantages,
    evidenceWeights: tokens.evidenceWeights,
    gradient,
    stats,
  };
  if (tokens.teacherLogProbs !== undefined) result.teacherLogProbs = tokens.teacherLogProbs;
  return result;
}
