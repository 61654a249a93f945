/* What the model kernels share: instruction-set clones, fixed-order sums, exp, views of tensors,
 * loops over rows.
 *
 * A row's result never depends on which rows surround it or on the number of threads: each is
 * computed by one function whose order of operations is fixed by the row's own length. */
#ifndef RLSD_CPU_MODEL_SIMD_H_
#define RLSD_CPU_MODEL_SIMD_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/error.h"
#include "cpu/thread_pool.h"
#include "rlsd/rlsd.h"

/* Compiled for each level of x86-64 and chosen when the library is loaded. A sanitizer's run time
 * is not ready when that choice is made, so its builds have one version. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#if defined(__clang__) /* which inlines no clone, and takes no noinline beside them */
#define RLSD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RLSD_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#endif
#else
#define RLSD_CLONES __attribute__((noinline))
#endif
#define RLSD_INLINE inline __attribute__((always_inline))

/* No product is fused with a sum from here on. The clones follow the processor and not RLSD_ISA:
 * those that could fuse would round otherwise than the rest, and than a build without clones. */
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

namespace rlsd::cpu {

constexpr int kLanes = 16;

/* Sum of kLanes values in a fixed tree. */
RLSD_INLINE float sum_lanes(const float* lanes) {
  float a[8], b[4];
  for (int i = 0; i < 8; ++i) a[i] = lanes[i] + lanes[i + 8];
  for (int i = 0; i < 4; ++i) b[i] = a[i] + a[i + 4];
  return (b[0] + b[2]) + (b[1] + b[3]);
}

/* e^x to 2 units in the last place; 0 below -87.3, infinity above 88.3; a NaN stays one. Cody and
 * Waite's reduction, Cephes' polynomial; no branch, so that loops over it become vectors. */
RLSD_INLINE float exp_approx(float x) {
  constexpr float kRound = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
  const float low = x < -87.3f ? -87.3f : x;
  const float clamped = low > 88.3f ? 88.3f : low;
  const float shifted = clamped * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  float r = clamped - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127u) << 23; /* kRound's own bits are shifted out */
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  float y = p * power;
  y = x < -87.3f ? 0.0f : y;
  y = x > 88.3f ? HUGE_VALF : y;
  return x != x ? x : y;
}

inline float* f32(const rlsd_tensor& t) { return static_cast<float*>(t.data); }

inline bool is_f32(const rlsd_tensor& t, int32_t rank) {
  return t.data != nullptr && t.dtype == RLSD_F32 && t.rank == rank && t.stride[rank - 1] == 1;
}

inline int64_t element_count(const rlsd_tensor& t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t.rank; ++i) n *= t.shape[i];
  return n;
}

inline bool is_contiguous(const rlsd_tensor& t) {
  int64_t expected = 1;
  for (int32_t i = t.rank - 1; i >= 0; --i) {
    if (t.shape[i] != 1 && t.stride[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

/* body(begin, end) over all rows, in pieces worth a thread's waking. `cost` is about the operations
 * of one row. */
template <class Body>
rlsd_status parallel_rows(rlsd_context* context, int64_t rows, int64_t cost, Body&& body) {
  if (rows <= 0) return RLSD_OK;
  constexpr int64_t kPiece = 1 << 17;
  const int64_t chunk = std::clamp<int64_t>(kPiece / std::max<int64_t>(cost, 1), 1, rows);
  return parallel_for(context, (rows + chunk - 1) / chunk, [&](int64_t task) {
    body(task * chunk, std::min(rows, (task + 1) * chunk));
  });
}

}  // namespace rlsd::cpu

#endif
