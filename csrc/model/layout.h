/* Shape of a decoder and the place of each parameter in the one block that holds them all.
 *
 * Matrices come first, norms and biases last: weight decay is for [0, decaying) alone. Every
 * parameter starts on a cache line; the gaps are 0 in weights, gradients and optimizer state.
 *
 * Low-rank adapters (LoRA, arXiv 2106.09685) have a block of their own: y = W x becomes
 * y = W x + scale B (A x) with A (rank, in) and B (out, rank), and A and B alone are trained. */
#ifndef RLSD_MODEL_LAYOUT_H_
#define RLSD_MODEL_LAYOUT_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace rlsd::model {

struct Config {
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
  int64_t rotary; /* numbers of each head that are rotated, its first ones: even */
  double norm_eps;
  double norm_offset;       /* a norm multiplies by this + its weight */
  double rope_factor;       /* multiplies cosines and sines */
  double local_rope_factor; /* the same in layers that slide, where those have their own */
  double attention_scale;   /* multiplies scores of attention */
  double embedding_scale;   /* multiplies what enters the first layer */
  double residual_scale;    /* multiplies what attention and feed-forward add to the stream */
  double logit_scale;       /* multiplies logits, by way of the hidden states that the head reads */
  bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
  bool fused;                /* q, k and v are rows of one matrix, gate and up of another */
  bool whole_qk_norm;        /* one norm over all heads of a query or key, not one for each */
  bool pre_norms;            /* attention and feed-forward read the stream's norm, not itself */
  bool post_norms;           /* what they add to it is normed before */
  bool local_rope;           /* sliding layers have rotary frequencies of their own */
  int32_t activation;        /* rlsd_activation */
  int64_t no_rope_interval;  /* every so manieth layer knows no positions (NoPE); 0: all do */
  int64_t window = 0;        /* tokens that a query of a sliding layer sees, its own included */
  std::vector<bool> sliding; /* by layer; empty: none is */
  int64_t rank = 0;          /* of the adapters; 0: there are none */
  double adapter_scale = 0;  /* alpha / rank, or alpha / sqrt(rank) */
  uint32_t adapted = 0;      /* bit p: the matrix of projection p has an adapter */

  bool has_adapters() const { return rank > 0; }
  bool rotates(int64_t layer) const {
    return no_rope_interval == 0 || (layer + 1) % no_rope_interval != 0;
  }
  bool slides(int64_t layer) const {
    return !sliding.empty() && sliding[static_cast<size_t>(layer)];
  }
  /* Of the layer's attention, as rlsd_attention_args has it. */
  int64_t window_of(int64_t layer) const { return slides(layer) ? window : 0; }
  bool turns_locally(int64_t layer) const { return local_rope && slides(layer); }
  double rope_factor_of(int64_t layer) const {
    return turns_locally(layer) ? local_rope_factor : rope_factor;
  }
  /* Norms of a query or key of so many heads. */
  int64_t norms_of(int64_t heads_normed) const { return whole_qk_norm ? 1 : heads_normed; }
  /* Floats of one set of rotary frequencies, and of all: those of sliding layers come second. */
  int64_t frequency_count() const { return rotary / 2; }
  int64_t frequencies() const { return (local_rope ? 2 : 1) * frequency_count(); }
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

struct Parameter {
  std::string name;      /* Hugging Face's */
  int64_t rows, columns; /* rows 0: a vector of `columns` */
  int64_t offset;        /* in floats */

  int64_t count() const { return (rows > 0 ? rows : 1) * columns; }
};

/* A layer's matrices, in the order of their place in the block. */
enum Projection { kQ, kK, kV, kO, kGate, kUp, kDown, kProjections };

/* y (out) = W x (in) + b; -1: no bias. W and b may be rows of a larger parameter. */
struct LinearOffsets {
  int64_t weight = -1, bias = -1, out = 0, in = 0;
};

/* Offsets of one layer's parameters; -1: the model has none. Norms 1 are around attention, norms 2
 * around the feed-forward part. */
struct LayerOffsets {
  std::array<LinearOffsets, kProjections> linear;
  int64_t norm1 = -1, norm2 = -1, post_norm1 = -1, post_norm2 = -1, q_norm = -1, k_norm = -1;
};

/* Parameters one after another in one block of floats. */
struct ParameterBlock {
  std::vector<Parameter> parameters;
  int64_t decaying = 0;        /* floats of the matrices */
  int64_t count = 0;           /* floats in all, gaps included */
  int64_t parameter_count = 0; /* without gaps */

  /* The offset of a new parameter at the end. */
  int64_t add(std::string name, int64_t rows, int64_t columns);
};

struct Layout : ParameterBlock {
  std::vector<LayerOffsets> layers;
  int64_t embedding = -1, head = -1, final_norm = -1; /* a tied head is the embedding */
};

/* Offsets of an adapter; -1: the matrix has none. Rows of one matrix have one A, and B's rows. */
struct AdapterOffsets {
  int64_t a = -1, b = -1;
};

struct AdapterLayout : ParameterBlock {
  std::vector<std::array<AdapterOffsets, kProjections>> layers;
};

Layout make_layout(const Config& config);
/* Names are those of the PEFT library's files. */
AdapterLayout make_adapter_layout(const Config& config);

}  // namespace rlsd::model

#endif
