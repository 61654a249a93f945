/* x += y; x *= factor; to = from in another type; d_bias += the sum of d_out's rows. */
#include "core/half.h"
#include "core/memory.h"
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

RLSD_CLONES void add_range(float* x, const float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

RLSD_CLONES void scale_range(float* x, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

RLSD_CLONES void from_bf16(float* to, const uint16_t* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = bf16_to_float(from[i]);
}

RLSD_CLONES void from_f16(float* to, const uint16_t* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = f16_to_float(from[i]);
}

RLSD_CLONES void to_bf16(uint16_t* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = float_to_bf16(from[i]);
}

RLSD_CLONES void to_f16(uint16_t* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = float_to_f16(from[i]);
}

template <class To, class From>
rlsd_status convert_range(rlsd_context* context, const rlsd_tensor& to, const rlsd_tensor& from,
                          void (*range)(To*, const From*, int64_t)) {
  return parallel_rows(context, element_count(to), 2, [&](int64_t begin, int64_t end) {
    range(static_cast<To*>(to.data) + begin, static_cast<const From*>(from.data) + begin,
          end - begin);
  });
}

}  // namespace

rlsd_status residual_add(rlsd_context* context, rlsd_tensor x, rlsd_tensor y) {
  if (x.dtype != RLSD_F32 || y.dtype != RLSD_F32 || !is_contiguous(x) || !is_contiguous(y)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "residual_add: expected contiguous f32 tensors.");
  }
  return parallel_rows(context, element_count(x), 1, [&](int64_t begin, int64_t end) {
    add_range(f32(x) + begin, f32(y) + begin, end - begin);
  });
}

rlsd_status scale(rlsd_context* context, rlsd_tensor x, double factor) {
  if (x.dtype != RLSD_F32 || !is_contiguous(x)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "scale: expected a contiguous f32 tensor.");
  }
  return parallel_rows(context, element_count(x), 1, [&](int64_t begin, int64_t end) {
    scale_range(f32(x) + begin, static_cast<float>(factor), end - begin);
  });
}

rlsd_status convert(rlsd_context* context, rlsd_tensor to, rlsd_tensor from) {
  if (!is_contiguous(to) || !is_contiguous(from)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "convert: expected contiguous tensors.");
  }
  if (to.dtype == RLSD_F32 && from.dtype == RLSD_BF16)
    return convert_range(context, to, from, from_bf16);
  if (to.dtype == RLSD_F32 && from.dtype == RLSD_F16)
    return convert_range(context, to, from, from_f16);
  if (to.dtype == RLSD_BF16 && from.dtype == RLSD_F32)
    return convert_range(context, to, from, to_bf16);
  if (to.dtype == RLSD_F16 && from.dtype == RLSD_F32)
    return convert_range(context, to, from, to_f16);
  if (to.dtype != from.dtype) {
    return fail(context, RLSD_UNSUPPORTED, -1, "convert: one of the two types must be f32.");
  }
  std::memmove(to.data, from.data,
               static_cast<size_t>(element_count(to) * element_bytes(to.dtype)));
  return RLSD_OK;
}

rlsd_status bias_backward(rlsd_context* context, rlsd_tensor d_bias, rlsd_tensor d_out) {
  if (!is_f32(d_bias, 1) || !is_f32(d_out, 2)) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "bias_backward: expected an f32 bias and an f32 matrix.");
  }
  const int64_t rows = d_out.shape[0];
  return parallel_rows(context, d_out.shape[1], rows, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < rows; ++i) {
      add_range(f32(d_bias) + begin, f32(d_out) + i * d_out.stride[0] + begin, end - begin);
    }
  });
}

}  // namespace rlsd::cpu
