/* One row of logits, by a team: one block, or the blocks of a cluster.
 *
 *   s_v = f(z_v) / temperature          f: bf16 rounding, then softcap tanh(z / softcap); both optional
 *   log P = s_y - log sum_v e^(s_v)     H = -sum_v p_v log p_v
 *   dz_v  = [ g (1[v = y] - p_v) + e p_v (log p_v + H) ] f'(z_v) / temperature
 *
 * The sums are anchored at the target, E_v = e^(s_v - s_y), and leave it out: with S = sum_{v != y} E_v,
 * log P = -log1p(S) is never above 0 and keeps its digits for confident tokens, and no pass looks for the maximum.
 * Rows where S is beyond 1e18 (log P < -41) are summed again, anchored at their maximum. A thread sums some hundred
 * columns in float32; everything above that is double.
 *
 * A column costs few instructions, as three exponentials a column are near what the chip can do while it moves 6 bytes:
 *   E_v = 2^(scale f(z_v) - offset)     scale = log2(e) / temperature, offset = scale f(z_y) rounded to float32
 * in one fused multiply-add and one power. What the rounding of offset left is the same for all columns, known exactly,
 * and taken out of the sums (Anchor). */
#ifndef RLSD_CUDA_SOFTMAX_ROW_CUH_
#define RLSD_CUDA_SOFTMAX_ROW_CUH_

#include <cmath>

#include "core/policy_pass.h"
#include "cuda/elements.cuh"

namespace rlsd::cuda {

constexpr float kLowest = -127.0f;    /* 2^t counts as 0 from here on */
constexpr double kLargestSum = 1e18;  /* beyond it the target is no anchor */
constexpr double kLn2 = 0.69314718055994530942;
constexpr double kLog2E = 1.44269504088896340736;

struct RowOptions {
  double temperature;
  float scale;   /* log2(e) / temperature */
  float softcap; /* 0: none */
  bool rounding_bf16;

  RLSD_HD bool is_shaped() const { return rounding_bf16 || softcap != 0.0f; }
};

inline RowOptions row_options(double temperature, double softcap, int32_t rounding_bf16) {
  return {temperature, static_cast<float>(kLog2E / temperature), static_cast<float>(softcap), rounding_bf16 != 0};
}

/* f(z). Infinities and NaN pass. */
__device__ __forceinline__ float shape(float z, const RowOptions& o) {
  if (!isfinite(z)) return z;
  if (o.rounding_bf16) z = bf16_to_float(float_to_bf16(z));
  return o.softcap != 0.0f ? o.softcap * tanhf(z / o.softcap) : z;
}

/* -0, which a tiny log-prob becomes, is 0. */
__device__ __forceinline__ float rounded(double x) { return static_cast<float>(x) + 0.0f; }

/* What the exponentials of a view are relative to: E = 2^(scale f(z) - offset) is `unbias` times too small. */
struct Anchor {
  float target;  /* z of the target */
  float at;      /* f(z) of the column where E is 1: the target, or where it is no anchor the largest */
  float offset;  /* scale * at, rounded */
  float bias;    /* offset - scale * at, exactly: the product of two floats fits in a double */
  double unbias; /* 2^bias */
};

/* Beyond it a column's product with scale may lose what the difference of two logits keeps. */
constexpr float kLargestOffset = 0x1p22f;

__device__ inline Anchor anchor_at_target(float target, const RowOptions& o) {
  const float at = shape(target, o);
  const double exact = static_cast<double>(at) * static_cast<double>(o.scale);
  const auto offset = static_cast<float>(exact);
  const auto bias = static_cast<float>(static_cast<double>(offset) - exact);
  return {target, at, offset, bias, exp2(static_cast<double>(bias))};
}

/* For Form::kExact, which subtracts first and leaves no bias. */
__device__ inline Anchor anchor_at_highest(float target, float highest, const RowOptions& o) {
  return {target, shape(highest, o), 0.0f, 0.0f, 1.0};
}

/* How a logit becomes an exponent: without f, with f, or by a difference of two f(z). */
enum class Form { kBare, kShaped, kExact };

/* log2 E of y = f(z). */
template <Form kForm>
__device__ __forceinline__ float exponent(float y, const Anchor& a, const RowOptions& o) {
  return kForm == Form::kExact ? (y - a.at) * o.scale : __fmaf_rn(y, o.scale, -a.offset);
}

/* Takes columns of a vector out: a bit of `places` each. */
__device__ __forceinline__ void hide(float (&z)[kVector], unsigned places) {
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (places >> j & 1u) z[j] = -INFINITY;
  }
}

/* The place of a column in a vector, where it lies in it. */
__device__ __forceinline__ unsigned place_of(int column, int vector) {
  const int place = column - vector * kVector;
  return place >= 0 && place < kVector ? 1u << place : 0u;
}

/* Those at or beyond V. */
__device__ __forceinline__ unsigned places_beyond(int vocab, int vector) {
  const int places = vocab - vector * kVector;
  return places < kVector ? ~0u << (places > 0 ? places : 0) : 0u;
}

/* f(z) is arithmetic enough to cover a load by itself. */
template <class T, Form kForm>
constexpr int kAhead = kForm == Form::kBare ? kVectorsInFlight<T> : 1;

struct RowSums {
  double e, et; /* of E and of E t, t = log2 E */
};

/* A thread's sums of E and, with entropy, of E t. */
struct ThreadSums {
  float e[4] = {}, et[4] = {};

  __device__ double all_e() const { return static_cast<double>((e[0] + e[1]) + (e[2] + e[3])); }
  __device__ double all_et() const { return static_cast<double>((et[0] + et[1]) + (et[2] + et[3])); }
};

template <Form kForm, bool kEntropy>
__device__ __forceinline__ void add_vector(ThreadSums* sums, const float (&z)[kVector], const Anchor& anchor,
                                           const RowOptions& o) {
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float t = exponent<kForm>(kForm == Form::kBare ? z[j] : shape(z[j], o), anchor, o);
    const float power = exp2_fast(t);
    sums->e[j % 4] += power;
    if (kEntropy) sums->et[j % 4] = __fmaf_rn(power, fmaxf(t, kLowest), sums->et[j % 4]); /* 0 * -inf would be NaN */
  }
}

/* Adds this thread's part of a slice. Column `hidden` does not count, where kHides. */
template <class T, Form kForm, bool kEntropy, Reads kReads, bool kHides>
__device__ __forceinline__ void sum_slice(ThreadSums* sums, const Row<const T>& row, Slice slice, int hidden,
                                          const Anchor& anchor, const RowOptions& o) {
  for_vectors<kAhead<T, kForm>, kReads, kHides>(
      row, first_vector(slice), slice.end, hidden,
      [&](float(&z)[kVector], int) { add_vector<kForm, kEntropy>(sums, z, anchor, o); },
      [&](float(&z)[kVector], int vector) {
        if (kHides) hide(z, place_of(hidden, vector));
        add_vector<kForm, kEntropy>(sums, z, anchor, o);
      },
      [&](float(&z)[kVector], int vector) {
        hide(z, places_beyond(row.columns, vector) | (kHides ? place_of(hidden, vector) : 0u));
        add_vector<kForm, kEntropy>(sums, z, anchor, o);
      });
}

/* This thread's largest logit of a slice; NaN when one is NaN. */
template <class T>
__device__ double largest_of_slice(const Row<const T>& row, Slice slice) {
  float high = -INFINITY;
#pragma unroll 1
  for (int vector = slice.begin + static_cast<int>(threadIdx.x); vector < slice.end; vector += kThreads) {
#pragma unroll 1
    for (int j = 0; j < kVector && vector * kVector + j < row.columns; ++j) {
      const float z = to_float(row.at(vector)[j]);
      if (!(z <= high) && high == high) high = z;
    }
  }
  return static_cast<double>(high);
}

struct RowScore {
  double log_prob; /* NaN: a NaN or +inf logit, or no finite one; -inf: the target's logit is -inf */
  double entropy;  /* in nats; NaN when log_prob is not finite */
  double log_sum;  /* log of sum */
  double sum;      /* of e^(s_v - s_at) over all v */
};

/* H = log Z - sum E (s - s_at) / Z, which rounding may leave a little below 0. */
__device__ inline double row_entropy(double log_sum, double et, double sum) { return fmax(0.0, log_sum - kLn2 * et / sum); }

__device__ __forceinline__ bool is_anchored(const Anchor& a, double e) {
  return fabsf(a.offset) <= kLargestOffset && e <= kLargestSum;
}

/* `e` and `et` are the team's sums and leave the target out. */
__device__ inline RowScore score_at_target(const Anchor& a, double e, double et) {
  const double others = e * a.unbias;
  const double log_sum = log1p(others), sum = 1.0 + others;
  return {0.0 - log_sum, row_entropy(log_sum, (et + e * a.bias) * a.unbias, sum), log_sum, sum};
}

/* The sums leave nothing out. */
__device__ inline RowScore score_at_highest(const Anchor& a, double e, double et, const RowOptions& o) {
  if (!isfinite(a.at)) return {NAN, NAN, NAN, NAN};
  if (a.target == -INFINITY) return {-INFINITY, NAN, NAN, NAN};
  const double log_sum = log(e);
  const double distance = static_cast<double>(shape(a.target, o)) - static_cast<double>(a.at);
  return {fmin(0.0, distance / o.temperature - log_sum), row_entropy(log_sum, et, e), log_sum, e};
}

/* What a gradient row needs of its score, whatever its coefficients are. */
struct GradientBasis {
  double per_e;     /* of p_v / temperature in units of E_v */
  double p, others; /* of the target: P and 1 - P */
  double slope;     /* f'(z_y) / temperature */
};

__device__ inline GradientBasis gradient_basis(const RowScore& score, const Anchor& a, const RowOptions& o) {
  const double tanh = o.softcap != 0.0f ? static_cast<double>(shape(a.target, o)) / o.softcap : 0.0;
  return {a.unbias / (o.temperature * score.sum), exp(score.log_prob), -expm1(score.log_prob),
          (1.0 - tanh * tanh) / o.temperature};
}

/* dz_v = E (factor + slope t) f'(z) for v != y. */
struct RowGradient {
  float factor, slope;
  float of_target; /* dz_y, from float64 */
};

__device__ inline RowGradient row_gradient(const GradientBasis& b, const RowScore& score, const Anchor& a,
                                           const RowCoefficients& g) {
  const double entropy = g.entropy * (score.entropy - score.log_sum + kLn2 * a.bias);
  const double of_target = g.log_prob * b.others + g.entropy * b.p * (score.log_prob + score.entropy);
  return {static_cast<float>((entropy - g.log_prob) * b.per_e), static_cast<float>(g.entropy * kLn2 * b.per_e),
          rounded(of_target * b.slope)};
}

/* The products end in + 0, so that nothing is -0. */
template <Form kForm, bool kSlope>
__device__ __forceinline__ float gradient_of(float z, const RowGradient& g, const Anchor& a, const RowOptions& o) {
  const float y = kForm == Form::kBare ? z : shape(z, o);
  const float t = exponent<kForm>(y, a, o);
  const float power = exp2_fast(t);
  const float factor = kSlope ? __fmaf_rn(g.slope, fminf(fmaxf(t, kLowest), -kLowest), g.factor) : g.factor;
  if (kForm == Form::kBare || o.softcap == 0.0f) return __fmaf_rn(power, factor, 0.0f);
  const float tanh = fmaxf(y, -o.softcap) / o.softcap;
  return __fmaf_rn(power * factor, 1.0f - tanh * tanh, 0.0f);
}

/* The target's column is written over by the thread that wrote its vector. */
template <class T, Form kForm, Reads kReads, bool kSlope>
__device__ __forceinline__ void write_vectors(const Row<const T>& row, const Row<T>& out, Slice slice, int target,
                                              const RowGradient& g, const Anchor& a, const RowOptions& o) {
  const auto differentiate = [&](float(&z)[kVector]) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) z[j] = gradient_of<kForm, kSlope>(z[j], g, a, o);
    return pack<T>(z);
  };
  const auto write = [&](float(&z)[kVector], int vector) {
    const Packed<T> v = differentiate(z);
    if (out.aligned) {
      store_whole(v, out, vector);
    } else {
      store_vector(v, out, vector);
    }
  };
  for_vectors<kAhead<T, kForm>, kReads, false>(
      row, first_vector(slice), slice.end, kNone, write, write,
      [&](float(&z)[kVector], int vector) {
        hide(z, places_beyond(row.columns, vector));
        store_vector(differentiate(z), out, vector);
      });
  if (is_mine(target / kVector, slice)) store_column(g.of_target, out, target);
}

/* Writes a slice of the gradient; in the vector that V cuts, columns at or beyond V get 0. Without an entropy bonus
 * there is no slope. */
template <class T, Form kForm, Reads kReads>
__device__ __forceinline__ void write_slice(const Row<const T>& row, const Row<T>& out, Slice slice, int target,
                                            const RowGradient& g, const Anchor& a, const RowOptions& o) {
  if (kForm == Form::kBare && g.slope == 0.0f) {
    write_vectors<T, kForm, kReads, false>(row, out, slice, target, g, a, o);
  } else {
    write_vectors<T, kForm, kReads, true>(row, out, slice, target, g, a, o);
  }
}

/* Zeros for vectors [begin, end) of a row. */
template <class T>
__device__ void zero_vectors(const Row<T>& out, int begin, int end) {
  const float zeros[kVector] = {};
  const Packed<T> packed = pack<T>(zeros);
#pragma unroll 1
  for (int vector = begin + static_cast<int>(threadIdx.x); vector < end; vector += kThreads) {
    store_vector(packed, out, vector);
  }
}

}  // namespace rlsd::cuda

#endif
