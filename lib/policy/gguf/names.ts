import { ARCHITECTURES, type ModelType } from "../architecture.js";

/** Tensors outside layers. */
const OUTER: Readonly<Record<string, string>> = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};
export const HEAD = "output.weight";

const MODULES: Readonly<Record<string, string>> = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.qkv_proj": "attn_qkv",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.gate_up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

/** What Hugging Face's files call a layer's norms, whose names say other things in other models. */
const NORMS = {
  before: { input_layernorm: "attn_norm", post_attention_layernorm: "ffn_norm" },
  behind: { post_attention_layernorm: "post_attention_norm", post_feedforward_layernorm: "post_ffw_norm" },
  both: {
    input_layernorm: "attn_norm",
    post_attention_layernorm: "post_attention_norm",
    pre_feedforward_layernorm: "ffn_norm",
    post_feedforward_layernorm: "post_ffw_norm",
  },
} as const satisfies Record<string, Readonly<Record<string, string>>>;

/** What a GGUF file calls a parameter that safetensors files call `name`. */
export function ggufName(type: ModelType, name: string): string {
  const outer = OUTER[name];
  if (outer !== undefined) return outer;
  const [, layer, module, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) as RegExpExecArray;
  const norms: Readonly<Record<string, string>> = NORMS[ARCHITECTURES[type].norms];
  const own = MODULES[module as string] ?? norms[module as string];
  return `blk.${layer}.${own}.${kind}`;
}

export const isNorm = (name: string): boolean => name.endsWith("norm.weight");

/** Which heads' rows a parameter has: queries' or keys', weights or biases. */
export function headsOf(name: string): "queries" | "keys" | undefined {
  if (/\.q_proj\.(weight|bias)$/.test(name)) return "queries";
  return /\.k_proj\.(weight|bias)$/.test(name) ? "keys" : undefined;
}
