/* Query rows against one block of kKeys keys: the arithmetic that training, prefill and decoding
 * share, so that their results agree bit for bit. Blocks start at key 0 of a sequence and are
 * visited in order. */
#ifndef RLSD_CPU_MODEL_ATTENTION_BLOCK_H_
#define RLSD_CPU_MODEL_ATTENTION_BLOCK_H_

#include <cstdint>

#include "cpu/model/attention_kernels.h"

namespace rlsd::cpu {

constexpr int64_t kMaxHeadDim = 256;

/* The first `count` keys (or values) of a block, turned to (D, kKeys). */
void pack_block(float* packed, const float* rows, int64_t stride, int64_t count, int64_t dim);

/* Running softmax of a row: the largest score and the sum of exp(score - largest). */
struct SoftmaxState {
  float largest, sum;
};

/* The keys of a block that a row sees: from `first` on, before `end`; at least one. */
struct KeyRange {
  int64_t first, end;

  bool whole() const { return first == 0 && end == kKeys; }
};

/* A row as it goes over its blocks: its sums so far and out (D), which stays unnormalised. */
struct BlockRow {
  const float* q;
  SoftmaxState* state;
  float* out;
};

struct KeyBlock {
  const float* packed_keys;
  const float* values;
  int64_t stride; /* of values: floats from one key to the next */
};

/* Adds the keys that a few rows see alike, at most kRowTile of them. */
void attend_block(const BlockRow* rows, int64_t count, const KeyBlock& block, KeyRange seen,
                  int64_t dim, float scale);

/* out / sum, and the row's log-sum-exp. */
float finish_row(float* out, const SoftmaxState& state, int64_t dim);

/* What the gradient of one row needs of its forward pass: delta = sum over D of d_out out. */
struct RowGradient {
  const float* q;
  const float* d_out;
  float* dq;
  float lse, delta;
};

struct BlockGradient {
  const float* packed_keys;
  const float* packed_values;
  const float* keys;
  int64_t stride; /* of keys, dk, dv: floats from one key to the next */
  float* dk;
  float* dv;
};

/* Adds to dq what a few rows, at most kRowTile, have of the keys that they see alike, and to the
 * block's dk and dv what these have of them, in the order of the rows. */
void attend_block_backward(const RowGradient* rows, int64_t count, const BlockGradient& block,
                           KeyRange seen, int64_t dim, float scale);

float dot_row(const float* a, const float* b, int64_t dim);

}  // namespace rlsd::cpu

#endif
