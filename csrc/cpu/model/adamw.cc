/* AdamW (Loshchilov and Hutter, 2019), decay decoupled, and the squared norm that clipping needs.
 *   g = gradient_scale gradient;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   w = w (1 - lr decay) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) */
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

struct Update {
  float beta1, beta2, keep, step_size, inverse_correction, eps, gradient_scale;
};

RLSD_CLONES void update_range(float* w, float* m, float* v, const float* gradient, const Update u,
                              int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * u.gradient_scale;
    m[i] = u.beta1 * m[i] + (1.0f - u.beta1) * g;
    v[i] = u.beta2 * v[i] + (1.0f - u.beta2) * g * g;
    w[i] = w[i] * u.keep - u.step_size * m[i] / (std::sqrt(v[i]) * u.inverse_correction + u.eps);
  }
}

RLSD_CLONES double squares(const float* x, int64_t count) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int k = 0; k < 8; ++k)
      lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  for (int k = 0; i < count; ++i, ++k)
    lanes[k] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

rlsd_status adamw(rlsd_context* context, const rlsd_adamw_args* a) {
  if (a->weight.dtype != RLSD_F32 || !is_contiguous(a->weight)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "adamw: expected contiguous f32 tensors.");
  }
  const double t = static_cast<double>(a->step);
  const Update u = {static_cast<float>(a->beta1),
                    static_cast<float>(a->beta2),
                    static_cast<float>(1.0 - a->learning_rate * a->weight_decay),
                    static_cast<float>(a->learning_rate / (1.0 - std::pow(a->beta1, t))),
                    static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(a->beta2, t))),
                    static_cast<float>(a->eps),
                    static_cast<float>(a->gradient_scale)};
  return parallel_rows(context, element_count(a->weight), 8, [&](int64_t begin, int64_t end) {
    update_range(f32(a->weight) + begin, f32(a->m) + begin, f32(a->v) + begin,
                 f32(a->gradient) + begin, u, end - begin);
  });
}

/* At most kParts partial sums, cut by the count alone and added in their order. */
rlsd_status squared_norm(rlsd_context* context, rlsd_tensor x, double* sum) {
  if (x.dtype != RLSD_F32 || !is_contiguous(x)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "squared_norm: expected a contiguous f32 tensor.");
  }
  constexpr int64_t kParts = 256, kSmallest = 8192;
  const int64_t count = element_count(x);
  const int64_t part = std::max((count + kParts - 1) / kParts, kSmallest);
  const int64_t parts = (count + part - 1) / part;
  double sums[kParts] = {};
  const rlsd_status status =
      parallel_rows(context, parts, 2 * part, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          sums[i] = squares(f32(x) + i * part, std::min(part, count - i * part));
        }
      });
  *sum = 0.0;
  for (int64_t i = 0; i < parts; ++i) *sum += sums[i];
  return status;
}

}  // namespace rlsd::cpu
