#include "cpu/model/attention_block.h"

#include "cpu/matmul_kernels.h"
#include "cpu/model/attention_kernels.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

/* Keys are computed in runs of kRun; those before the first that is seen, and from the end on to
 * that of a run, are computed and not used. */
constexpr int64_t kRun = 32;

RLSD_INLINE int64_t whole_runs(int64_t count) { return (count + kRun - 1) / kRun * kRun; }

/* Those of `width` numbers, one a key, whose key is not seen. */
RLSD_INLINE void set_unseen(float* numbers, KeyRange seen, int64_t width, float value) {
  for (int64_t j = 0; j < seen.first; ++j) numbers[j] = value;
  for (int64_t j = seen.end; j < width; ++j) numbers[j] = value;
}

/* The block's scores become exp(score - largest), 0 where they are not seen. Returns what the row's
 * sums so far are multiplied by. */
RLSD_CLONES float weigh(float* scores, KeyRange seen, float scale, SoftmaxState* state) {
  const int64_t width = whole_runs(seen.end);
  for (int64_t j = 0; j < width; ++j) scores[j] *= scale;
  set_unseen(scores, seen, width, -HUGE_VALF);
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = -HUGE_VALF;
  for (int64_t j = 0; j < width; j += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] = scores[j + i] > lanes[i] ? scores[j + i] : lanes[i];
  }
  float largest = state->largest;
  for (int i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  const float keep = exp_approx(state->largest - largest);
  for (int64_t j = 0; j < width; ++j) scores[j] = exp_approx(scores[j] - largest);
  for (int i = 0; i < kLanes; ++i) lanes[i] = 0.0f;
  for (int64_t j = 0; j < width; j += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += scores[j + i];
  }
  state->sum = state->sum * keep + sum_lanes(lanes);
  state->largest = largest;
  return keep;
}

}  // namespace

void pack_block(float* packed, const float* rows, int64_t stride, int64_t count, int64_t dim) {
  matmul_kernels().transpose(packed, kKeys, rows, stride, count, dim);
  const int64_t width = whole_runs(count);
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t j = count; j < width; ++j) packed[d * kKeys + j] = 0.0f;
  }
}

void attend_block(const BlockRow* rows, int64_t count, const KeyBlock& block, KeyRange seen,
                  int64_t dim, float scale) {
  const AttentionKernels& kernels = attention_kernels();
  const float *q[kRowTile], *weights[kRowTile];
  float scores[kRowTile][kKeys], keep[kRowTile], *out[kRowTile];
  for (int64_t r = 0; r < count; ++r) {
    q[r] = rows[r].q;
    weights[r] = scores[r] + seen.first;
    out[r] = rows[r].out;
  }
  kernels.scores[count - 1](scores, q, block.packed_keys, whole_runs(seen.end), dim);
  for (int64_t r = 0; r < count; ++r) {
    keep[r] = weigh(scores[r], seen, scale, rows[r].state);
  }
  kernels.add_weighted[count - 1](out, keep, weights, block.values + seen.first * block.stride,
                                  block.stride, seen.end - seen.first, dim);
}

RLSD_CLONES float finish_row(float* out, const SoftmaxState& state, int64_t dim) {
  const float inverse = 1.0f / state.sum;
  for (int64_t d = 0; d < dim; ++d) out[d] *= inverse;
  return state.largest + std::log(state.sum);
}

RLSD_CLONES float dot_row(const float* a, const float* b, int64_t dim) {
  float lanes[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += a[d + i] * b[d + i];
  }
  for (int i = 0; d < dim; ++d, ++i) lanes[i] += a[d] * b[d];
  return sum_lanes(lanes);
}

namespace {

/* p: scores, which become the keys' weights; ds: d_out . v, which become the scores' gradients. */
RLSD_CLONES void score_gradients(float* p, float* ds, const RowGradient& row, KeyRange seen,
                                 float scale) {
  const int64_t width = whole_runs(seen.end);
  for (int64_t j = 0; j < width; ++j) p[j] = exp_approx(p[j] * scale - row.lse);
  set_unseen(p, seen, width, 0.0f);
  for (int64_t j = 0; j < width; ++j) ds[j] = p[j] * (ds[j] - row.delta) * scale;
}

}  // namespace

void attend_block_backward(const RowGradient* rows, int64_t count, const BlockGradient& block,
                           KeyRange seen, int64_t dim, float scale) {
  const AttentionKernels& kernels = attention_kernels();
  float p[kRowTile][kKeys], ds[kRowTile][kKeys], one[kRowTile], *dq[kRowTile];
  const float *q[kRowTile], *d_out[kRowTile], *of_p[kRowTile], *of_ds[kRowTile];
  for (int64_t r = 0; r < count; ++r) {
    q[r] = rows[r].q;
    d_out[r] = rows[r].d_out;
    dq[r] = rows[r].dq;
    of_p[r] = p[r] + seen.first;
    of_ds[r] = ds[r] + seen.first;
    one[r] = 1.0f;
  }
  const int64_t width = whole_runs(seen.end), keys = seen.end - seen.first;
  const int64_t stride = block.stride, first = seen.first * stride;
  kernels.scores[count - 1](p, q, block.packed_keys, width, dim);
  kernels.scores[count - 1](ds, d_out, block.packed_values, width, dim);
  for (int64_t r = 0; r < count; ++r) score_gradients(p[r], ds[r], rows[r], seen, scale);
  kernels.add_weighted[count - 1](dq, one, of_ds, block.keys + first, stride, keys, dim);
  kernels.add_outer[count - 1](block.dk + first, stride, of_ds, q, keys, dim);
  kernels.add_outer[count - 1](block.dv + first, stride, of_p, d_out, keys, dim);
}

}  // namespace rlsd::cpu
