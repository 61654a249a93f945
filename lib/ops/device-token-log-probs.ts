import type { Outcome } from "../native/binding.js";
import type { DeviceValues } from "../native/device-binding.js";
import { native } from "../native/load.js";
import { throwUnlessOk } from "../native/status.js";
import type { DeviceTensor } from "../tensor/device.js";
import type { DeviceUse } from "../tensor/device-lease.js";
import { DeviceResults } from "../tensor/device-results.js";
import { lengthOf } from "../typed-array.js";
import { checkI32, invalid, isI32 } from "./check.js";
import { checkPlace, type DeviceTarget, MODE_ENQUEUE, MODE_QUEUE, MODE_WAIT, runOnDevice } from "./device-call.js";
import { checkDeviceScores, type DeviceScores, writeDeviceScores } from "./device-scores.js";
import { LEVEL_LOGITS, type Scores } from "./scores.js";
import {
  type DeviceTokenLogProbs,
  type DeviceTokenLogProbsOptions,
  hostResults,
  readOptions,
  type TokenLogProbs,
  type TokenLogProbsOptions,
} from "./token-log-probs-options.js";

/** Places of the numbers in meta: csrc/napi/device_token_log_probs.cc, enum Meta. */
const VIEW = 8;
const META_COUNT = VIEW + 5;

interface Plan {
  readonly home: DeviceTensor;
  readonly scores: DeviceScores;
  readonly tokenIds: Int32Array;
  readonly options: TokenLogProbsOptions | DeviceTokenLogProbsOptions;
  readonly place: DeviceTarget;
  readonly use: DeviceUse;
}

function plan(
  home: DeviceTensor,
  given: Scores,
  tokenIds: Int32Array,
  how: TokenLogProbsOptions | DeviceTokenLogProbsOptions,
): Plan {
  const tokens = isI32(tokenIds) ? lengthOf(tokenIds) : 0;
  checkI32(tokenIds, "tokenIds", tokens);
  const scores = checkDeviceScores(given, "scores", tokens, home, "tokenLogProbs");
  if (scores.level !== LEVEL_LOGITS) throw invalid("{ logits }", "scores", given);
  const options = readOptions(how, tokens);
  return { home, scores, tokenIds, options, place: checkPlace(options, home), use: { reads: [home], writes: [] } };
}

/** (N) memory to write, of the host or the device. */
interface Targets {
  readonly logProbs: DeviceValues;
  readonly entropy?: DeviceValues | undefined;
}

function nativeCall(p: Plan, mode: number, out: Targets, results?: DeviceResults): number | Promise<Outcome> {
  const { home, scores, tokenIds, options, place } = p;
  const meta = new Float64Array(META_COUNT);
  meta.set([
    home.place.backend,
    home.place.ordinal,
    mode,
    lengthOf(tokenIds),
    options.temperature ?? 1,
    options.logitSoftcap ?? 0,
    Number(options.logitRounding === "bf16"),
    Number(options.nonFinite === "skip"),
  ]);
  writeDeviceScores(meta, VIEW, scores);
  return native.deviceTokenLogProbs(
    meta,
    place.handle,
    tokenIds,
    options.completionMask,
    scores.primary as DeviceValues,
    scores.rowOf,
    out.logProbs,
    out.entropy,
    results?.report,
  );
}

function enqueue(p: Plan): DeviceTokenLogProbs {
  const wantsEntropy = p.options.entropy === true;
  const results = new DeviceResults(p.home.place, wantsEntropy ? 2 : 1, lengthOf(p.tokenIds));
  return results.keep(() => {
    const logProbs = results.next();
    const entropy = wantsEntropy ? results.next() : undefined;
    throwUnlessOk(
      nativeCall(p, MODE_ENQUEUE, { logProbs: logProbs.handle, entropy: entropy?.handle }, results) as number,
    );
    return {
      logProbs,
      ...(entropy && { entropy }),
      check: async () => void (await results.read()),
      [Symbol.dispose]: () => results[Symbol.dispose](),
    };
  });
}

/** `tokenLogProbsSync` of logits on a device. */
export function deviceTokenLogProbsSync(
  home: DeviceTensor,
  scores: Scores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions | DeviceTokenLogProbsOptions,
): TokenLogProbs | DeviceTokenLogProbs {
  const p = plan(home, scores, tokenIds, options);
  if (p.place.keeps) return enqueue(p);
  const out = hostResults(lengthOf(tokenIds), p.options);
  throwUnlessOk(nativeCall(p, MODE_WAIT, out) as number);
  return out;
}

/** `tokenLogProbs` of logits on a device: enqueued when it is called. */
export async function deviceTokenLogProbs(
  home: DeviceTensor,
  scores: Scores,
  tokenIds: Int32Array,
  options: TokenLogProbsOptions | DeviceTokenLogProbsOptions,
): Promise<TokenLogProbs | DeviceTokenLogProbs> {
  const p = plan(home, scores, tokenIds, options);
  if (p.place.keeps) return enqueue(p);
  const out = hostResults(lengthOf(tokenIds), p.options);
  const start = () => nativeCall(p, MODE_QUEUE, out);
  await runOnDevice(start, p.use, p.place.stream, p.options.signal);
  return out;
}
