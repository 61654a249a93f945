import type { ModelType } from "../architecture.js";

/** What llama.cpp computes of a type of model, and how it has it. */
interface GgufArchitecture {
  /** `general.architecture`. */
  readonly name: string;
  /** Rows of queries and keys lie so that the pairs that are rotated together are neighbours. */
  readonly paired: boolean;
  /** Queries are as wide as the hidden size. */
  readonly square: boolean;
  /** Biases that it has beside those of q, k and v. */
  readonly biases: readonly ("output" | "mlp")[];
  /** It reads `rope_freqs.weight`, by which every pair of positions is slowed on its own. */
  readonly ropeFactors: boolean;
  /** It reads `attention.sliding_window`; others see all tokens. */
  readonly windows: boolean;
  /** Its head is a tensor of its own, though it be the embedding. */
  readonly ownHead: boolean;
}

const LLAMA: GgufArchitecture = {
  name: "llama",
  paired: true,
  square: false,
  biases: ["output", "mlp"],
  ropeFactors: true,
  windows: false,
  ownHead: false,
};
const QWEN3: GgufArchitecture = { ...LLAMA, name: "qwen3", paired: false, biases: [], ropeFactors: false };
const OLMO2: GgufArchitecture = { ...QWEN3, name: "olmo2", square: true, ownHead: true };

export const GGUF_ARCHITECTURES: Readonly<Record<ModelType, GgufArchitecture>> = {
  llama: LLAMA,
  mistral: LLAMA,
  granite: { ...LLAMA, name: "granite" },
  smollm3: { ...QWEN3, name: "smollm3", paired: true },
  qwen2: { ...QWEN3, name: "qwen2", square: true },
  qwen3: QWEN3,
  olmo2: OLMO2,
  olmo3: { ...OLMO2, windows: true },
  phi3: { ...QWEN3, name: "phi3", square: true },
  gemma3_text: { ...QWEN3, name: "gemma3", windows: true },
};

/** In a smollm3 every so manieth layer has no positions, whatever its files say. */
export const NO_ROPE_INTERVAL = 4;

/** Of every so many layers the last sees all tokens, where the file does not say which. */
export const WINDOW_PATTERNS: Readonly<Partial<Record<ModelType, number>>> = { gemma3_text: 6, olmo3: 4 };

/** By what attention's scores of a gemma3 are divided: the square root of this. The one of 62 layers is the 27B. */
export const gemmaScalar = (layers: number, hiddenSize: number, numHeads: number, headDim: number): number =>
  layers === 62 ? Math.floor(hiddenSize / numHeads) : headDim;
