/** The models and batches that the engine is measured with. */
import type { EnginePolicy, NewModelConfig, ScoreRequest } from "../../lib/index.js";
import type { Contestant } from "./in-turn.js";

export interface Workload {
  readonly name: string;
  readonly model: NewModelConfig;
  readonly prompts: number;
  readonly promptTokens: number;
  readonly completions: number;
  readonly completionTokens: number;
}

/** The built-in example's size. */
export const EXAMPLE: Workload = {
  name: "88 thousand parameters",
  model: { vocabSize: 48, hiddenSize: 64, intermediateSize: 128, numLayers: 2, numHeads: 4, maxLength: 128 },
  prompts: 8,
  promptTokens: 13,
  completions: 8,
  completionTokens: 24,
};

export const REAL: Workload = {
  name: "58 million parameters",
  model: {
    modelType: "qwen3",
    vocabSize: 32000,
    hiddenSize: 512,
    intermediateSize: 1536,
    numLayers: 8,
    numHeads: 8,
    numKvHeads: 4,
    headDim: 64,
    maxLength: 2048,
  },
  prompts: 2,
  promptTokens: 256,
  completions: 8,
  completionTokens: 64,
};

/** Weights so that nothing ends early. */
export const INITIAL = { seed: 1, deviation: 0.1 };

/** Completions that the policy drew itself, those of every second one praised. */
export async function drawn(policy: EnginePolicy, w: Workload) {
  const prompts = Array.from({ length: w.prompts }, (_, i) =>
    Int32Array.from({ length: w.promptTokens }, (_v, j) => (7 * i + 3 * j) % w.model.vocabSize),
  );
  const sampling = { maxTokens: w.completionTokens, count: w.completions, seed: 1 };
  const groups = await policy.generate(prompts, sampling);
  const sequences: ScoreRequest[] = groups.flatMap((group, i) =>
    group.map(({ tokenIds }) => ({ prompt: prompts[i] ?? tokenIds, completion: tokenIds })),
  );
  const advantages = Float32Array.from(sequences, (_, i) => (i % 2 === 0 ? 1 : -1));
  const total = sequences.length * (w.promptTokens + w.completionTokens);
  return { prompts, sampling, sequences, advantages, total };
}

/** Seconds from the first token of each completion to the last: what reads the prompt's keys, and not what computes them. */
export function drawing(
  policy: EnginePolicy,
  prompts: readonly Int32Array[],
  count: number,
  maxTokens: number,
): Contestant {
  return async () => {
    let first: number | undefined;
    const onToken = () => {
      first ??= performance.now();
    };
    await policy.generate(prompts, { maxTokens, count, seed: 1, onToken });
    return (performance.now() - first!) / 1000;
  };
}
