import { checkNumber, checkObject, checkSignal, DIVISOR } from "../check.js";
import { native } from "../native/load.js";
import { orOutOfMemory } from "../tensor/memory.js";
import { cancellable } from "./generation.js";
import type { NativeModel } from "./model-handle.js";
import { settled } from "./native-model.js";
import type { ScoreOptions, ScoreRequest } from "./policy.js";
import { packSequences } from "./sequences.js";

const FIELDS = new Set(["temperature", "signal"]);

/** Checks and copies what is asked for; the returned function scores it. See Policy.score. */
export function score(
  { handle, config }: NativeModel,
  requests: readonly ScoreRequest[],
  o: ScoreOptions,
): () => Promise<Float32Array[]> {
  checkObject(o, "options", FIELDS);
  const { signal } = o;
  checkSignal(signal);
  const temperature = checkNumber(o.temperature ?? 1, "temperature", DIVISOR);
  const { ids, cuSeqlens, promptLengths, cuTargets, targets } = packSequences(requests, config);
  return async () => {
    const out = new Float32Array(targets);
    await cancellable(signal, (id) =>
      settled(native.engineScore(handle, ids, cuSeqlens, promptLengths, temperature, out, id), signal),
    );
    return Array.from(promptLengths, (_, b) => out.slice(cuTargets[b], cuTargets[b + 1]));
  };
}

/** As `score`, for the logits (T, V) of every position of one sequence. */
export function logits({ handle, config }: NativeModel, ids: Int32Array): () => Promise<Float32Array> {
  const request = { prompt: ids, completion: new Int32Array(0) };
  const packed = packSequences([request], config, "sequences");
  return async () => {
    const count = packed.ids.length * config.vocabSize;
    const make = () => new Float32Array(count);
    const out = orOutOfMemory(make, `${count} logits`, 4 * count, "score() gives log-probs without them.");
    await settled(native.engineLogits(handle, packed.ids, out));
    return out;
  };
}
