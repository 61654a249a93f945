import { checkBoolean, checkObject, checkSignal } from "../check.js";
import type { Stream } from "../tensor/stream.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkF32, checkFinite, checkPositiveInteger, invalid } from "./check.js";
import { LEVEL_HIDDEN } from "./scores.js";

/** Memory to write instead of allocating. The first four are gradients; the others are the results of the same name. */
export interface PolicyOut {
  /** Shape of the logits. */
  readonly logits?: Tensor | undefined;
  /** Shape of the hidden states; may be f32. */
  readonly hidden?: Tensor | undefined;
  /** (V, H); may be f32 for a bf16 or f16 head. */
  readonly head?: Tensor | undefined;
  /** (V) */
  readonly bias?: Tensor | undefined;
  /** (N) */
  readonly logProbs?: Float32Array | undefined;
  /** (N); left as it is without a teacher. */
  readonly teacherLogProbs?: Float32Array | undefined;
  /** (N) */
  readonly tokenAdvantages?: Float32Array | undefined;
  /** (N) */
  readonly evidenceWeights?: Float32Array | undefined;
  /** (N): gradient.logProbs */
  readonly gradientLogProbs?: Float32Array | undefined;
}

/** How a call runs and where it writes. */
export interface Call {
  /**
   * Before the call starts: nothing is written. During a queued call it is polled a block of rows at a time. A device's
   * work has started when the call returns and cannot be stopped: the call then rejects when that work is done.
   */
  readonly signal?: AbortSignal | undefined;
  /** Threads of the pool to use at most; default all. Results do not depend on it, bit for bit. */
  readonly threads?: number | undefined;
  /** Device tensors only: the stream to order the work on; default the device's default stream. */
  readonly stream?: Stream | undefined;
  /** Write the gradient over the student's logits. */
  readonly inPlace?: boolean | undefined;
  /** Written instead of allocated. None may overlap another, or what is read. */
  readonly out?: PolicyOut | undefined;
  /** Add to out.head and out.bias instead of overwriting them. For hidden states. */
  readonly accumulate?: boolean | undefined;
  /** Multiplies every gradient, not the loss. Default 1. What exceeds the gradient's dtype (f16: 65504) is infinite there. */
  readonly lossScale?: number | undefined;
  /** No gradient of head and bias. For hidden states. */
  readonly frozenHead?: boolean | undefined;
  /**
   * Do not read rows whose gradient is known to be 0 (A = 0, no KL, no entropy bonus): their log-probs are 0, and
   * stats.skippedRows counts them. Default false: they are scored, so that every result is complete. Log-probs that are given
   * are there already, and none is skipped.
   */
  readonly skipZeroRows?: boolean | undefined;
  /** Default "host". "device": `DeviceCall`. */
  readonly results?: "host" | undefined;
}

/** Of a call whose gradient has that of the head. */
export interface TrainedHead {
  readonly frozenHead?: false | undefined;
}

/** Tensors on the call's device to write instead of allocating: (N) f32 each, but for the gradient of the logits. */
export type DevicePolicyOut = { readonly [K in Exclude<keyof PolicyOut, "hidden" | "head" | "bias">]?: Tensor };

/** A call on device tensors whose results stay there: it is enqueued, and nothing waits for it. */
export interface DeviceCall extends Omit<Call, "results" | "out"> {
  /** Results stay on the device, and nothing waits for them. */
  readonly results: "device";
  /** Written instead of allocated. None may overlap another, or what is read. */
  readonly out?: DevicePolicyOut | undefined;
}

const CALL_FIELDS: ReadonlySet<string> = new Set([
  "signal",
  "threads",
  "stream",
  "inPlace",
  "out",
  "accumulate",
  "lossScale",
  "frozenHead",
  "skipZeroRows",
  "results",
]);

/** Gradients of a student's tensors. */
export const GRADIENT_OUTPUTS = ["logits", "hidden", "head", "bias"] as const;

/** Results of N numbers. */
export const TOKEN_OUTPUTS = [
  "logProbs",
  "teacherLogProbs",
  "tokenAdvantages",
  "evidenceWeights",
  "gradientLogProbs",
] as const;

const OUT_FIELDS: ReadonlySet<string> = new Set([...GRADIENT_OUTPUTS, ...TOKEN_OUTPUTS]);

/** Each field read once, so that what is checked is what is used. */
function readOut(given: PolicyOut): PolicyOut {
  checkObject(given, "out", OUT_FIELDS);
  const { logits, hidden, head, bias } = given;
  const { logProbs, teacherLogProbs, tokenAdvantages, evidenceWeights, gradientLogProbs } = given;
  return {
    logits,
    hidden,
    head,
    bias,
    logProbs,
    teacherLogProbs,
    tokenAdvantages,
    evidenceWeights,
    gradientLogProbs,
  } as PolicyOut;
}

/** Each field read once. */
export function readCall(given: Call): Call {
  checkObject(given, "call", CALL_FIELDS);
  const { signal, threads, stream, inPlace, out, accumulate, lossScale, frozenHead, skipZeroRows, results } = given;
  const checked = out === undefined ? undefined : readOut(out);
  return {
    signal,
    threads,
    stream,
    inPlace,
    out: checked,
    accumulate,
    lossScale,
    frozenHead,
    skipZeroRows,
    results,
  };
}

/** The (N) arrays of the host. */
export function checkOut(out: PolicyOut, tokens: number): void {
  if (out.logProbs !== undefined) checkF32(out.logProbs, "out.logProbs", tokens);
  if (out.teacherLogProbs !== undefined) checkF32(out.teacherLogProbs, "out.teacherLogProbs", tokens);
  if (out.tokenAdvantages !== undefined) checkF32(out.tokenAdvantages, "out.tokenAdvantages", tokens);
  if (out.evidenceWeights !== undefined) checkF32(out.evidenceWeights, "out.evidenceWeights", tokens);
  if (out.gradientLogProbs !== undefined) checkF32(out.gradientLogProbs, "out.gradientLogProbs", tokens);
}

/** What a call says in booleans and numbers, wherever it runs. */
export function checkFlags(call: Call | DeviceCall): void {
  checkBoolean(call.inPlace, "inPlace");
  checkBoolean(call.accumulate, "accumulate");
  checkBoolean(call.frozenHead, "frozenHead");
  checkBoolean(call.skipZeroRows, "skipZeroRows");
  if (call.threads !== undefined) checkPositiveInteger(call.threads, "threads");
  if (call.lossScale !== undefined) checkFinite(call.lossScale, "lossScale");
}

function refuseTrue(name: keyof Call, why: string): never {
  throw invalid(`false, as ${why},`, name, true);
}

/** What a call asks for that a student of this level (scores.ts) has no use for. */
export function refuseUseless(call: Call | DeviceCall, student: number): void {
  if (call.accumulate && student !== LEVEL_HIDDEN) refuseTrue("accumulate", "only gradients of a head are added to");
  if (call.accumulate && call.frozenHead) refuseTrue("accumulate", "the head is frozen");
  if (call.frozenHead && student !== LEVEL_HIDDEN) refuseTrue("frozenHead", "the student has no head");
}

/** The call as it was read, types and lengths checked; throws the signal's reason when it is aborted already. */
export function checkCall(given: Call, tokens: number): Call {
  const call = readCall(given);
  checkFlags(call);
  if (call.results !== undefined && (call.results as string) !== "host") {
    throw invalid('"host", as no tensor of the batch is on a device,', "results", call.results);
  }
  if (call.stream !== undefined)
    throw invalid("no stream, as no tensor of the batch is on a device,", "stream", call.stream);
  if (call.out !== undefined) checkOut(call.out, tokens);
  checkSignal(call.signal);
  call.signal?.throwIfAborted();
  return call;
}
