#include "cpu/softmax_row.h"

#include <cmath>
#include <cstring>

#include "core/half.h"
#include "core/memory.h"
#include "cpu/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rlsd::cpu {
namespace {

constexpr int kChunk = 32;        /* columns, and lanes of a sum */
constexpr int64_t kBlock = 1024;  /* columns summed in float32 before they are added in double */
/* How far ahead of the sums the row is asked for: the hardware stops at the 4 KiB of a page. */
constexpr size_t kPrefetchBytes = 8192;
/* Beyond this sum the target is no anchor: float32 would overflow in some factor. */
constexpr double kLargestSum = 1e18;
constexpr double kLn2 = 0.69314718055994530942;

struct F16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

template <class T>
T minus_infinity();
template <>
float minus_infinity() {
  return -INFINITY;
}
template <>
F16 minus_infinity() {
  return {0xFC00u};
}
template <>
Bf16 minus_infinity() {
  return {0xFF80u};
}

struct Sums {
  double e, et;
};

struct TypeKernels {
  /* [shaped][kept] */
  Sums (*sums[2][2])(const void* row, int64_t vocab, int64_t hidden, float anchor, const RowOptions&, float* scratch);
  float (*largest)(const void* row, int64_t vocab);
  void (*scale_kept)(void* out, int64_t vocab, const float* scratch, float factor);
  /* [shaped] */
  void (*gradient[2])(void* out, const void* row, int64_t vocab, float anchor, const RowOptions&, float factor,
                      float slope);
};

struct RowKernels {
  TypeKernels type[3]; /* by rlsd_dtype */
  float (*shape_one)(float z, const RowOptions&);
};

#define RLSD_KERNELS "cpu/softmax_row_kernels.inc"
#include "cpu/each_isa.inc"

const RowKernels& kernels() {
  static const RowKernels instance = choose();
  return instance;
}

bool is_shaped(const RowOptions& o) { return o.rounding_bf16 || o.softcap != 0.0f; }

float logit_at(const void* row, int32_t dtype, int64_t column) {
  switch (dtype) {
    case RLSD_F16:
      return f16_to_float(static_cast<const uint16_t*>(row)[column]);
    case RLSD_BF16:
      return bf16_to_float(static_cast<const uint16_t*>(row)[column]);
    default:
      return static_cast<const float*>(row)[column];
  }
}

void put(void* row, int32_t dtype, int64_t column, float value) {
  switch (dtype) {
    case RLSD_F16:
      static_cast<uint16_t*>(row)[column] = float_to_f16(value);
      return;
    case RLSD_BF16:
      static_cast<uint16_t*>(row)[column] = float_to_bf16(value);
      return;
    default:
      static_cast<float*>(row)[column] = value;
  }
}

/* H = log Z - sum E (s - anchor) / Z, which rounding may leave a little below 0. */
double entropy(double log_sum, const Sums& s, double sum) { return std::fmax(0.0, log_sum - kLn2 * s.et / sum); }

/* Any row: looks at every logit before it decides. */
RowScore score_from_maximum(const void* row, int32_t dtype, int64_t vocab, int64_t target, const RowOptions& o,
                            float* scratch) {
  const TypeKernels& k = kernels().type[dtype];
  const float highest = k.largest(row, vocab);
  const float z = logit_at(row, dtype, target);
  if (!std::isfinite(highest)) return {NAN, NAN, NAN, NAN, 0.0f};
  if (z == -INFINITY) return {-INFINITY, NAN, NAN, NAN, 0.0f};
  const float anchor = kernels().shape_one(highest, o);
  const Sums s = k.sums[is_shaped(o)][scratch != nullptr](row, vocab, -1, anchor, o, scratch);
  const double log_sum = std::log(s.e);
  const double distance = static_cast<double>(kernels().shape_one(z, o)) - anchor;
  return {std::fmin(0.0, distance / o.temperature - log_sum), entropy(log_sum, s, s.e), log_sum, s.e, anchor};
}

}  // namespace

RowOptions row_options(double temperature, double logit_softcap, bool logit_rounding_bf16) {
  constexpr double kLog2E = 1.44269504088896340736;
  return {temperature, static_cast<float>(kLog2E / temperature), static_cast<float>(logit_softcap),
          logit_rounding_bf16};
}

int64_t row_scratch_floats(int64_t vocab) { return (vocab + kChunk - 1) / kChunk * kChunk; }

RowScore score_row(const void* row, int32_t dtype, int64_t vocab, int64_t target, const RowOptions& o,
                   float* scratch) {
  const float anchor = kernels().shape_one(logit_at(row, dtype, target), o);
  if (std::isfinite(anchor)) {
    const Sums s = kernels().type[dtype].sums[is_shaped(o)][scratch != nullptr](row, vocab, target, anchor, o, scratch);
    if (s.e <= kLargestSum) {
      const double log_sum = std::log1p(s.e), sum = 1.0 + s.e;
      return {0.0 - log_sum, entropy(log_sum, s, sum), log_sum, sum, anchor};
    }
  }
  return score_from_maximum(row, dtype, vocab, target, o, scratch);
}

bool gradient_uses_scratch(const RowOptions& o, double entropy_coefficient) {
  return entropy_coefficient == 0.0 && o.softcap == 0.0f;
}

void write_row_gradient(void* out, const void* row, int32_t dtype, int64_t vocab, int64_t columns, int64_t target,
                        const RowOptions& o, const RowScore& score, const RowGradient& g, const float* scratch) {
  char* const bytes = static_cast<char*>(out);
  const int64_t written = g.log_prob == 0.0 && g.entropy == 0.0 ? 0 : vocab;
  if (written > 0) {
    const TypeKernels& k = kernels().type[dtype];
    const double per_e = 1.0 / (o.temperature * score.sum);
    const double factor = (g.entropy * (score.entropy - score.log_sum) - g.log_prob) * per_e;
    const float y = kernels().shape_one(logit_at(row, dtype, target), o); /* read before it is overwritten */
    if (scratch != nullptr && gradient_uses_scratch(o, g.entropy)) {
      k.scale_kept(out, vocab, scratch, static_cast<float>(factor));
    } else {
      const double slope = g.entropy * kLn2 * per_e;
      k.gradient[is_shaped(o)](out, row, vocab, score.anchor, o, static_cast<float>(factor), static_cast<float>(slope));
    }
    const double tanh = o.softcap != 0.0f ? static_cast<double>(y) / o.softcap : 0.0;
    const double p = std::exp(score.log_prob);
    const double of_target =
        g.log_prob * -std::expm1(score.log_prob) + g.entropy * p * (score.log_prob + score.entropy);
    put(out, dtype, target, static_cast<float>(of_target * (1.0 - tanh * tanh) / o.temperature) + 0.0f);
  }
  std::memset(bytes + written * element_bytes(dtype), 0, static_cast<size_t>((columns - written) * element_bytes(dtype)));
}

}  // namespace rlsd::cpu
