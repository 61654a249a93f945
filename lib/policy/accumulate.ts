import { checkNumber, checkObject, checkSignal, invalid } from "../check.js";
import { native } from "../native/load.js";
import type { Objective } from "../objectives/objective.js";
import { TRAIN_BATCH_NAMES } from "../other-names.js";
import type { PolicyResult } from "../tensor/results.js";
import { STAT_NAMES, toStats } from "../tensor/stats.js";
import { ownCopy } from "./check.js";
import { cancellable } from "./generation.js";
import type { NativeModel } from "./model-handle.js";
import { settled } from "./native-model.js";
import type { PassOptions, TrainBatch } from "./policy.js";
import { packSequences } from "./sequences.js";

const FIELDS = new Set([
  "sequences",
  "completionMask",
  "advantages",
  "teacherLogProbs",
  "contrastLogProbs",
  "oldLogProbs",
  "refLogProbs",
  "samplerLogProbs",
  "spanMask",
]);

function checkNeeds(batch: TrainBatch, objective: Objective): void {
  if (objective.klCoef > 0 && batch.refLogProbs === undefined && objective.objective !== "row-coefficient") {
    throw invalid("a Float32Array, as klCoef is above 0,", "refLogProbs", undefined);
  }
  if (batch.contrastLogProbs !== undefined && batch.teacherLogProbs === undefined) {
    throw invalid("a Float32Array beside contrastLogProbs", "teacherLogProbs", undefined);
  }
  if (objective.studentSource === "old" && batch.teacherLogProbs !== undefined && batch.oldLogProbs === undefined) {
    throw invalid('a Float32Array, as studentSource is "old",', "oldLogProbs", undefined);
  }
}

/** The engine's own copies of a batch, checked, in the order of its arguments. */
function ownArrays(batch: TrainBatch, objective: Objective, sequences: number, n: number) {
  const f32 = (name: keyof TrainBatch): Float32Array | undefined =>
    ownCopy(batch[name] as Float32Array | undefined, Float32Array, `batch.${name}`, n);
  const lengths = objective.objective === "row-coefficient" ? [n] : [sequences, n];
  const advantages = ownCopy(batch.advantages, Float32Array, "batch.advantages", ...lengths);
  if (advantages === undefined)
    throw invalid(`a Float32Array of ${lengths.join(" or ")}`, "batch.advantages", undefined);
  return [
    advantages,
    ownCopy(batch.completionMask, Uint8Array, "batch.completionMask", n),
    ownCopy(batch.spanMask, Uint8Array, "batch.spanMask", n),
    f32("teacherLogProbs"),
    f32("contrastLogProbs"),
    f32("oldLogProbs"),
    f32("refLogProbs"),
    f32("samplerLogProbs"),
  ] as const;
}

/** What the native call fills, for N tokens. */
function resultArrays(n: number, taught: boolean) {
  return [
    new Float32Array(n),
    taught ? new Float32Array(n) : undefined,
    new Float32Array(n),
    new Float32Array(n),
    new Float32Array(n),
    new Float64Array(STAT_NAMES.length),
  ] as const;
}

function toResult(results: ReturnType<typeof resultArrays>): PolicyResult {
  const [logProbs, teacherLogProbs, tokenAdvantages, evidenceWeights, gradient, numbers] = results;
  const stats = toStats(numbers);
  return {
    loss: stats.loss,
    logProbs,
    ...(teacherLogProbs !== undefined && { teacherLogProbs }),
    tokenAdvantages,
    evidenceWeights,
    gradient: { logProbs: gradient },
    stats,
  };
}

/** Checks and copies a batch; the returned function makes the one native call. See Policy.accumulate. */
export function accumulate(
  model: NativeModel,
  batch: TrainBatch,
  objective: Objective,
  encoded: Float64Array,
  o: PassOptions,
): () => Promise<PolicyResult> {
  checkObject(batch, "batch", FIELDS, TRAIN_BATCH_NAMES);
  checkNeeds(batch, objective);
  const { signal } = o;
  checkSignal(signal);
  const lossScale = checkNumber(o.lossScale ?? 1, "lossScale");
  const packed = packSequences(batch.sequences, model.config, "batch.sequences");
  const { ids, cuSeqlens, promptLengths, targets: n } = packed;
  const arrays = ownArrays(batch, objective, promptLengths.length, n);
  const taught = batch.teacherLogProbs !== undefined;
  return async () => {
    const results = resultArrays(n, taught);
    await cancellable(signal, (id) =>
      settled(
        native.engineAccumulate(
          model.handle,
          ids,
          cuSeqlens,
          promptLengths,
          encoded,
          lossScale,
          id,
          ...arrays,
          ...results,
        ),
        signal,
      ),
    );
    return toResult(results);
  };
}
