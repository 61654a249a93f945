#include "model/layout.h"

namespace rlsd::model {
namespace {

constexpr int64_t kAlign = 16;

class Builder {
 public:
  explicit Builder(Layout* layout) : layout_(layout) {}

  int64_t add(std::string name, int64_t rows, int64_t columns) {
    const int64_t offset = layout_->count;
    layout_->parameters.push_back({std::move(name), rows, columns, offset});
    const int64_t count = layout_->parameters.back().count();
    layout_->parameter_count += count;
    layout_->count += (count + kAlign - 1) / kAlign * kAlign;
    return offset;
  }

 private:
  Layout* layout_;
};

std::string layer_name(int64_t layer, const char* rest) {
  return "model.layers." + std::to_string(layer) + "." + rest;
}

void add_matrices(Builder* b, const Config& c, int64_t i, LayerOffsets* at) {
  at->q = b->add(layer_name(i, "self_attn.q_proj.weight"), c.q_width(), c.hidden);
  at->k = b->add(layer_name(i, "self_attn.k_proj.weight"), c.kv_width(), c.hidden);
  at->v = b->add(layer_name(i, "self_attn.v_proj.weight"), c.kv_width(), c.hidden);
  at->o = b->add(layer_name(i, "self_attn.o_proj.weight"), c.hidden, c.q_width());
  at->gate = b->add(layer_name(i, "mlp.gate_proj.weight"), c.intermediate, c.hidden);
  at->up = b->add(layer_name(i, "mlp.up_proj.weight"), c.intermediate, c.hidden);
  at->down = b->add(layer_name(i, "mlp.down_proj.weight"), c.hidden, c.intermediate);
}

void add_vectors(Builder* b, const Config& c, int64_t i, LayerOffsets* at) {
  at->norm1 = b->add(layer_name(i, "input_layernorm.weight"), 0, c.hidden);
  at->norm2 = b->add(layer_name(i, "post_attention_layernorm.weight"), 0, c.hidden);
  if (c.qk_norm) {
    at->q_norm = b->add(layer_name(i, "self_attn.q_norm.weight"), 0, c.head_dim);
    at->k_norm = b->add(layer_name(i, "self_attn.k_norm.weight"), 0, c.head_dim);
  }
  if (c.qkv_bias) {
    at->q_bias = b->add(layer_name(i, "self_attn.q_proj.bias"), 0, c.q_width());
    at->k_bias = b->add(layer_name(i, "self_attn.k_proj.bias"), 0, c.kv_width());
    at->v_bias = b->add(layer_name(i, "self_attn.v_proj.bias"), 0, c.kv_width());
  }
  if (c.o_bias) at->o_bias = b->add(layer_name(i, "self_attn.o_proj.bias"), 0, c.hidden);
  if (c.mlp_bias) {
    at->gate_bias = b->add(layer_name(i, "mlp.gate_proj.bias"), 0, c.intermediate);
    at->up_bias = b->add(layer_name(i, "mlp.up_proj.bias"), 0, c.intermediate);
    at->down_bias = b->add(layer_name(i, "mlp.down_proj.bias"), 0, c.hidden);
  }
}

}  // namespace

Layout make_layout(const Config& config) {
  Layout layout;
  Builder b(&layout);
  layout.layers.resize(static_cast<size_t>(config.layers));
  layout.embedding = b.add("model.embed_tokens.weight", config.vocab, config.hidden);
  for (int64_t i = 0; i < config.layers; ++i)
    add_matrices(&b, config, i, &layout.layers[static_cast<size_t>(i)]);
  layout.head =
      config.tied ? layout.embedding : b.add("lm_head.weight", config.vocab, config.hidden);
  layout.decaying = layout.count;
  for (int64_t i = 0; i < config.layers; ++i)
    add_vectors(&b, config, i, &layout.layers[static_cast<size_t>(i)]);
  layout.final_norm = b.add("model.norm.weight", 0, config.hidden);
  return layout;
}

}  // namespace rlsd::model
