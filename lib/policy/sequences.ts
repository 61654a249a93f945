import { invalid, mendFor } from "../check.js";
import { RlsdError } from "../errors.js";
import { lengthOf, typedArrayName } from "../typed-array.js";
import type { ModelConfig } from "./config.js";
import type { ScoreRequest } from "./policy.js";

/** Sequences as the engine takes them: prompts and completions one after another. */
interface PackedSequences {
  readonly ids: Int32Array;
  /** (B + 1) */
  readonly cuSeqlens: Int32Array;
  /** (B) */
  readonly promptLengths: Int32Array;
  /** (B + 1): completions' tokens */
  readonly cuTargets: Int32Array;
  readonly targets: number;
}

/** A copy of token ids, which nobody changes after they were checked. */
function ownIds(given: unknown, name: string, vocabSize: number): Int32Array {
  if (typedArrayName(given) !== "Int32Array")
    throw invalid("an Int32Array of token ids", name, given, mendFor(given, "Int32Array"));
  // A detached array has no tokens, and none can be made from it.
  const ids = lengthOf(given as Int32Array) === 0 ? new Int32Array(0) : new Int32Array(given as Int32Array);
  const bad = ids.findIndex((id) => id < 0 || id >= vocabSize);
  if (bad >= 0) throw invalid(`an id in 0 ... ${vocabSize - 1}`, `${name}[${bad}]`, ids[bad]);
  return ids;
}

/** A prompt has a token to begin with. */
function ownPrompt(given: unknown, name: string, vocabSize: number): Int32Array {
  const ids = ownIds(given, name, vocabSize);
  if (ids.length === 0) throw invalid("at least one token", name, ids);
  return ids;
}

/** All ids, one list after another. */
function joined(lists: readonly Int32Array[], count: number): Int32Array {
  const ids = new Int32Array(count);
  let at = 0;
  for (const list of lists) {
    ids.set(list, at);
    at += list.length;
  }
  return ids;
}

function checkLength(length: number, name: string, config: ModelConfig): void {
  if (length <= config.maxLength) return;
  const { rope, maxLength } = config;
  const mend =
    rope.type === "longrope" && length <= rope.scaledMaxLength
      ? ` With maxLength, up to ${rope.scaledMaxLength}, it is loaded for longer ones.`
      : "";
  throw new RlsdError(
    "ERR_RLSD_TOO_LONG",
    `${name} has ${length} tokens with all it may grow to, but the model's longest sequence is ${maxLength}.${mend}`,
  );
}

/** Prompts alone, each to be continued by at most its `maxTokens`. */
export function packPrompts(
  prompts: readonly Int32Array[],
  maxTokens: Int32Array,
  config: ModelConfig,
): { readonly ids: Int32Array; readonly cuPrompts: Int32Array } {
  const cuPrompts = new Int32Array(prompts.length + 1);
  const lists = prompts.map((given, i) => {
    const prompt = ownPrompt(given, `prompts[${i}]`, config.vocabSize);
    checkLength(prompt.length + maxTokens[i]!, `prompts[${i}]`, config);
    cuPrompts[i + 1] = (cuPrompts[i] as number) + prompt.length;
    return prompt;
  });
  return { ids: joined(lists, cuPrompts[lists.length] as number), cuPrompts };
}

export function packSequences(
  requests: readonly ScoreRequest[],
  config: ModelConfig,
  name = "requests",
): PackedSequences {
  if (!Array.isArray(requests)) throw invalid("an array of { prompt, completion }", name, requests);
  const cuSeqlens = new Int32Array(requests.length + 1);
  const cuTargets = new Int32Array(requests.length + 1);
  const promptLengths = new Int32Array(requests.length);
  const lists: Int32Array[] = [];
  for (const [i, request] of (requests as readonly ScoreRequest[]).entries()) {
    if (typeof request !== "object" || request === null)
      throw invalid("{ prompt, completion }", `${name}[${i}]`, request);
    const prompt = ownPrompt(request.prompt, `${name}[${i}].prompt`, config.vocabSize);
    const completion = ownIds(request.completion, `${name}[${i}].completion`, config.vocabSize);
    checkLength(prompt.length + completion.length, `${name}[${i}]`, config);
    cuSeqlens[i + 1] = (cuSeqlens[i] as number) + prompt.length + completion.length;
    cuTargets[i + 1] = (cuTargets[i] as number) + completion.length;
    promptLengths[i] = prompt.length;
    lists.push(prompt, completion);
  }
  const ids = joined(lists, cuSeqlens[promptLengths.length] as number);
  return { ids, cuSeqlens, promptLengths, cuTargets, targets: cuTargets[promptLengths.length] as number };
}
