/* out = x rstd (offset + weight), rstd = 1 / sqrt(mean(x^2) + eps), for each row of x (R, C).
 *
 * Backward, with h = x rstd and g = d_out (offset + weight):
 *   d_x = rstd (g - h mean(g h))      d_weight += sum over rows of d_out h */
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

RLSD_CLONES float norm_row(float* out, const float* x, const float* weight, float offset,
                           int64_t columns, float eps) {
  float lanes[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += x[c + i] * x[c + i];
  }
  for (int i = 0; c < columns; ++c, ++i) lanes[i] += x[c] * x[c];
  const float rstd = 1.0f / std::sqrt(sum_lanes(lanes) / static_cast<float>(columns) + eps);
  for (int64_t k = 0; k < columns; ++k) out[k] = x[k] * rstd * (offset + weight[k]);
  return rstd;
}

RLSD_CLONES void norm_row_backward(float* d_x, const float* d_out, const float* x,
                                   const float* weight, float offset, float rstd, int64_t columns) {
  float lanes[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      lanes[i] += d_out[c + i] * (offset + weight[c + i]) * x[c + i];
    }
  }
  for (int i = 0; c < columns; ++c, ++i) lanes[i] += d_out[c] * (offset + weight[c]) * x[c];
  const float mean = sum_lanes(lanes) * rstd / static_cast<float>(columns);
  for (int64_t k = 0; k < columns; ++k) {
    d_x[k] = rstd * (d_out[k] * (offset + weight[k]) - x[k] * rstd * mean);
  }
}

RLSD_CLONES void add_weight_row(float* d_weight, const float* d_out, const float* x, float rstd,
                                int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) d_weight[c] += d_out[c] * x[c] * rstd;
}

}  // namespace

rlsd_status rms_norm(rlsd_context* context, rlsd_tensor out, rlsd_tensor rstd, rlsd_tensor x,
                     rlsd_tensor weight, double offset, double eps) {
  if (!is_f32(out, 2) || !is_f32(x, 2) || !is_f32(weight, 1)) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "rms_norm: expected f32 matrices and an f32 weight.");
  }
  const int64_t columns = x.shape[1];
  return parallel_rows(context, x.shape[0], 2 * columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float value =
          norm_row(f32(out) + i * out.stride[0], f32(x) + i * x.stride[0], f32(weight),
                   static_cast<float>(offset), columns, static_cast<float>(eps));
      if (rstd.data != nullptr) f32(rstd)[i] = value;
    }
  });
}

rlsd_status rms_norm_backward(rlsd_context* context, rlsd_tensor d_x, rlsd_tensor d_weight,
                              rlsd_tensor d_out, rlsd_tensor x, rlsd_tensor weight,
                              rlsd_tensor rstd, double offset) {
  const bool wanted = d_weight.data != nullptr;
  if (!is_f32(d_x, 2) || (wanted && !is_f32(d_weight, 1)) || !is_f32(d_out, 2) || !is_f32(x, 2)) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "rms_norm_backward: expected f32 matrices and weights.");
  }
  const int64_t rows = x.shape[0], columns = x.shape[1];
  if (wanted) { /* first: d_x may be d_out's own memory */
    const rlsd_status status =
        parallel_rows(context, columns, 2 * rows, [&](int64_t begin, int64_t end) {
          for (int64_t i = 0; i < rows; ++i) {
            add_weight_row(f32(d_weight) + begin, f32(d_out) + i * d_out.stride[0] + begin,
                           f32(x) + i * x.stride[0] + begin, f32(rstd)[i], end - begin);
          }
        });
    if (status != RLSD_OK) return status;
  }
  return parallel_rows(context, rows, 4 * columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      norm_row_backward(f32(d_x) + i * d_x.stride[0], f32(d_out) + i * d_out.stride[0],
                        f32(x) + i * x.stride[0], f32(weight), static_cast<float>(offset),
                        f32(rstd)[i], columns);
    }
  });
}

}  // namespace rlsd::cpu
