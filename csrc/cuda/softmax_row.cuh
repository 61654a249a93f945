/* One row of logits, by a team: one block, or the blocks of a cluster.
 *
 *   s_v = f(z_v) / temperature          f: bf16 rounding, then softcap tanh(z / softcap); both optional
 *   log P = s_y - log sum_v e^(s_v)     H = -sum_v p_v log p_v
 *   dz_v  = [ g (1[v = y] - p_v) + e p_v (log p_v + H) ] f'(z_v) / temperature
 *
 * The sums are anchored at the target, E_v = e^(s_v - s_y), and leave it out: with S = sum_{v != y} E_v,
 * log P = -log1p(S) is never above 0 and keeps its digits for confident tokens, and no pass looks for the maximum.
 * Rows where S is beyond 1e18 (log P < -41) are summed again, anchored at their maximum. A thread sums some hundred
 * columns in float32; everything above that is double. */
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

/* The columns of a vector that do not count: `hidden`, and those at or beyond V. */
__device__ __forceinline__ void hide(float (&z)[kVector], int vector, int hidden, int vocab) {
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const int column = vector * kVector + j;
    if (column == hidden || column >= vocab) z[j] = -INFINITY;
  }
}

/* f(z) is arithmetic enough to cover a load by itself. */
template <class T, bool kShaped>
constexpr int kAhead = kShaped ? 1 : kVectorsInFlight<T>;

struct RowSums {
  double e, et; /* of E = 2^t and of E t, t = (f(z) - anchor) scale */
};

/* This thread's part of the sums over a slice; `hidden` -1: every column. */
template <class T, bool kShaped>
__device__ RowSums sum_slice(const Row<const T>& row, Slice slice, int hidden, float anchor, const RowOptions& o) {
  const int hidden_vector = hidden < 0 ? -1 : hidden / kVector, cut_vector = row.columns / kVector;
  float e[4] = {}, et[4] = {};
  for_vectors<kAhead<T, kShaped>>(row, slice, [&](float(&z)[kVector], int vector) {
    if (vector == hidden_vector || vector == cut_vector) hide(z, vector, hidden, row.columns);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const float t = ((kShaped ? shape(z[j], o) : z[j]) - anchor) * o.scale;
      const float power = exp2_fast(t);
      e[j % 4] += power;
      et[j % 4] = __fmaf_rn(power, fmaxf(t, kLowest), et[j % 4]); /* 0 * -inf would be NaN */
    }
  });
  return {static_cast<double>((e[0] + e[1]) + (e[2] + e[3])), static_cast<double>((et[0] + et[1]) + (et[2] + et[3]))};
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
  double sum;      /* of e^(s_v - anchor) over all v */
  float anchor;    /* f(z) that the exponentials are relative to */
  float target;    /* z of the target */
};

/* H = log Z - sum E (s - anchor) / Z, which rounding may leave a little below 0. */
__device__ inline double row_entropy(double log_sum, double et, double sum) { return fmax(0.0, log_sum - kLn2 * et / sum); }

__device__ inline bool is_anchored(float anchor, const RowSums& s) { return isfinite(anchor) && s.e <= kLargestSum; }

__device__ inline RowScore score_at_target(float anchor, float target, const RowSums& s) {
  const double log_sum = log1p(s.e), sum = 1.0 + s.e;
  return {0.0 - log_sum, row_entropy(log_sum, s.et, sum), log_sum, sum, anchor, target};
}

/* `s` is anchored at f(highest) and leaves nothing out. */
__device__ inline RowScore score_at_highest(float highest, float target, const RowSums& s, const RowOptions& o) {
  if (!isfinite(highest)) return {NAN, NAN, NAN, NAN, 0.0f, target};
  if (target == -INFINITY) return {-INFINITY, NAN, NAN, NAN, 0.0f, target};
  const float anchor = shape(highest, o);
  const double log_sum = log(s.e);
  const double distance = static_cast<double>(shape(target, o)) - static_cast<double>(anchor);
  return {fmin(0.0, distance / o.temperature - log_sum), row_entropy(log_sum, s.et, s.e), log_sum, s.e, anchor, target};
}

/* dz_v = E (factor + slope t) f'(z) for v != y. */
struct RowGradient {
  float anchor, factor, slope;
  float of_target; /* dz_y, from float64 */
};

__device__ inline RowGradient row_gradient(const RowScore& score, const RowCoefficients& g, const RowOptions& o) {
  const double per_e = 1.0 / (o.temperature * score.sum);
  const double factor = (g.entropy * (score.entropy - score.log_sum) - g.log_prob) * per_e;
  const double tanh = o.softcap != 0.0f ? static_cast<double>(shape(score.target, o)) / o.softcap : 0.0;
  const double p = exp(score.log_prob);
  const double of_target = g.log_prob * -expm1(score.log_prob) + g.entropy * p * (score.log_prob + score.entropy);
  return {score.anchor, static_cast<float>(factor), static_cast<float>(g.entropy * kLn2 * per_e),
          static_cast<float>(of_target * (1.0 - tanh * tanh) / o.temperature) + 0.0f};
}

template <bool kShaped>
__device__ __forceinline__ float gradient_of(float z, const RowGradient& g, const RowOptions& o) {
  const float y = kShaped ? shape(z, o) : z;
  const float t = (y - g.anchor) * o.scale;
  float dz = exp2_fast(t) * __fmaf_rn(g.slope, fminf(fmaxf(t, kLowest), -kLowest), g.factor);
  if (kShaped && o.softcap != 0.0f) {
    const float tanh = fmaxf(y, -o.softcap) / o.softcap;
    dz *= 1.0f - tanh * tanh;
  }
  return dz + 0.0f; /* not -0 */
}

/* Writes a slice of the gradient; in the vector that V cuts, columns at or beyond V get 0. */
template <class T, bool kShaped>
__device__ void write_slice(const Row<const T>& row, const Row<T>& out, Slice slice, int target, const RowGradient& g,
                            const RowOptions& o) {
  const int target_vector = target / kVector, cut_vector = row.columns / kVector;
  for_vectors<kAhead<T, kShaped>>(row, slice, [&](float(&z)[kVector], int vector) {
    if (vector == cut_vector) hide(z, vector, -1, row.columns);
#pragma unroll
    for (int j = 0; j < kVector; ++j) z[j] = gradient_of<kShaped>(z[j], g, o);
    if (vector == target_vector) {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (vector * kVector + j == target) z[j] = g.of_target;
      }
    }
    store_vector(pack<T>(z), out, vector);
  });
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
