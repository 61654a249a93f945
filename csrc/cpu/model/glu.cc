/* out = a(gate) up, a(g) = g s(z(g)), s the logistic function:
 *   SiLU, z = g;
 *   GELU by its approximation with tanh, g (1 + tanh u) / 2 = g s(2 u): z = 2 u, u = sqrt(2 / pi)
 * (g + 0.044715 g^3). Backward: d_up = d_out a(gate), d_gate = d_out up s (1 + gate (1 - s)
 * z'(gate)). */
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

RLSD_INLINE float logistic(float x) { return 1.0f / (1.0f + exp_approx(-x)); }

struct Silu {
  static RLSD_INLINE float z(float g) { return g; }
  static RLSD_INLINE float slope(float) { return 1.0f; }
};

struct GeluTanh {
  static constexpr float kTwice = 1.5957691216057308f; /* 2 sqrt(2 / pi) */
  static constexpr float kCubic = 0.044715f;
  static RLSD_INLINE float z(float g) { return kTwice * (g + kCubic * g * g * g); }
  static RLSD_INLINE float slope(float g) { return kTwice * (1.0f + 3.0f * kCubic * g * g); }
};

template <class Activation>
RLSD_INLINE void forward_loop(float* out, const float* gate, const float* up, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = gate[i] * logistic(Activation::z(gate[i])) * up[i];
  }
}

template <class Activation>
RLSD_INLINE void backward_loop(float* d_gate, float* d_up, const float* d_out, const float* gate,
                               const float* up, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gate[i], s = logistic(Activation::z(g)), d = d_out[i];
    d_gate[i] = d * up[i] * s * (1.0f + g * (1.0f - s) * Activation::slope(g));
    d_up[i] = d * g * s;
  }
}

RLSD_CLONES void forward_range(float* out, const float* gate, const float* up, int64_t count,
                               int32_t activation) {
  if (activation == RLSD_SILU) return forward_loop<Silu>(out, gate, up, count);
  forward_loop<GeluTanh>(out, gate, up, count);
}

RLSD_CLONES void backward_range(float* d_gate, float* d_up, const float* d_out, const float* gate,
                                const float* up, int64_t count, int32_t activation) {
  if (activation == RLSD_SILU) {
    return backward_loop<Silu>(d_gate, d_up, d_out, gate, up, count);
  }
  backward_loop<GeluTanh>(d_gate, d_up, d_out, gate, up, count);
}

bool whole(const rlsd_tensor& t) {
  return t.data != nullptr && t.dtype == RLSD_F32 && is_contiguous(t);
}

bool known(int32_t activation) { return activation == RLSD_SILU || activation == RLSD_GELU_TANH; }

}  // namespace

rlsd_status glu(rlsd_context* context, rlsd_tensor out, rlsd_tensor gate, rlsd_tensor up,
                int32_t activation) {
  if (!whole(out) || !whole(gate) || !whole(up) || !known(activation)) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "glu: expected contiguous f32 tensors and an rlsd_activation.");
  }
  return parallel_rows(context, element_count(out), 8, [&](int64_t begin, int64_t end) {
    forward_range(f32(out) + begin, f32(gate) + begin, f32(up) + begin, end - begin, activation);
  });
}

rlsd_status glu_backward(rlsd_context* context, rlsd_tensor d_gate, rlsd_tensor d_up,
                         rlsd_tensor d_out, rlsd_tensor gate, rlsd_tensor up, int32_t activation) {
  if (!whole(d_gate) || !whole(d_up) || !whole(d_out) || !whole(gate) || !whole(up) ||
      !known(activation)) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "glu_backward: expected contiguous f32 tensors and an rlsd_activation.");
  }
  return parallel_rows(context, element_count(d_out), 12, [&](int64_t begin, int64_t end) {
    backward_range(f32(d_gate) + begin, f32(d_up) + begin, f32(d_out) + begin, f32(gate) + begin,
                   f32(up) + begin, end - begin, activation);
  });
}

}  // namespace rlsd::cpu
