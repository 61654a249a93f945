/** What is timed on a device: by the wall clock, around calls that are enqueued together and awaited together. */
import { rlsd } from "../../objectives/presets.js";
import type { PolicyBatch } from "../../ops/batch.js";
import { deviceRows, deviceRowsText } from "../../ops/device-rows.js";
import { policyLoss } from "../../ops/policy-loss.js";
import { tokenLogProbs } from "../../ops/token-log-probs.js";
import { createStream } from "../../tensor/device.js";
import { disposeAll } from "../../tensor/dispose.js";
import type { DType } from "../../tensor/dtype.js";
import { empty, type Tensor } from "../../tensor/tensor.js";
import { toDeviceAsync } from "../../tensor/transfer.js";
import { bytesPerElement, logitsRest, logProbBatch, makeLogits } from "./data.js";
import { type Figure, figure } from "./figure.js";
import { SEQUENCE_TOKENS } from "./levels.js";
import type { LogitsPlan } from "./plan.js";
import { checkpoint, interleave, type Limits, type Measure, type Pace, timed } from "./timing.js";

interface DeviceTerms {
  readonly device: string;
  readonly quick: boolean;
  readonly pace: Pace;
}

/** Work of one measurement: enough that enqueueing the first call and waking up after the last are a small part. */
const ENOUGH_MS = 30;
const MOST_CALLS = 200;

const limits = (quick: boolean): Limits => ({ milliseconds: quick ? 300 : 1200, least: 5, most: 100, warmups: 1 });

interface Enqueued {
  readonly measure: Measure;
  readonly calls: number;
}

/** How many calls in flight are enough work, and the measure of one of so many. */
async function inFlight(call: () => Promise<unknown>): Promise<Enqueued> {
  await call(); // kernels are loaded by the first
  const one = await timed(call);
  const calls = Math.max(1, Math.min(MOST_CALLS, Math.ceil(ENOUGH_MS / one)));
  const all = () => Promise.all(Array.from({ length: calls }, call));
  return { calls, measure: async () => (await timed(all)) / calls };
}

export async function* benchDeviceLogProbs(tokens: number, terms: DeviceTerms): AsyncGenerator<Figure> {
  const { device, quick, pace } = terms;
  const host = logProbBatch(tokens, SEQUENCE_TOKENS);
  const made: Tensor[] = [];
  const up = async (values: Float32Array): Promise<Tensor> => {
    const here = empty([tokens], "f32"); // memory that Node 22 too keeps in its place
    here.data.set(values);
    const there = await toDeviceAsync(here, device);
    made.push(there);
    return there;
  };
  using stream = createStream(device);
  try {
    const batch: PolicyBatch = {
      ...host,
      student: { logProbs: await up(host.student.logProbs) },
      teacher: { logProbs: await up(host.teacher.logProbs) },
      oldLogProbs: await up(host.oldLogProbs),
    };
    const objective = rlsd();
    const { calls, measure } = await inFlight(() => policyLoss(batch, objective, { stream }));
    const times = await interleave("log-probs", { loss: measure }, limits(quick), pace);
    const variant = "results to the host";
    yield figure({ level: "logprob", call: "policyLoss", variant, device, tokens, callsPerRound: calls }, times.loss);
  } finally {
    disposeAll(made);
  }
}

/** The gradient goes beside the logits: nothing would put them back before the next call without taking its time. */
async function* benchDtype(plan: LogitsPlan, dtype: DType, terms: DeviceTerms): AsyncGenerator<Figure> {
  const { device, quick, pace } = terms;
  const { tokens, vocab } = plan;
  const shape = { tokens, vocab, dtype };
  const made: Tensor[] = [];
  const keep = (t: Tensor): Tensor => {
    made.push(t);
    return t;
  };
  const up = async (seed: number) => keep(await toDeviceAsync(makeLogits(shape, seed), device));
  using stream = createStream(device);
  try {
    const logits = await up(1);
    const batch = { student: { logits }, teacher: { logits: await up(2) }, ...logitsRest(shape) };
    const out = { logits: keep(empty([tokens, vocab], dtype, device)) };
    const objective = rlsd();
    const loss = await inFlight(() => policyLoss(batch, objective, { stream, out }));
    const score = await inFlight(() => tokenLogProbs(batch.student, batch.tokenIds, { stream }));
    const contestants = { loss: loss.measure, score: score.measure };
    const times = await interleave(`logits, ${dtype}`, contestants, limits(quick), pace);
    const subject = { level: "logits", device, dtype, tokens, vocab } as const;
    const bytes = tokens * vocab * bytesPerElement(dtype);
    const rows = deviceRowsText(deviceRows(device, vocab, dtype, objective)); // after the calls: what they found is known
    const whole = { call: "policyLoss", variant: "teacher logits, into out", rows, bytesMoved: 3 * bytes };
    yield figure({ ...subject, ...whole, callsPerRound: loss.calls }, times.loss);
    const scores = { call: "tokenLogProbs", variant: "scores alone", bytesMoved: bytes };
    yield figure({ ...subject, ...scores, callsPerRound: score.calls }, times.score);
  } finally {
    disposeAll(made);
  }
}

export async function* benchDeviceLogits(plan: LogitsPlan, terms: DeviceTerms): AsyncGenerator<Figure> {
  for (const dtype of plan.dtypes) {
    await checkpoint(terms.pace);
    terms.pace.show(`logits, ${dtype}, making them`, 0);
    yield* benchDtype(plan, dtype, terms);
  }
}
