import { types } from "node:util";
import { invalid } from "../check.js";
import { RlsdError } from "../errors.js";
import type { ModelConfig } from "./config.js";
import type { ScoreRequest } from "./policy.js";

/** Sequences as the engine takes them: prompts and completions one after another. */
export interface PackedSequences {
  readonly ids: Int32Array;
  /** (B + 1) */
  readonly cuSeqlens: Int32Array;
  /** (B) */
  readonly promptLengths: Int32Array;
  /** (B + 1): completions' tokens */
  readonly cuTargets: Int32Array;
  readonly targets: number;
}

function checkIds(ids: unknown, name: string, vocabSize: number): asserts ids is Int32Array {
  if (!types.isInt32Array(ids)) throw invalid("an Int32Array of token ids", name, ids);
  const bad = ids.findIndex((id) => id < 0 || id >= vocabSize);
  if (bad >= 0) throw invalid(`an id in 0 ... ${vocabSize - 1}`, `${name}[${bad}]`, ids[bad]);
}

function checkLength(length: number, name: string, config: ModelConfig): void {
  if (length <= config.maxLength) return;
  throw new RlsdError(
    "ERR_RLSD_TOO_LONG",
    `${name} has ${length} tokens with all it may grow to, but the model's longest sequence is ${config.maxLength}.`,
  );
}

/** Prompts alone, each to be continued by at most `maxTokens`. */
export function packPrompts(
  prompts: readonly Int32Array[],
  maxTokens: number,
  config: ModelConfig,
): { readonly ids: Int32Array; readonly cuPrompts: Int32Array } {
  const cuPrompts = new Int32Array(prompts.length + 1);
  for (const [i, prompt] of prompts.entries()) {
    const name = `prompts[${i}]`;
    checkIds(prompt, name, config.vocabSize);
    if (prompt.length === 0) throw invalid("at least one token", name, prompt);
    checkLength(prompt.length + maxTokens, name, config);
    cuPrompts[i + 1] = (cuPrompts[i] as number) + prompt.length;
  }
  const ids = new Int32Array(cuPrompts[prompts.length] as number);
  for (const [i, prompt] of prompts.entries()) ids.set(prompt, cuPrompts[i]);
  return { ids, cuPrompts };
}

export function packSequences(
  requests: readonly ScoreRequest[],
  config: ModelConfig,
  name = "requests",
): PackedSequences {
  if (!Array.isArray(requests)) throw invalid("an array of { prompt, completion }", name, requests);
  const cuSeqlens = new Int32Array(requests.length + 1);
  const cuTargets = new Int32Array(requests.length + 1);
  for (const [i, request] of (requests as readonly ScoreRequest[]).entries()) {
    if (typeof request !== "object" || request === null)
      throw invalid("{ prompt, completion }", `${name}[${i}]`, request);
    const { prompt, completion } = request;
    checkIds(prompt, `${name}[${i}].prompt`, config.vocabSize);
    checkIds(completion, `${name}[${i}].completion`, config.vocabSize);
    if (prompt.length === 0) throw invalid("at least one token", `${name}[${i}].prompt`, prompt);
    checkLength(prompt.length + completion.length, `${name}[${i}]`, config);
    cuSeqlens[i + 1] = (cuSeqlens[i] as number) + prompt.length + completion.length;
    cuTargets[i + 1] = (cuTargets[i] as number) + completion.length;
  }
  const ids = new Int32Array(cuSeqlens[requests.length] as number);
  for (const [i, { prompt, completion }] of (requests as readonly ScoreRequest[]).entries()) {
    ids.set(prompt, cuSeqlens[i]);
    ids.set(completion, (cuSeqlens[i] as number) + prompt.length);
  }
  return {
    ids,
    cuSeqlens,
    promptLengths: Int32Array.from(requests as readonly ScoreRequest[], (r) => r.prompt.length),
    cuTargets,
    targets: cuTargets[requests.length] as number,
  };
}
