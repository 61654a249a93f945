/* Shape of a decoder and the place of each parameter in the one block that holds them all.
 *
 * Matrices come first, norms and biases last: weight decay is for [0, decaying) alone. Every
 * parameter starts on a cache line; the gaps are 0 in weights, gradients and optimizer state. */
#ifndef RLSD_MODEL_LAYOUT_H_
#define RLSD_MODEL_LAYOUT_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace rlsd::model {

struct Config {
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, max_length;
  double norm_eps;
  double rope_factor; /* multiplies cosines and sines */
  bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;

  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

inline double attention_scale(const Config& c) {
  return 1.0 / std::sqrt(static_cast<double>(c.head_dim));
}

struct Parameter {
  std::string name;      /* Hugging Face's */
  int64_t rows, columns; /* rows 0: a vector of `columns` */
  int64_t offset;        /* in floats */

  int64_t count() const { return (rows > 0 ? rows : 1) * columns; }
};

/* Offsets of one layer's parameters; -1: the model has none. */
struct LayerOffsets {
  int64_t q = -1, k = -1, v = -1, o = -1, gate = -1, up = -1, down = -1;
  int64_t norm1 = -1, norm2 = -1, q_norm = -1, k_norm = -1;
  int64_t q_bias = -1, k_bias = -1, v_bias = -1, o_bias = -1, gate_bias = -1, up_bias = -1,
          down_bias = -1;
};

struct Layout {
  std::vector<Parameter> parameters;
  std::vector<LayerOffsets> layers;
  int64_t embedding = -1, head = -1, final_norm = -1; /* a tied head is the embedding */
  int64_t decaying = 0;                               /* floats of the matrices */
  int64_t count = 0;                                  /* floats in all, gaps included */
  int64_t parameter_count = 0;                        /* without gaps */
};

Layout make_layout(const Config& config);

}  // namespace rlsd::model

#endif
