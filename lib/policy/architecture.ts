/** `model_type` of the config.json of what the engine computes. */
export const MODEL_TYPES = [
  "llama",
  "mistral",
  "qwen2",
  "qwen3",
  "smollm3",
  "olmo2",
  "olmo3",
  "granite",
  "phi3",
  "gemma3_text",
] as const;
/** One of them. */
export type ModelType = (typeof MODEL_TYPES)[number];

/** How a gated linear unit's gate is activated, by Hugging Face's names; csrc/include/rlsd/rlsd.h numbers them so. */
export const ACTIVATIONS = ["silu", "gelu_pytorch_tanh"] as const;

/** How positions may be scaled, as RopeConfig has it. */
export type RopeType = "default" | "linear" | "llama3" | "yarn" | "longrope";

/** What all models of a type have in common, and what transformers takes where their files say nothing. */
export interface Architecture {
  /** The class of transformers. */
  readonly className: string;
  /** On q, k and v: always, never, or as `attention_bias` says, which is about attention's output too. */
  readonly attentionBias: "always" | "never" | "optional";
  /** Whether the feed-forward part may have biases, as `mlp_bias` says. */
  readonly mlpBias: boolean;
  /** RMSNorm on queries and keys: on each head alone, or on all heads of a token together. */
  readonly qkNorm: "none" | "heads" | "whole";
  /** Norms multiply by this + their weight. */
  readonly normOffset: 0 | 1;
  /** Of what attention and the feed-forward part read, of what they add to the stream, or of both. */
  readonly norms: "before" | "behind" | "both";
  /** Where `rms_norm_eps` is left out. */
  readonly normEps: number;
  /** The embedding is multiplied by sqrt(hiddenSize). */
  readonly scaledEmbedding: boolean;
  /** Its files have multipliers of the embedding, of scores, of what layers add, and a divisor of logits. */
  readonly multipliers: boolean;
  /** The field that names the activation, and the only one that is computed. */
  readonly activation: readonly [field: string, name: (typeof ACTIVATIONS)[number]];
  /** Fields of what is not computed, whose value must be null or false. */
  readonly refused: readonly string[];
  /** Fields of dropout, which must be 0. Others are left out, as in evaluation. */
  readonly dropout: readonly string[];
  readonly tied: boolean;
  readonly headDim?: number;
  readonly numKvHeads?: number;
  /** In their files q, k and v are rows of one matrix, gate and up of another. */
  readonly fused: boolean;
  readonly theta: number;
  /** What their files may say of the scaling of positions, and what it means there. */
  readonly ropeTypes: Readonly<Record<string, RopeType>>;
  /** Only the first numbers of each head may be rotated. */
  readonly partialRotary: boolean;
  /** Longest sequence before scaling, where the file does not say it beside everything else. */
  readonly originalMaxLength?: number;
  /** Base of the rotary positions in layers that slide, where those have positions of their own. */
  readonly localTheta?: number;
  /** What older files call it. Absent: they do not say it. */
  readonly localThetaField?: string;
  /** Attention's scores are divided by the square root of `query_pre_attn_scalar`, not of the head's width. */
  readonly queryScalar?: number;
}

const LLAMA: Architecture = {
  className: "LlamaForCausalLM",
  attentionBias: "optional",
  mlpBias: true,
  qkNorm: "none",
  normOffset: 0,
  norms: "before",
  normEps: 1e-6,
  scaledEmbedding: false,
  multipliers: false,
  activation: ["hidden_act", "silu"],
  refused: [],
  dropout: ["attention_dropout"],
  tied: false,
  fused: false,
  theta: 1e4,
  ropeTypes: { default: "default", linear: "linear", llama3: "llama3", yarn: "yarn" },
  partialRotary: false,
};

const OLMO2: Architecture = {
  ...LLAMA,
  className: "Olmo2ForCausalLM",
  mlpBias: false,
  qkNorm: "whole",
  norms: "behind",
  normEps: 1e-5,
};

export const ARCHITECTURES: Readonly<Record<ModelType, Architecture>> = {
  llama: LLAMA,
  mistral: { ...LLAMA, className: "MistralForCausalLM", attentionBias: "never", mlpBias: false },
  qwen2: { ...LLAMA, className: "Qwen2ForCausalLM", attentionBias: "always", mlpBias: false },
  qwen3: { ...LLAMA, className: "Qwen3ForCausalLM", mlpBias: false, qkNorm: "heads", headDim: 128 },
  smollm3: { ...LLAMA, className: "SmolLM3ForCausalLM", tied: true, theta: 2e6 },
  gemma3_text: {
    ...LLAMA,
    className: "Gemma3ForCausalLM",
    mlpBias: false,
    qkNorm: "heads",
    normOffset: 1,
    norms: "both",
    scaledEmbedding: true,
    activation: ["hidden_activation", "gelu_pytorch_tanh"],
    refused: ["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"],
    tied: true,
    headDim: 256,
    numKvHeads: 4,
    theta: 1e6,
    localTheta: 1e4,
    localThetaField: "rope_local_base_freq",
    queryScalar: 256,
  },
  olmo2: OLMO2,
  olmo3: { ...OLMO2, className: "Olmo3ForCausalLM", theta: 5e5, localTheta: 5e5 },
  granite: { ...LLAMA, className: "GraniteForCausalLM", multipliers: true, dropout: [] },
  phi3: {
    ...LLAMA,
    className: "Phi3ForCausalLM",
    attentionBias: "never",
    mlpBias: false,
    normEps: 1e-5,
    dropout: ["attention_dropout", "resid_pdrop", "embd_pdrop"],
    fused: true,
    ropeTypes: { default: "default", longrope: "longrope", su: "longrope", yarn: "longrope" },
    partialRotary: true,
    originalMaxLength: 4096,
  },
};
