import { RlsdError } from "../errors.js";
import type { Outcome } from "../native/binding.js";
import type { DeviceValues } from "../native/device-binding.js";
import { native } from "../native/load.js";
import { throwUnlessOk } from "../native/status.js";
import { encodingOf } from "../objectives/encode.js";
import type { Objective } from "../objectives/objective.js";
import { allocateOnDevice, type DeviceTensor } from "../tensor/device.js";
import { checkFreeOnDevice, type DeviceUse, shareMemory } from "../tensor/device-lease.js";
import { DeviceResults } from "../tensor/device-results.js";
import { disposeAfter } from "../tensor/dispose.js";
import type { DevicePolicyResult, PolicyResult } from "../tensor/results.js";
import { STAT_NAMES, toStats } from "../tensor/stats.js";
import type { Tensor } from "../tensor/tensor.js";
import type { PolicyBatch } from "./batch.js";
import { type Call, type DeviceCall, type PolicyOut, refuseUseless, TOKEN_OUTPUTS } from "./call.js";
import { invalid } from "./check.js";
import { checkDeviceBatch, type DeviceBatch, tensorsOf } from "./device-batch.js";
import {
  checkDeviceCall,
  checkPlace,
  type DeviceTarget,
  MODE_ENQUEUE,
  MODE_QUEUE,
  MODE_WAIT,
  runOnDevice,
} from "./device-call.js";
import { checkDeviceVector, checkHome, writeDeviceScores } from "./device-scores.js";
import { copyOut, refuseOverlap, tokenOutputs, toResult } from "./outputs.js";
import { checkNeeds, settleAdvantages } from "./policy-call.js";
import { LEVEL_ABSENT, LEVEL_LOGITS } from "./scores.js";

/** Places of the numbers in meta: csrc/napi/device_policy_loss.cc, enum Meta. */
const SCORES = 9;
const SCORE_FIELDS = 5;
const STATS = SCORES + 3 * SCORE_FIELDS;
const META_COUNT = STATS + STAT_NAMES.length;

type TokenName = (typeof TOKEN_OUTPUTS)[number];
/** (N) memory to write, of the host or the device. */
type Targets = Readonly<Record<Exclude<TokenName, "teacherLogProbs">, DeviceValues>> & {
  readonly teacherLogProbs: DeviceValues | undefined;
};

interface Plan {
  readonly home: DeviceTensor;
  readonly batch: DeviceBatch;
  readonly call: Call | DeviceCall;
  readonly place: DeviceTarget;
  readonly objective: Float64Array;
  /** The caller's memory for results on the device. */
  readonly given: ReadonlyMap<TokenName, DeviceTensor>;
  readonly gradient: DeviceTensor | undefined;
  readonly fresh: boolean;
  readonly use: DeviceUse;
}

function gradientOf(
  batch: DeviceBatch,
  call: Call | DeviceCall,
  home: DeviceTensor,
): Pick<Plan, "gradient" | "fresh"> & { readonly inPlace: boolean } {
  const { out } = call;
  for (const name of ["hidden", "head", "bias"] as const) {
    const value = (out as PolicyOut | undefined)?.[name];
    if (value !== undefined) throw invalid("no tensor, as the student has none,", `out.${name}`, value);
  }
  const logits = batch.student.level === LEVEL_LOGITS ? batch.student.tensor : undefined;
  if (logits === undefined) {
    if (call.inPlace) throw invalid("false, as only logits can be overwritten,", "inPlace", true);
    if (out?.logits !== undefined) throw invalid("no tensor, as the student is log-probs,", "out.logits", out.logits);
    return { gradient: undefined, fresh: false, inPlace: false };
  }
  if (out?.logits === undefined)
    return { gradient: call.inPlace ? logits : undefined, fresh: !call.inPlace, inPlace: call.inPlace === true };
  if (call.inPlace) {
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", "Expected either inPlace or out.logits but received both.");
  }
  const gradient = checkHome(out.logits, "out.logits", home);
  const fits = gradient.dtype === logits.dtype && gradient.shape.join() === logits.shape.join();
  if (fits) return { gradient, fresh: false, inPlace: gradient === logits };
  throw invalid(`a tensor of shape [${logits.shape.join(", ")}] and dtype ${logits.dtype}`, "out.logits", out.logits);
}

function givenResults(call: Call | DeviceCall, n: number, home: DeviceTensor): Map<TokenName, DeviceTensor> {
  const given = new Map<TokenName, DeviceTensor>();
  if (call.results !== "device") return given;
  for (const name of TOKEN_OUTPUTS) {
    const value: Tensor | undefined = call.out?.[name];
    if (value !== undefined) given.set(name, checkDeviceVector(value, `out.${name}`, n, home));
  }
  return given;
}

/** What is written may not be read or written as something else; logits under their own gradient may. */
function refuseSharing(reads: readonly DeviceTensor[], writes: ReadonlyMap<string, DeviceTensor>): void {
  for (const [name, t] of writes) {
    const others = [...reads, ...[...writes].filter(([other]) => other !== name).map(([, other]) => other)];
    if (!others.some((other) => shareMemory(t, other))) continue;
    const message = `Expected memory of its own for out.${name} but it overlaps another tensor of the call.`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
  }
}

function plan(home: DeviceTensor, given: PolicyBatch, objective: Objective, givenCall: Call | DeviceCall): Plan {
  const encoded = encodingOf(objective);
  const read = checkDeviceBatch(given, home);
  const call = checkDeviceCall(givenCall, read.tokens);
  const place = checkPlace(call, home);
  checkNeeds(objective, given, read);
  const batch = settleAdvantages(read, objective);
  refuseUseless(call, batch.student.level);
  if (call.results !== "device") refuseOverlap((call as Call).out);
  const results = givenResults(call, batch.tokens, home);
  const { gradient, fresh, inPlace } = gradientOf(batch, call, home);
  const all = tensorsOf(batch);
  const reads = inPlace ? all.filter((t) => t !== gradient) : all;
  const writes = new Map<string, DeviceTensor>(results);
  if (gradient !== undefined) writes.set("logits", gradient);
  refuseSharing(reads, writes);
  const use = { reads, writes: [...writes.values()] };
  return { home, batch, call, place, objective: encoded, given: results, gradient, fresh, use };
}

function writeMeta(p: Plan, mode: number): Float64Array {
  const { batch, call, home } = p;
  const meta = new Float64Array(META_COUNT);
  meta.set([
    home.place.backend,
    home.place.ordinal,
    mode,
    batch.tokens,
    batch.sequences,
    Number(batch.advantagesPerToken),
    call.lossScale ?? 1,
    Number(call.skipZeroRows === true),
    Number(p.fresh),
  ]);
  writeDeviceScores(meta, SCORES, batch.student);
  writeDeviceScores(meta, SCORES + SCORE_FIELDS, batch.teacher);
  writeDeviceScores(meta, SCORES + 2 * SCORE_FIELDS, batch.contrast);
  return meta;
}

function nativeCall(
  { batch: b, objective, place }: Plan,
  meta: Float64Array,
  out: Targets,
  gradient: DeviceTensor | undefined,
  results?: DeviceResults,
): number | Promise<Outcome> {
  return native.devicePolicyLoss(
    meta,
    objective,
    place.handle,
    b.tokenIds,
    b.cuSeqlens,
    b.completionMask,
    b.spanMask,
    b.advantages.values as DeviceValues,
    b.old.values,
    b.ref.values,
    b.sampler.values,
    b.student.primary as DeviceValues,
    b.student.rowOf,
    b.teacher.primary,
    b.teacher.rowOf,
    b.contrast.primary,
    b.contrast.rowOf,
    out.logProbs,
    out.teacherLogProbs,
    out.tokenAdvantages,
    out.evidenceWeights,
    out.gradientLogProbs,
    gradient?.handle,
    results?.report,
  );
}

/** The gradient's memory: the caller's, or new. What is new goes again when `body` throws. */
function withGradient<T>(p: Plan, body: (gradient: DeviceTensor | undefined) => T): T {
  const logits = p.fresh ? p.batch.student.tensor : undefined;
  const made = logits && allocateOnDevice(logits.shape, logits.dtype, p.home.place);
  const give = (error: unknown): never => disposeAfter(error, made);
  try {
    const result = body(made ?? p.gradient);
    return result instanceof Promise ? (result.catch(give) as T) : result;
  } catch (error) {
    return give(error);
  }
}

type HostTokens = ReturnType<typeof tokenOutputs>;

const hasTeacher = ({ batch }: Plan): boolean => batch.teacher.level !== LEVEL_ABSENT;

function toHostResult(p: Plan, tokens: HostTokens, gradient: Tensor | undefined, meta: Float64Array): PolicyResult {
  return toResult(copyOut(tokens, (p.call as Call).out), { logits: gradient }, toStats(meta, STATS));
}

/** Enqueues the call; its results are read later, and what the device finds wrong is said to who reads them. */
function enqueue(p: Plan): DevicePolicyResult {
  checkFreeOnDevice(p.use, p.place.stream);
  const names = TOKEN_OUTPUTS.filter((name) => name !== "teacherLogProbs" || hasTeacher(p));
  const results = new DeviceResults(p.home.place, names.filter((name) => !p.given.has(name)).length, p.batch.tokens);
  const tokens = new Map(names.map((name) => [name, p.given.get(name) ?? results.next()]));
  return results.keep(() =>
    withGradient(p, (raw) => {
      const target = (name: TokenName) => tokens.get(name)?.handle as DeviceValues;
      const out = Object.fromEntries(TOKEN_OUTPUTS.map((name) => [name, target(name)])) as unknown as Targets;
      throwUnlessOk(nativeCall(p, writeMeta(p, MODE_ENQUEUE), out, raw, results) as number);
      const logits = raw !== undefined && p.fresh ? results.adopt(raw) : raw;
      const tensor = (name: TokenName) => tokens.get(name) as unknown as Tensor<"f32">;
      return {
        loss: results.loss(),
        logProbs: tensor("logProbs"),
        ...(hasTeacher(p) && { teacherLogProbs: tensor("teacherLogProbs") }),
        tokenAdvantages: tensor("tokenAdvantages"),
        evidenceWeights: tensor("evidenceWeights"),
        gradient: { logProbs: tensor("gradientLogProbs"), ...(logits && { logits }) },
        stats: async () => toStats(await results.read()),
        [Symbol.dispose]: () => results[Symbol.dispose](),
      };
    }),
  );
}

/** `policyLossSync` where the student's scores lie on a device. */
export function devicePolicyLossSync(
  home: DeviceTensor,
  batch: PolicyBatch,
  objective: Objective,
  call: Call | DeviceCall,
): PolicyResult | DevicePolicyResult {
  const p = plan(home, batch, objective, call);
  if (p.place.keeps) return enqueue(p);
  checkFreeOnDevice(p.use, p.place.stream);
  const tokens = tokenOutputs(p.batch.tokens, hasTeacher(p), undefined);
  const meta = writeMeta(p, MODE_WAIT);
  return withGradient(p, (gradient) => {
    throwUnlessOk(nativeCall(p, meta, tokens, gradient) as number);
    return toHostResult(p, tokens, gradient, meta);
  });
}

/** `policyLoss` where the student's scores lie on a device: enqueued when it is called. */
export async function devicePolicyLoss(
  home: DeviceTensor,
  batch: PolicyBatch,
  objective: Objective,
  call: Call | DeviceCall,
): Promise<PolicyResult | DevicePolicyResult> {
  const p = plan(home, batch, objective, call);
  if (p.place.keeps) return enqueue(p);
  const tokens = tokenOutputs(p.batch.tokens, hasTeacher(p), undefined);
  const meta = writeMeta(p, MODE_QUEUE);
  return await withGradient(p, async (gradient) => {
    const start = () => nativeCall(p, meta, tokens, gradient);
    await runOnDevice(start, p.use, p.place.stream, p.call.signal);
    return toHostResult(p, tokens, gradient, meta);
  });
}
