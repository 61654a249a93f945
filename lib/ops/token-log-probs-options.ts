import { checkBoolean, checkNumber, checkObject, checkWord, DIVISOR } from "../check.js";
import type { ObjectiveFields } from "../objectives/objective.js";
import type { Stream } from "../tensor/stream.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkPositiveInteger, checkU8, unshared } from "./check.js";

/** Every field is optional. */
export interface TokenLogProbsOptions {
  /** Divides the logits. Default 1. */
  readonly temperature?: number | undefined;
  /** Also return the entropies. Default false. */
  readonly entropy?: boolean | undefined;
  /** (N) of 0 and 1; default all 1. A masked token is never read and gets exactly 0. */
  readonly completionMask?: Uint8Array | undefined;
  /** z -> softcap * tanh(z / softcap). null, the default: off. */
  readonly logitSoftcap?: ObjectiveFields["logitSoftcap"] | undefined;
  /** Default "none". */
  readonly logitRounding?: ObjectiveFields["logitRounding"] | undefined;
  /** "skip": a bad row's log-prob is left NaN or -inf. "error", the default: the call fails after it finished. */
  readonly nonFinite?: ObjectiveFields["nonFinite"] | undefined;
  /** Threads of the pool to use at most; default all. Results do not depend on it, bit for bit. */
  readonly threads?: number | undefined;
  /** As in `Call`. */
  readonly signal?: AbortSignal | undefined;
  /** As in `Call`. */
  readonly stream?: Stream | undefined;
  /** Default "host". "device": `DeviceTokenLogProbsOptions`. */
  readonly results?: "host" | undefined;
}

/** Scores on a device whose results stay there: the call is enqueued, and nothing waits for it. */
export interface DeviceTokenLogProbsOptions extends Omit<TokenLogProbsOptions, "results"> {
  /** Results stay on the device, and nothing waits for them. */
  readonly results: "device";
}

/** As TokenLogProbs, each a tensor on the call's device. */
export interface DeviceTokenLogProbs extends Disposable {
  /** (N), f32 */
  readonly logProbs: Tensor<"f32">;
  /** (N), f32; with `entropy`. */
  readonly entropy?: Tensor<"f32">;
  /** Waits for the call without blocking this thread. Throws what it found wrong, as `toHost` of its results does. */
  check(): Promise<void>;
}

/** What `tokenLogProbs` returns. */
export interface TokenLogProbs {
  /** (N): log P of each token, at most 0; exactly 0 where masked. */
  readonly logProbs: Float32Array;
  /** (N): entropy in nats of the distribution that each token was drawn from. */
  readonly entropy?: Float32Array;
}

const FIELDS: ReadonlySet<string> = new Set([
  "temperature",
  "entropy",
  "completionMask",
  "logitSoftcap",
  "logitRounding",
  "nonFinite",
  "threads",
  "signal",
  "stream",
  "results",
]);

const ROUNDINGS = ["none", "bf16"] as const;
const NON_FINITE = ["error", "skip"] as const;

/** Each field read once and checked, all but where it runs: what is checked is what is used. */
export function readOptions<T extends TokenLogProbsOptions | DeviceTokenLogProbsOptions>(given: T, tokens: number): T {
  checkObject(given, "options", FIELDS);
  const { temperature, entropy, logitSoftcap, logitRounding, nonFinite, threads, signal, stream, results } = given;
  const completionMask = unshared(given.completionMask);
  checkNumber(temperature ?? 1, "temperature", DIVISOR);
  checkNumber(logitSoftcap ?? 1, "logitSoftcap", DIVISOR);
  checkWord(logitRounding ?? "none", "logitRounding", ROUNDINGS);
  checkWord(nonFinite ?? "error", "nonFinite", NON_FINITE);
  checkBoolean(entropy, "entropy");
  if (completionMask !== undefined) checkU8(completionMask, "completionMask", tokens);
  if (threads !== undefined) checkPositiveInteger(threads, "threads");
  const how = { threads, signal, stream, results };
  return { temperature, entropy, completionMask, logitSoftcap, logitRounding, nonFinite, ...how } as T;
}

/** Memory for the results of a call whose caller wants them on the host. */
export function hostResults(tokens: number, { entropy }: { readonly entropy?: boolean | undefined }): TokenLogProbs {
  const logProbs = new Float32Array(tokens);
  return entropy === true ? { logProbs, entropy: new Float32Array(tokens) } : { logProbs };
}
