import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type CreateOptions,
  createPolicy,
  type EnginePolicy,
  type NewModelConfig,
  type ScoreRequest,
} from "../../lib/index.js";

export const TINY: NewModelConfig = {
  vocabSize: 37,
  hiddenSize: 24,
  intermediateSize: 40,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  maxLength: 96,
};

/** Attention that slides, in one layer of two. */
export const WINDOWED: Partial<NewModelConfig> = {
  modelType: "qwen3",
  headDim: 10,
  slidingWindow: { size: 5, layers: [false, true] },
};

/** Four norms a layer, a scaled embedding, positions of their own where attention slides. */
export const GEMMA: Partial<NewModelConfig> = {
  modelType: "gemma3_text",
  tieEmbeddings: true,
  queryScalar: 9,
  localRope: { type: "default", theta: 50 },
  slidingWindow: { size: 5, layers: [true, false] },
};

/** No norms before the parts of a layer, but behind them; one norm over all heads of a query or key. */
export const OLMO2: Partial<NewModelConfig> = { modelType: "olmo2", headDim: 10 };

/** That, with attention that slides in one layer of two, and positions that are scaled in the other. */
export const OLMO3: Partial<NewModelConfig> = {
  modelType: "olmo3",
  rope: { type: "yarn", theta: 50, factor: 4, originalMaxLength: 16, attentionFactor: 1.2 },
  slidingWindow: { size: 5, layers: [true, false] },
};

/** Each of its multipliers counts. */
export const GRANITE: Partial<NewModelConfig> = {
  modelType: "granite",
  tieEmbeddings: true,
  multipliers: { embedding: 2, attention: 0.3, residual: 0.6, logitsScaling: 0.7 },
};

/** Fused matrices, and heads that are rotated in part. */
export const PHI3: Partial<NewModelConfig> = { modelType: "phi3", headDim: 10, rotaryDim: 6 };

/** Decoders that differ in what a token's row depends on. */
export const KINDS: [string, Partial<NewModelConfig>][] = [
  ["llama", {}],
  ["a window in one layer of two", WINDOWED],
  ["gemma3", GEMMA],
  ["olmo2", OLMO2],
  ["olmo3", OLMO3],
  ["granite", GRANITE],
  ["phi3", PHI3],
];

/** A small random model whose distributions are far from flat. */
export const tinyPolicy = (config: Partial<NewModelConfig> = {}, options: CreateOptions = {}): Promise<EnginePolicy> =>
  createPolicy({ ...TINY, ...config }, { seed: 11, deviation: 0.4, ...options });

export const ids = (...values: number[]): Int32Array => Int32Array.from(values);

/** `count` prompts of different lengths. */
export const prompts = (count: number, vocab = 37): Int32Array[] =>
  Array.from({ length: count }, (_, i) =>
    Int32Array.from({ length: 1 + ((5 * i) % 11) }, (_, j) => (7 * i + 3 * j) % vocab),
  );

/** Six prompts with completions of different lengths, one of them empty; 26 tokens. */
export const sixRequests = (): ScoreRequest[] =>
  prompts(6).map((prompt, i) => ({
    prompt,
    completion: Int32Array.from({ length: [5, 1, 9, 0, 4, 7][i] as number }, (_, j) => (11 * i + 5 * j + 2) % 37),
  }));

export const temporaryFolder = (): string => mkdtempSync(join(tmpdir(), "rlsd-engine-"));

/** The gradient of every parameter, one after another. */
export async function gradientOf(policy: EnginePolicy): Promise<Float32Array> {
  const parts: number[] = [];
  for (const name of policy.parameterNames) parts.push(...(await policy.readParameter(name, "gradient")));
  return Float32Array.from(parts);
}
