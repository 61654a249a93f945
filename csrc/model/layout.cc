#include "model/layout.h"

namespace rlsd::model {
namespace {

constexpr int64_t kAlign = 16;

std::string layer_name(int64_t layer, const std::string& rest) {
  return "model.layers." + std::to_string(layer) + "." + rest;
}

/* Name and shape of a layer's matrices. */
struct ProjectionShape {
  const char* name;
  int64_t out, in;
  bool bias;
};

std::array<ProjectionShape, kProjections> projections(const Config& c) {
  return {{{"self_attn.q_proj", c.q_width(), c.hidden, c.qkv_bias},
           {"self_attn.k_proj", c.kv_width(), c.hidden, c.qkv_bias},
           {"self_attn.v_proj", c.kv_width(), c.hidden, c.qkv_bias},
           {"self_attn.o_proj", c.hidden, c.q_width(), c.o_bias},
           {"mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias},
           {"mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias},
           {"mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias}}};
}

void add_matrices(Layout* to, const Config& c, int64_t i) {
  LayerOffsets& at = to->layers[static_cast<size_t>(i)];
  size_t p = 0;
  for (const ProjectionShape& s : projections(c)) {
    LinearOffsets& linear = at.linear[p++];
    linear.weight = to->add(layer_name(i, std::string(s.name) + ".weight"), s.out, s.in);
    linear.out = s.out;
    linear.in = s.in;
  }
}

void add_vectors(Layout* to, const Config& c, int64_t i) {
  LayerOffsets& at = to->layers[static_cast<size_t>(i)];
  const auto norm = [&](const char* name) {
    return to->add(layer_name(i, std::string(name) + ".weight"), 0, c.hidden);
  };
  if (c.pre_norms) at.norm1 = norm("input_layernorm");
  if (c.post_norms) {
    at.post_norm1 = norm("post_attention_layernorm");
    if (c.pre_norms) at.norm2 = norm("pre_feedforward_layernorm");
    at.post_norm2 = norm("post_feedforward_layernorm");
  } else { /* the name that Hugging Face gives the norm before the feed-forward part */
    at.norm2 = norm("post_attention_layernorm");
  }
  if (c.qk_norm) {
    at.q_norm =
        to->add(layer_name(i, "self_attn.q_norm.weight"), 0, c.q_width() / c.norms_of(c.heads));
    at.k_norm =
        to->add(layer_name(i, "self_attn.k_norm.weight"), 0, c.kv_width() / c.norms_of(c.kv_heads));
  }
  size_t p = 0;
  for (const ProjectionShape& s : projections(c)) {
    LinearOffsets& linear = at.linear[p++];
    if (s.bias) linear.bias = to->add(layer_name(i, std::string(s.name) + ".bias"), 0, s.out);
  }
}

}  // namespace

int64_t ParameterBlock::add(std::string name, int64_t rows, int64_t columns) {
  const int64_t offset = count;
  parameters.push_back({std::move(name), rows, columns, offset});
  const int64_t size = parameters.back().count();
  parameter_count += size;
  count += (size + kAlign - 1) / kAlign * kAlign;
  return offset;
}

Layout make_layout(const Config& config) {
  Layout layout;
  layout.layers.resize(static_cast<size_t>(config.layers));
  layout.embedding = layout.add("model.embed_tokens.weight", config.vocab, config.hidden);
  for (int64_t i = 0; i < config.layers; ++i) add_matrices(&layout, config, i);
  layout.head =
      config.tied ? layout.embedding : layout.add("lm_head.weight", config.vocab, config.hidden);
  layout.decaying = layout.count;
  for (int64_t i = 0; i < config.layers; ++i) add_vectors(&layout, config, i);
  layout.final_norm = layout.add("model.norm.weight", 0, config.hidden);
  return layout;
}

AdapterLayout make_adapter_layout(const Config& config) {
  AdapterLayout layout;
  if (!config.has_adapters()) return layout;
  layout.layers.resize(static_cast<size_t>(config.layers));
  for (int64_t i = 0; i < config.layers; ++i) {
    size_t p = 0;
    for (const ProjectionShape& s : projections(config)) {
      AdapterOffsets& at = layout.layers[static_cast<size_t>(i)][p];
      if ((config.adapted >> p++ & 1) == 0) continue;
      const std::string name = "base_model.model." + layer_name(i, s.name);
      at.a = layout.add(name + ".lora_A.weight", config.rank, s.in);
      at.b = layout.add(name + ".lora_B.weight", s.out, config.rank);
    }
  }
  layout.decaying = layout.count;
  return layout;
}

}  // namespace rlsd::model
