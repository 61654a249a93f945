/* out = silu(gate) up, silu(g) = g s(g), s the logistic function.
 * Backward: d_up = d_out silu(gate), d_gate = d_out up s (1 + gate (1 - s)). */
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

RLSD_INLINE float logistic(float x) { return 1.0f / (1.0f + exp_approx(-x)); }

RLSD_CLONES void forward_range(float* out, const float* gate, const float* up, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] * logistic(gate[i]) * up[i];
}

RLSD_CLONES void backward_range(float* d_gate, float* d_up, const float* d_out, const float* gate,
                                const float* up, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float s = logistic(gate[i]), d = d_out[i], g = gate[i];
    d_gate[i] = d * up[i] * s * (1.0f + g * (1.0f - s));
    d_up[i] = d * g * s;
  }
}

bool whole(const rlsd_tensor& t) {
  return t.data != nullptr && t.dtype == RLSD_F32 && is_contiguous(t);
}

}  // namespace

rlsd_status silu_mul(rlsd_context* context, rlsd_tensor out, rlsd_tensor gate, rlsd_tensor up) {
  if (!whole(out) || !whole(gate) || !whole(up)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "silu_mul: expected contiguous f32 tensors.");
  }
  return parallel_rows(context, element_count(out), 8, [&](int64_t begin, int64_t end) {
    forward_range(f32(out) + begin, f32(gate) + begin, f32(up) + begin, end - begin);
  });
}

rlsd_status silu_mul_backward(rlsd_context* context, rlsd_tensor d_gate, rlsd_tensor d_up,
                              rlsd_tensor d_out, rlsd_tensor gate, rlsd_tensor up) {
  if (!whole(d_gate) || !whole(d_up) || !whole(d_out) || !whole(gate) || !whole(up)) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "silu_mul_backward: expected contiguous f32 tensors.");
  }
  return parallel_rows(context, element_count(d_out), 12, [&](int64_t begin, int64_t end) {
    backward_range(f32(d_gate) + begin, f32(d_up) + begin, f32(d_out) + begin, f32(gate) + begin,
                   f32(up) + begin, end - begin);
  });
}

}  // namespace rlsd::cpu
