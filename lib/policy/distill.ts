import { RlsdError } from "../errors.js";
import { native } from "../native/load.js";
import { DISTILL_FIELDS, DIVERGENCES, REDUCTIONS } from "../objectives/words.js";
import { checkFields, checkInteger, checkNumber, invalid, ownCopy } from "./check.js";
import { cancellable } from "./generation.js";
import { type NativeModel, settled } from "./native-model.js";
import type { DistillBatch, DistillOptions, DistillResult } from "./policy.js";
import { packSequences } from "./sequences.js";

const STATS = 6;

function choice(value: string, allowed: readonly string[], name: string): number {
  const index = allowed.indexOf(value);
  if (index < 0) throw invalid(allowed.map((a) => `"${a}"`).join(" or "), name, value);
  return index;
}

/** As csrc/napi/engine_batch.cc reads them. */
function encode(o: DistillOptions, lossScale: number): Float64Array {
  checkFields(o, "options", DISTILL_FIELDS);
  const { topK = null, valueClamp = topK === null ? null : 10, normalizer = null, logitSoftcap = null } = o;
  const orOff = (value: number | null, name: string, off: number): number =>
    value === null ? off : checkNumber(value, name, { above: 0 });
  return Float64Array.of(
    choice(o.divergence, DIVERGENCES, "divergence"),
    choice(o.reduction ?? "token-mean", REDUCTIONS, "reduction"),
    topK === null ? 0 : checkInteger(topK, "topK", { min: 1, max: 0x7fffffff }),
    Number(o.tail ?? true),
    choice(o.nonFinite ?? "error", ["error", "skip"], "nonFinite"),
    checkNumber(o.beta ?? 0.5, "beta", { above: 0, below: 1 }),
    orOff(valueClamp, "valueClamp", Number.POSITIVE_INFINITY),
    checkNumber(o.temperature ?? 1, "temperature", { above: 0 }),
    orOff(logitSoftcap, "logitSoftcap", 0),
    orOff(normalizer, "normalizer", 0),
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
  o: { readonly lossScale?: number; readonly signal?: AbortSignal },
): () => Promise<DistillResult> {
  checkFields(batch, "batch", ["sequences", "teacher", "teacherSequences", "completionMask"]);
  const encoded = encode(options, checkNumber(o.lossScale ?? 1, "lossScale"));
  const own = packSequences(batch.sequences, model.config, "batch.sequences");
  checkPair(batch, model, teacher);
  const taught = packSequences(batch.teacherSequences, teacher.config, "batch.teacherSequences");
  const mask = ownCopy(batch.completionMask, Uint8Array, "batch.completionMask", own.targets);
  return async () => {
    const tokenLosses = new Float32Array(own.targets);
    const stats = new Float64Array(STATS);
    await cancellable(o.signal, (id) =>
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
        o.signal,
      ),
    );
    const [tokens = 0, sequences = 0, loss = 0, mean = 0, nonFiniteRows = 0, clampedFraction = 0] = stats;
    return { loss, tokenLosses, stats: { tokens, sequences, loss, mean, nonFiniteRows, clampedFraction } };
  };
}
