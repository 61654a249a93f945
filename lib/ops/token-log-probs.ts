import { checkSignal, checkWord, mendFor } from "../check.js";
import { native } from "../native/load.js";
import { throwUnlessOk } from "../native/status.js";
import { checkAllFree, type MemoryUse } from "../tensor/lease.js";
import { lengthOf } from "../typed-array.js";
import { invalid, isI32, unshared } from "./check.js";
import { homeOf } from "./device-scores.js";
import { deviceTokenLogProbs, deviceTokenLogProbsSync } from "./device-token-log-probs.js";
import { runQueued } from "./queued.js";
import {
  type CheckedScores,
  checkScores,
  type DistributionScores,
  LEVEL_LOG_PROBS,
  requireKind,
  writeScores,
} from "./scores.js";
import {
  type DeviceTokenLogProbs,
  type DeviceTokenLogProbsOptions,
  hostResults,
  readOptions,
  type TokenLogProbs,
  type TokenLogProbsOptions,
} from "./token-log-probs-options.js";

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

function readHostOptions(given: TokenLogProbsOptions, tokens: number): TokenLogProbsOptions {
  const o = readOptions(given, tokens);
  if (o.results !== undefined) checkWord(o.results, "results", ["host"]);
  if (o.stream !== undefined) throw invalid("no stream, as the scores are not on a device,", "stream", o.stream);
  checkSignal(o.signal);
  o.signal?.throwIfAborted();
  return o;
}

function plan(scores: DistributionScores, ids: Int32Array, given: TokenLogProbsOptions): Plan {
  const tokenIds = unshared(ids);
  requireKind(scores, "scores", "{ logits } or { hidden, head }");
  if (!isI32(tokenIds))
    throw invalid("an Int32Array of token ids", "tokenIds", tokenIds, mendFor(tokenIds, "Int32Array"));
  const tokens = lengthOf(tokenIds);
  const checked = checkScores(scores, "scores", tokens);
  if (checked.level <= LEVEL_LOG_PROBS) throw invalid("{ logits } or { hidden, head }", "scores", scores);
  const options = readHostOptions(given, tokens);
  return {
    scores: checked,
    tokenIds,
    options,
    out: hostResults(tokens, options),
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
  return native.tokenLogProbs(
    meta,
    tokenIds,
    options.completionMask,
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
  scores: DistributionScores,
  tokenIds: Int32Array,
  options: DeviceTokenLogProbsOptions,
): DeviceTokenLogProbs;
export function tokenLogProbsSync(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions & { readonly entropy: true },
): Required<TokenLogProbs>;
export function tokenLogProbsSync(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options?: TokenLogProbsOptions,
): TokenLogProbs;
export function tokenLogProbsSync(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions | DeviceTokenLogProbsOptions = {},
): TokenLogProbs | DeviceTokenLogProbs {
  const home = homeOf(scores);
  if (home !== undefined) return deviceTokenLogProbsSync(home, scores, tokenIds, options);
  const p = plan(scores, tokenIds, options as TokenLogProbsOptions);
  checkAllFree(p.use);
  throwUnlessOk(call(p, false) as number);
  return p.out;
}

/** `tokenLogProbsSync` on the process's native queue. Rejects with the signal's reason when it is aborted. */
export async function tokenLogProbs(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options: DeviceTokenLogProbsOptions,
): Promise<DeviceTokenLogProbs>;
export async function tokenLogProbs(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions & { readonly entropy: true },
): Promise<Required<TokenLogProbs>>;
export async function tokenLogProbs(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options?: TokenLogProbsOptions,
): Promise<TokenLogProbs>;
export async function tokenLogProbs(
  scores: DistributionScores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions | DeviceTokenLogProbsOptions = {},
): Promise<TokenLogProbs | DeviceTokenLogProbs> {
  const home = homeOf(scores);
  if (home !== undefined) return await deviceTokenLogProbs(home, scores, tokenIds, options);
  const p = plan(scores, tokenIds, options as TokenLogProbsOptions);
  await runQueued((flags) => call(p, true, flags), p.use, p.options.signal);
  return p.out;
}
