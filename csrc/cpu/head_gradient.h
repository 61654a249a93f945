/* From the gradient of logits, dz (rows, vocab), a chunk of tokens at a time, to the gradients of what made them:
 *
 *   d_hidden = dz head      d_head += dz^T hidden      d_bias += sum of dz over rows
 *
 * Sums over rows are float32 (the bias: double) and rounded once, at the end, where the caller's memory is a 16-bit
 * type. That takes a float32 array of the head's shape, unless all tokens fit one chunk. */
#ifndef RLSD_CPU_HEAD_GRADIENT_H_
#define RLSD_CPU_HEAD_GRADIENT_H_

#include "cpu/head_logits.h"

namespace rlsd::cpu {

/* Fails when a gradient shares memory with a tensor of a view, which is read while it is written. */
rlsd_status check_apart(rlsd_context* context, const rlsd_tensor& gradient, const rlsd_scores& view);

class HeadGradient {
 public:
  /* Tensors without data are not wanted. */
  HeadGradient(const HeadView& view, const rlsd_tensor& hidden, const rlsd_tensor& head, const rlsd_tensor& bias,
               bool accumulate)
      : view_(view), hidden_(hidden), head_(head), bias_(bias), accumulate_(accumulate) {}

  bool wanted() const { return hidden_.data != nullptr || head_.data != nullptr || bias_.data != nullptr; }

  /* Shapes, dtypes, and that nothing written shares memory with the view. */
  rlsd_status check(rlsd_context* context) const;

  void cut(const HeadChunk& chunk, int64_t tokens, Workspace* workspace);

  /* Marks token i of the chunk as one without gradient: it leaves every product, whatever its numbers are. */
  void drop(int64_t i) { dropped_[i] = 1; }
  void begin_chunk(int64_t count) const;

  /* Adds a chunk: `chunk` holds dz of `count` tokens and their hidden states. */
  rlsd_status add(rlsd_context* context, const int32_t* tokens, int64_t count, const HeadChunk& chunk);

  /* Rounds the sums into the caller's memory, and zeroes what no token reached. */
  rlsd_status finish(rlsd_context* context);

  /* Zeroes the gradient of one row of hidden. */
  void zero_row(int64_t row) const;

 private:
  rlsd_status write_hidden(rlsd_context* context, const int32_t* tokens, int64_t count, const HeadChunk& chunk);
  rlsd_status add_head(rlsd_context* context, int64_t count, const HeadChunk& chunk);
  rlsd_status add_bias(rlsd_context* context, int64_t count, const HeadChunk& chunk);
  void finish_head_row(int64_t row) const;
  void finish_bias() const;

  HeadView view_;
  rlsd_tensor hidden_, head_, bias_;
  bool accumulate_;
  bool started_ = false;
  uint8_t* dropped_ = nullptr; /* (chunk rows) */
  float* d_hidden_ = nullptr;  /* (chunk rows, width) */
  float* head_sum_ = nullptr;  /* (vocab, width); NULL: sums are made in place */
  double* bias_sum_ = nullptr; /* (vocab) */
};

}  // namespace rlsd::cpu

#endif
