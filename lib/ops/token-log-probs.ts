import { native } from "../native/load.js";
import { throwUnlessOk } from "../native/status.js";
import type { ObjectiveFields } from "../objectives/objective.js";
import { checkAllFree, type MemoryUse } from "../tensor/lease.js";
import {
  checkFinite,
  checkI32,
  checkObject,
  checkPositiveInteger,
  checkU8,
  invalid,
  isI32,
  lengthOf,
} from "./check.js";
import { runQueued } from "./queued.js";
import { type CheckedScores, checkScores, LEVEL_LOG_PROBS, type Scores, writeScores } from "./scores.js";

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
}

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
]);

/** Places of the numbers in meta: csrc/napi/token_log_probs.cc, enum Meta. */
const VIEW = 8;
const META_COUNT = VIEW + 8;

interface Plan {
  readonly scores: CheckedScores;
  readonly tokenIds: Int32Array;
  readonly options: TokenLogProbsOptions;
  readonly out: TokenLogProbs;
  readonly use: MemoryUse;
}

function checkPositive(value: number | null | undefined, name: string): void {
  if (value === undefined || value === null) return;
  if (checkFinite(value, name) <= 0) throw invalid("a number above 0", name, value);
}

function checkWord(value: unknown, name: string, words: readonly string[]): void {
  if (value === undefined || words.includes(value as string)) return;
  throw invalid(words.map((word) => `"${word}"`).join(" or "), name, value);
}

function checkOptions(o: TokenLogProbsOptions, tokens: number): void {
  checkObject(o, "options", FIELDS);
  checkPositive(o.temperature, "temperature");
  checkPositive(o.logitSoftcap, "logitSoftcap");
  checkWord(o.logitRounding, "logitRounding", ["none", "bf16"]);
  checkWord(o.nonFinite, "nonFinite", ["error", "skip"]);
  if (o.entropy !== undefined && typeof o.entropy !== "boolean") throw invalid("a boolean", "entropy", o.entropy);
  if (o.completionMask !== undefined) checkU8(o.completionMask, "completionMask", tokens);
  if (o.threads !== undefined) checkPositiveInteger(o.threads, "threads");
  if (o.signal === undefined) return;
  if (!(o.signal instanceof AbortSignal)) throw invalid("an AbortSignal", "signal", o.signal);
  o.signal.throwIfAborted();
}

function plan(scores: Scores, tokenIds: Int32Array, options: TokenLogProbsOptions): Plan {
  const tokens = isI32(tokenIds) ? lengthOf(tokenIds) : 0;
  checkI32(tokenIds, "tokenIds", tokens);
  const checked = checkScores(scores, "scores", tokens);
  if (checked.level <= LEVEL_LOG_PROBS) throw invalid("{ logits } or { hidden, head }", "scores", scores);
  checkOptions(options, tokens);
  const logProbs = new Float32Array(tokens);
  const out = options.entropy === true ? { logProbs, entropy: new Float32Array(tokens) } : { logProbs };
  return {
    scores: checked,
    tokenIds,
    options,
    out,
    use: { reads: checked.tensors.map((t) => t.data), writes: [] },
  };
}

function call({ scores, tokenIds, options, out }: Plan, queued: boolean, flags?: Int32Array) {
  const meta = new Float64Array(META_COUNT);
  meta[1] = Number(queued);
  meta[2] = out.logProbs.length;
  meta[3] = options.threads ?? 0;
  meta[4] = options.temperature ?? 1;
  meta[5] = options.logitSoftcap ?? 0;
  meta[6] = Number(options.logitRounding === "bf16");
  meta[7] = Number(options.nonFinite === "skip");
  writeScores(meta, VIEW, scores);
  const { primary, head, bias, rowOf } = scores;
  const { completionMask } = options;
  return native.tokenLogProbs(
    meta,
    tokenIds,
    completionMask,
    primary,
    head,
    bias,
    rowOf,
    out.logProbs,
    out.entropy,
    flags,
  );
}

/**
 * Log-probs of given tokens, and the entropies of the distributions they were drawn from, in one native call.
 *
 *   log P_t = s_y - log sum_v e^(s_v)    H_t = -sum_v p_v log p_v    s = f(z) / temperature, f: rounding, then softcap
 *
 * @param scores logits (..., V), or hidden states (..., H) with their head (V, H)
 * @param tokenIds (N)
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT before anything is computed; ERR_RLSD_NON_FINITE after the call, with the
 *   first bad token (`index`) and how many (`count`), unless `nonFinite` is "skip"; ERR_RLSD_BUSY while a queued call
 *   writes the tensors
 */
export function tokenLogProbsSync(
  scores: Scores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions = {},
): TokenLogProbs {
  const p = plan(scores, tokenIds, options);
  checkAllFree(p.use);
  throwUnlessOk(call(p, false) as number);
  return p.out;
}

/** `tokenLogProbsSync` on the process's native queue. Rejects with the signal's reason when it is aborted. */
export async function tokenLogProbs(
  scores: Scores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions = {},
): Promise<TokenLogProbs> {
  const p = plan(scores, tokenIds, options);
  await runQueued((flags) => call(p, true, flags), p.use, options.signal);
  return p.out;
}
