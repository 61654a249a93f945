import { checkNumber, checkSignal, invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import { native } from "../native/load.js";
import { type CheckedDistillOptions, checkDistillOptions } from "../objectives/distill-options.js";
import { ownCopy } from "./check.js";
import { cancellable } from "./generation.js";
import type { NativeModel } from "./model-handle.js";
import { settled } from "./native-model.js";
import type { DistillBatch, DistillOptions, DistillResult, PassOptions } from "./policy.js";
import { packSequences } from "./sequences.js";

export const DISTILL_FIELDS = new Set(["sequences", "teacher", "teacherSequences", "completionMask"]);
const STATS = 6;

/** As csrc/napi/engine_batch.cc reads them. */
function encode(o: CheckedDistillOptions, lossScale: number): Float64Array {
  return Float64Array.of(
    o.divergence,
    o.reduction,
    o.topK,
    Number(o.tail),
    Number(o.skipNonFinite),
    o.beta,
    o.valueClamp,
    o.temperature,
    o.logitSoftcap,
    o.normalizer,
    lossScale,
  );
}

function checkPair(batch: DistillBatch, model: NativeModel, teacher: NativeModel): void {
  const { sequences, teacherSequences } = batch;
  if (teacher.config.vocabSize !== model.config.vocabSize) {
    throw new RlsdError(
      "ERR_RLSD_INVALID_ARGUMENT",
      `Expected a teacher with the student's vocabulary of ${model.config.vocabSize} but its own has ${teacher.config.vocabSize}.`,
    );
  }
  if (teacherSequences?.length !== sequences.length) {
    throw invalid(`an array of ${sequences.length}`, "batch.teacherSequences", teacherSequences);
  }
  for (const [i, { completion }] of sequences.entries()) {
    const other = teacherSequences[i]?.completion;
    if (other?.length === completion.length && completion.every((id, t) => id === other[t])) continue;
    throw invalid(`the completion of batch.sequences[${i}]`, `batch.teacherSequences[${i}].completion`, other);
  }
}

/** Checks and copies a batch; the returned function makes the one native call. See Policy.distill. */
export function distill(
  model: NativeModel,
  teacher: NativeModel,
  batch: DistillBatch,
  options: DistillOptions,
  o: PassOptions,
): () => Promise<DistillResult> {
  const { signal } = o;
  checkSignal(signal);
  const encoded = encode(checkDistillOptions(options), checkNumber(o.lossScale ?? 1, "lossScale"));
  const own = packSequences(batch.sequences, model.config, "batch.sequences");
  checkPair(batch, model, teacher);
  const taught = packSequences(batch.teacherSequences, teacher.config, "batch.teacherSequences");
  const mask = ownCopy(batch.completionMask, Uint8Array, "batch.completionMask", own.targets);
  return async () => {
    const tokenLosses = new Float32Array(own.targets);
    const stats = new Float64Array(STATS);
    await cancellable(signal, (id) =>
      settled(
        native.engineDistill(
          model.handle,
          teacher.handle,
          own.ids,
          own.cuSeqlens,
          own.promptLengths,
          taught.ids,
          taught.cuSeqlens,
          taught.promptLengths,
          encoded,
          id,
          mask,
          tokenLosses,
          stats,
        ),
        signal,
      ),
    );
    const [tokens = 0, sequences = 0, loss = 0, mean = 0, nonFiniteRows = 0, clampedFraction = 0] = stats;
    return { loss, tokenLosses, stats: { tokens, sequences, loss, mean, nonFiniteRows, clampedFraction } };
  };
}
