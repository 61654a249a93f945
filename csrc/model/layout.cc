#include "model/layout.h"

namespace rlsd::model {
namespace {

constexpr int64_t kAlign = 16;

std::string layer_name(int64_t layer, const std::string& rest) {
  return "model.layers." + std::to_string(layer) + "." + rest;
}

/* A matrix of a layer, and the projections whose rows it holds, one after another. */
struct StoredMatrix {
  const char* name;
  Projection first;
  int count;
};

std::vector<StoredMatrix> matrices(const Config& c) {
  if (c.fused) {
    return {{"self_attn.qkv_proj", kQ, 3},
            {"self_attn.o_proj", kO, 1},
            {"mlp.gate_up_proj", kGate, 2},
            {"mlp.down_proj", kDown, 1}};
  }
  return {{"self_attn.q_proj", kQ, 1}, {"self_attn.k_proj", kK, 1}, {"self_attn.v_proj", kV, 1},
          {"self_attn.o_proj", kO, 1}, {"mlp.gate_proj", kGate, 1}, {"mlp.up_proj", kUp, 1},
          {"mlp.down_proj", kDown, 1}};
}

struct ProjectionShape {
  int64_t out, in;
  bool bias;
};

ProjectionShape shape_of(const Config& c, int p) {
  const ProjectionShape shapes[kProjections] = {
      {c.q_width(), c.hidden, c.qkv_bias},    {c.kv_width(), c.hidden, c.qkv_bias},
      {c.kv_width(), c.hidden, c.qkv_bias},   {c.hidden, c.q_width(), c.o_bias},
      {c.intermediate, c.hidden, c.mlp_bias}, {c.intermediate, c.hidden, c.mlp_bias},
      {c.hidden, c.intermediate, c.mlp_bias}};
  return shapes[p];
}

/* Of all the projections that a matrix holds. */
ProjectionShape shape_of(const Config& c, const StoredMatrix& m) {
  ProjectionShape whole = shape_of(c, m.first);
  for (int p = m.first + 1; p < m.first + m.count; ++p) whole.out += shape_of(c, p).out;
  return whole;
}

void add_matrices(Layout* to, const Config& c, int64_t i) {
  LayerOffsets& at = to->layers[static_cast<size_t>(i)];
  for (const StoredMatrix& m : matrices(c)) {
    const ProjectionShape whole = shape_of(c, m);
    int64_t offset = to->add(layer_name(i, std::string(m.name) + ".weight"), whole.out, whole.in);
    for (int p = m.first; p < m.first + m.count; ++p) {
      LinearOffsets& linear = at.linear[static_cast<size_t>(p)];
      linear.weight = offset;
      linear.out = shape_of(c, p).out;
      linear.in = whole.in;
      offset += linear.out * linear.in;
    }
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
  for (const StoredMatrix& m : matrices(c)) {
    const ProjectionShape whole = shape_of(c, m);
    if (!whole.bias) continue;
    int64_t offset = to->add(layer_name(i, std::string(m.name) + ".bias"), 0, whole.out);
    for (int p = m.first; p < m.first + m.count; ++p) {
      LinearOffsets& linear = at.linear[static_cast<size_t>(p)];
      linear.bias = offset;
      offset += linear.out;
    }
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
    for (const StoredMatrix& m : matrices(config)) {
      if ((config.adapted >> m.first & 1) == 0) continue;
      const ProjectionShape whole = shape_of(config, m);
      const std::string name = "base_model.model." + layer_name(i, m.name);
      const int64_t a = layout.add(name + ".lora_A.weight", config.rank, whole.in);
      int64_t b = layout.add(name + ".lora_B.weight", whole.out, config.rank);
      for (int p = m.first; p < m.first + m.count; ++p) {
        layout.layers[static_cast<size_t>(i)][static_cast<size_t>(p)] = {a, b};
        b += shape_of(config, p).out * config.rank;
      }
    }
  }
  layout.decaying = layout.count;
  return layout;
}

}  // namespace rlsd::model
