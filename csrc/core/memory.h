/* Sizes and places of memory. */
#ifndef RLSD_CORE_MEMORY_H_
#define RLSD_CORE_MEMORY_H_

#include <cstdint>

#include "core/host_device.h"
#include "rlsd/rlsd.h"

namespace rlsd {

RLSD_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
RLSD_HD int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* The types that scores and their gradients may have. */
RLSD_HD bool is_float(int32_t dtype) { return dtype == RLSD_F32 || dtype == RLSD_F16 || dtype == RLSD_BF16; }
/* Of one of those types. */
RLSD_HD int64_t element_bytes(int32_t dtype) { return dtype == RLSD_F32 ? 4 : 2; }

/* From a tensor's first element to its last; 0 where there is none. Strides are not below 0. */
inline int64_t extent_bytes(const rlsd_tensor& t) {
  int64_t elements = t.data != nullptr ? 1 : 0;
  for (int32_t i = 0; i < t.rank && elements > 0; ++i) {
    elements = t.shape[i] > 0 ? elements + (t.shape[i] - 1) * t.stride[i] : 0;
  }
  return elements * element_bytes(t.dtype);
}

/* True when [a, a + a_bytes) and [b, b + b_bytes) share a byte. */
inline bool overlaps(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return a_bytes > 0 && b_bytes > 0 && x < y + static_cast<uint64_t>(b_bytes) && y < x + static_cast<uint64_t>(a_bytes);
}

inline bool overlaps(const rlsd_tensor& a, const rlsd_tensor& b) {
  return overlaps(a.data, extent_bytes(a), b.data, extent_bytes(b));
}

}  // namespace rlsd

#endif
