/** What the policy engine does in a second: sampling, scoring and training, at the example's size and at a real one's. */
import { createPolicy, grpo, type NewModelConfig, type ScoreRequest } from "../lib/index.js";
import type { BenchOptions, BenchTable } from "./table.js";

interface Workload {
  readonly name: string;
  readonly model: NewModelConfig;
  readonly prompts: number;
  readonly promptTokens: number;
  readonly completions: number;
  readonly completionTokens: number;
}

const EXAMPLE: Workload = {
  name: "88 thousand parameters",
  model: { vocabSize: 48, hiddenSize: 64, intermediateSize: 128, numLayers: 2, numHeads: 4, maxLength: 128 },
  prompts: 8,
  promptTokens: 13,
  completions: 8,
  completionTokens: 24,
};

const REAL: Workload = {
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

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;

/** Median seconds of `rounds` calls after one that warms up. */
async function seconds(rounds: number, call: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i <= rounds; i++) {
    const start = performance.now();
    await call();
    if (i > 0) times.push((performance.now() - start) / 1000);
  }
  return median(times);
}

async function measure(w: Workload, rounds: number): Promise<(string | number)[]> {
  await using policy = await createPolicy(w.model, { seed: 1, deviation: 0.1 });
  const prompts = Array.from({ length: w.prompts }, (_, i) =>
    Int32Array.from({ length: w.promptTokens }, (_v, j) => (7 * i + 3 * j) % w.model.vocabSize),
  );
  const sampling = { maxTokens: w.completionTokens, count: w.completions, seed: 1 };
  const drawn = await policy.generate(prompts, sampling);
  const sequences: ScoreRequest[] = drawn.flatMap((group, i) =>
    group.map(({ tokenIds }) => ({ prompt: prompts[i] ?? tokenIds, completion: tokenIds })),
  );
  const advantages = Float32Array.from(sequences, (_, i) => (i % 2 === 0 ? 1 : -1));
  const total = sequences.length * (w.promptTokens + w.completionTokens);
  const generate = await seconds(rounds, () => policy.generate(prompts, sampling));
  const score = await seconds(rounds, () => policy.score(sequences));
  const accumulate = await seconds(rounds, () => policy.accumulate({ sequences, advantages }, grpo()));
  const step = await seconds(rounds, () => policy.step({ learningRate: 0 }));
  const drawnTokens = sequences.length * w.completionTokens;
  return [w.name, drawnTokens / generate, total / score, total / accumulate, 1000 * step];
}

export async function run({ quick }: BenchOptions): Promise<BenchTable[]> {
  const rows = [await measure(EXAMPLE, quick ? 3 : 40)];
  if (!quick) rows.push(await measure(REAL, 3));
  return [
    {
      title: "The policy engine",
      columns: ["model", "drawn tokens / s", "scored tokens / s", "trained tokens / s", "AdamW step (ms)"],
      rows,
      notes: [
        "drawn: 64 and 16 sequences at once, prompts included in the time; scored and trained: prompts and completions",
        "float32 throughout; random weights, so that nothing ends early",
      ],
    },
  ];
}
