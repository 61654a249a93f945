/* Rotary positions, in place on x (N, heads, D): the pair (x[d], x[d + D/2]) of a row at position p
 * turns by p inverse_frequencies[d], times attention_factor. direction -1 turns back: the gradient.
 */
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kMaxHalf = 128;

RLSD_CLONES void rotate(float* x, const float* cosine, const float* sine, int64_t half) {
  for (int64_t d = 0; d < half; ++d) {
    const float a = x[d], b = x[d + half];
    x[d] = a * cosine[d] - b * sine[d];
    x[d + half] = a * sine[d] + b * cosine[d];
  }
}

}  // namespace

rlsd_status rope(rlsd_context* context, rlsd_tensor x, const int32_t* positions,
                 const float* inverse_frequencies, double attention_factor, int32_t direction) {
  const int64_t half = x.shape[2] / 2, heads = x.shape[1];
  if (!is_f32(x, 3) || half > kMaxHalf) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "rope: expected f32 (N, heads, D) with D at most %lld.",
                static_cast<long long>(2 * kMaxHalf));
  }
  const float factor = static_cast<float>(attention_factor);
  return parallel_rows(context, x.shape[0], half * (40 + 4 * heads),
                       [&](int64_t begin, int64_t end) {
                         float cosine[kMaxHalf], sine[kMaxHalf];
                         for (int64_t i = begin; i < end; ++i) {
                           const float position = static_cast<float>(positions[i]);
                           for (int64_t d = 0; d < half; ++d) {
                             const float angle = position * inverse_frequencies[d];
                             cosine[d] = std::cos(angle) * factor;
                             sine[d] = static_cast<float>(direction) * std::sin(angle) * factor;
                           }
                           for (int64_t h = 0; h < heads; ++h) {
                             rotate(f32(x) + i * x.stride[0] + h * x.stride[1], cosine, sine, half);
                           }
                         }
                       });
}

}  // namespace rlsd::cpu
