#include "cpu/model/attention_block.h"

#include "cpu/matmul_kernels.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

/* Keys are computed in runs of kRun; those before the first that is seen, and from the end on to
 * that of a run, are computed and not used. */
constexpr int64_t kRun = 32;

RLSD_INLINE int64_t whole_runs(int64_t count) { return (count + kRun - 1) / kRun * kRun; }

/* scores[j] = sum over d of q[d] packed[d][j], in the order of d, for kWidth keys. */
template <int kWidth>
RLSD_INLINE void score_keys(float* scores, const float* q, const float* packed, int64_t dim) {
  float sums[kWidth] = {};
  for (int64_t d = 0; d < dim; ++d) {
    const float* row = packed + d * kKeys;
    for (int j = 0; j < kWidth; ++j) sums[j] += q[d] * row[j];
  }
  for (int j = 0; j < kWidth; ++j) scores[j] = sums[j];
}

/* The first `width` keys. A whole block at once: more sums that do not wait for each other. */
RLSD_INLINE void score_block(float* scores, const float* q, const float* packed, int64_t width,
                             int64_t dim) {
  if (width == kKeys) return score_keys<kKeys>(scores, q, packed, dim);
  for (int64_t run = 0; run < width; run += kRun) {
    score_keys<kRun>(scores + run, q, packed + run, dim);
  }
}

/* Those of `width` numbers, one a key, whose key is not seen. */
RLSD_INLINE void set_unseen(float* numbers, KeyRange seen, int64_t width, float value) {
  for (int64_t j = 0; j < seen.first; ++j) numbers[j] = value;
  for (int64_t j = seen.end; j < width; ++j) numbers[j] = value;
}

/* out[i] += sum over j of weights[j] rows[j][i] for kWidth columns, in the order of j. */
template <int kWidth>
RLSD_INLINE void weighted_rows(float* out, float keep, const float* weights, const float* rows,
                               int64_t stride, int64_t count) {
  float sums[kWidth] = {};
  for (int64_t j = 0; j < count; ++j) {
    for (int i = 0; i < kWidth; ++i) sums[i] += weights[j] * rows[j * stride + i];
  }
  for (int i = 0; i < kWidth; ++i) out[i] = out[i] * keep + sums[i];
}

/* out = out keep + weights rows, all columns. */
RLSD_INLINE void add_weighted(float* out, float keep, const float* weights, const float* rows,
                              int64_t stride, int64_t count, int64_t dim) {
  int64_t d = 0;
  for (; d + 64 <= dim; d += 64) weighted_rows<64>(out + d, keep, weights, rows + d, stride, count);
  for (; d + 32 <= dim; d += 32) weighted_rows<32>(out + d, keep, weights, rows + d, stride, count);
  for (; d + 16 <= dim; d += 16) weighted_rows<16>(out + d, keep, weights, rows + d, stride, count);
  for (; d + 8 <= dim; d += 8) weighted_rows<8>(out + d, keep, weights, rows + d, stride, count);
  for (; d < dim; ++d) weighted_rows<1>(out + d, keep, weights, rows + d, stride, count);
}

}  // namespace

void pack_block(float* packed, const float* rows, int64_t stride, int64_t count, int64_t dim) {
  matmul_kernels().transpose(packed, kKeys, rows, stride, count, dim);
  const int64_t width = whole_runs(count);
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t j = count; j < width; ++j) packed[d * kKeys + j] = 0.0f;
  }
}

RLSD_CLONES void attend_block(const float* q, const float* packed_keys, const float* values,
                              int64_t stride, KeyRange seen, int64_t dim, float scale,
                              SoftmaxState* state, float* out) {
  const int64_t width = whole_runs(seen.end);
  float scores[kKeys];
  score_block(scores, q, packed_keys, width, dim);
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
  add_weighted(out, keep, scores + seen.first, values + seen.first * stride, stride,
               seen.end - seen.first, dim);
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

RLSD_CLONES void attend_block_backward(const RowGradient& row, const BlockGradient& block,
                                       KeyRange seen, int64_t dim, float scale) {
  const int64_t width = whole_runs(seen.end);
  float p[kKeys], ds[kKeys];
  score_block(p, row.q, block.packed_keys, width, dim);
  score_block(ds, row.d_out, block.packed_values, width, dim);
  for (int64_t j = 0; j < width; ++j) p[j] = exp_approx(p[j] * scale - row.lse);
  set_unseen(p, seen, width, 0.0f);
  for (int64_t j = 0; j < width; ++j) ds[j] = p[j] * (ds[j] - row.delta) * scale;
  add_weighted(row.dq, 1.0f, ds + seen.first, block.keys + seen.first * block.stride, block.stride,
               seen.end - seen.first, dim);
  for (int64_t j = seen.first; j < seen.end; ++j) {
    float* dk = block.dk + j * block.stride;
    float* dv = block.dv + j * block.stride;
    for (int64_t d = 0; d < dim; ++d) dk[d] += ds[j] * row.q[d];
    for (int64_t d = 0; d < dim; ++d) dv[d] += p[j] * row.d_out[d];
  }
}

}  // namespace rlsd::cpu
