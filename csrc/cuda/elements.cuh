/* Vectors of 8 columns between memory and float32 registers.
 *
 * Rows whose start is a multiple of 16 bytes move 16 bytes at a time; others, and the vector that V cuts, move element
 * by element: nothing beyond the row's own columns is ever read or written. */
#ifndef RLSD_CUDA_ELEMENTS_CUH_
#define RLSD_CUDA_ELEMENTS_CUH_

#include <type_traits>

#include "core/half.h"
#include "cuda/device.cuh"
#include "cuda/tiling.h"

namespace rlsd::cuda {

struct F16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Bf16 x) { return bf16_to_float(x.bits); }
#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float to_float(F16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
#else
inline float to_float(F16 x) { return f16_to_float(x.bits); }
inline void from_float(float x, F16* to) { to->bits = float_to_f16(x); }
inline void from_float(float x, Bf16* to) { to->bits = float_to_bf16(x); }
#endif

/* A vector as it lies in memory. */
template <class T>
struct alignas(16) Packed {
  static constexpr int kWords = kVector * static_cast<int>(sizeof(T)) / 16;
  union {
    uint4 words[kWords];
    T elements[kVector];
  };
  __device__ Packed() {}
};

/* A row of one view. `data` is the row's first column, or of a part of it that starts at vector `first`. */
template <class T>
struct Row {
  T* data;
  int columns; /* that may be read or written: V of a sum, the width of a gradient */
  bool aligned;
  int first;

  __device__ int whole() const { return aligned ? columns / kVector : 0; } /* vectors below it move 16 bytes at a time */
  __device__ T* at(int vector) const { return data + static_cast<int64_t>(vector - first) * kVector; }
};

/* Whether memory is read once, and need not stay in a cache, or again, or is shared memory. */
enum class Reads { kOnce, kAgain, kShared };

template <Reads kReads, class T>
__device__ __forceinline__ void load_whole(const Row<const T>& row, int vector, Packed<T>* v) {
  const auto* const from = reinterpret_cast<const uint4*>(row.at(vector));
#pragma unroll
  for (int j = 0; j < Packed<T>::kWords; ++j) v->words[j] = kReads == Reads::kOnce ? __ldcs(from + j) : from[j];
}

/* Element by element; places beyond the row hold 0: left alone, what a register held before would stay alive for them. */
template <class T>
__device__ __forceinline__ void load_elements(const Row<const T>& row, int vector, Packed<T>* v) {
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    v->elements[j] = vector * kVector + j < row.columns ? row.at(vector)[j] : T{};
  }
}

/* Streamed: nothing of the call reads it again. */
template <class T>
__device__ __forceinline__ void store_whole(const Packed<T>& v, const Row<T>& row, int vector) {
#pragma unroll
  for (int j = 0; j < Packed<T>::kWords; ++j) __stcs(reinterpret_cast<uint4*>(row.at(vector)) + j, v.words[j]);
}

template <class T>
__device__ __forceinline__ void store_vector(const Packed<T>& v, const Row<T>& row, int vector) {
  if (vector < row.whole()) return store_whole(v, row, vector);
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    if (vector * kVector + j < row.columns) row.at(vector)[j] = v.elements[j];
  }
}

template <class T>
__device__ __forceinline__ void unpack(const Packed<T>& v, float (&z)[kVector]) {
#pragma unroll
  for (int j = 0; j < kVector; ++j) z[j] = to_float(v.elements[j]);
}

/* One instruction a column: the upper half of a word is a float already but for the lower half's bits. */
__device__ __forceinline__ void unpack(const Packed<Bf16>& v, float (&z)[kVector]) {
  const uint32_t words[kVector / 2] = {v.words[0].x, v.words[0].y, v.words[0].z, v.words[0].w};
#pragma unroll
  for (int j = 0; j < kVector / 2; ++j) {
    z[2 * j] = float_from_bits(words[j] << 16);
    z[2 * j + 1] = float_from_bits(words[j] & 0xFFFF0000u);
  }
}

#if defined(__CUDA_ARCH__)
/* Two at a time: one instruction and one word. */
__device__ __forceinline__ void from_floats(float low, float high, F16* to) {
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(*reinterpret_cast<uint32_t*>(to)) : "f"(high), "f"(low));
}
__device__ __forceinline__ void from_floats(float low, float high, Bf16* to) {
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(*reinterpret_cast<uint32_t*>(to)) : "f"(high), "f"(low));
}
#else
template <class T>
inline void from_floats(float low, float high, T* to) {
  from_float(low, to);
  from_float(high, to + 1);
}
#endif
__device__ __forceinline__ void from_floats(float low, float high, float* to) {
  to[0] = low;
  to[1] = high;
}

template <class T>
__device__ __forceinline__ void store_column(float x, const Row<T>& row, int column) {
  Packed<T> v;
  from_floats(x, x, v.elements);
  row.at(column / kVector)[column % kVector] = v.elements[0];
}

template <class T>
__device__ __forceinline__ Packed<T> pack(const float (&z)[kVector]) {
  Packed<T> v;
#pragma unroll
  for (int j = 0; j < kVector; j += 2) from_floats(z[j], z[j + 1], &v.elements[j]);
  return v;
}

/* Loads of a thread before their first use: 64 bytes. */
template <class T>
constexpr int kVectorsInFlight = 64 / (kVector * static_cast<int>(sizeof(T)));

/* Whether the loads of a turn are under way before the turn in front of them is computed. Of memory alone, as shared memory
 * answers at once; and of bf16 alone, as what other types are converted by leaves no registers for it. */
template <class T, Reads kReads>
constexpr bool kLoadsEarly = kReads == Reads::kOnce && std::is_same<T, Bf16>::value;

/* This thread's first vector of a slice. */
__device__ __forceinline__ int first_vector(Slice slice) { return slice.begin + static_cast<int>(threadIdx.x); }

__device__ __forceinline__ bool is_mine(int vector, Slice slice) {
  const int ahead = vector - first_vector(slice);
  return ahead >= 0 && vector < slice.end && ahead % kThreads == 0;
}

constexpr int kNone = -1; /* no column */

/* usual(z, vector), special(z, vector) or cut(z, vector) for this thread's vectors first, first + kThreads, ... below `end`,
 * in that order, in turns of kAhead. All of a turn are special where column `hidden` lies in one of them, and so are those
 * left over: a question for each turn, not for each vector. Those that may lie beyond the row, where places hold 0, are
 * cut. */
template <int kAhead, Reads kReads, bool kHides, class T, class Usual, class Special, class Cut>
__device__ __forceinline__ void for_vectors(const Row<const T>& row, int first, int end, int hidden, Usual&& usual,
                                            Special&& special, Cut&& cut) {
  constexpr int kStep = kAhead * kThreads;
  constexpr bool kEarly = kLoadsEarly<T, kReads>;
  const int whole = row.whole() < end ? row.whole() : end, ahead = hidden / kVector - first;
  const int special_at = ahead >= 0 && ahead % kThreads == 0 ? first + ahead / kStep * kStep : -1;
  Packed<T> packed[kAhead];
  float z[kVector];
  const auto load = [&](int u, int vector) { load_whole<kReads>(row, vector < whole ? vector : whole - 1, &packed[u]); };
  if (kEarly && first < whole) {
#pragma unroll
    for (int u = 0; u < kAhead; ++u) load(u, first + u * kThreads);
  }
  int at = first;
#pragma unroll 1
  for (; at + (kAhead - 1) * kThreads < whole; at += kStep) {
    if (!kEarly) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) load_whole<kReads>(row, at + u * kThreads, &packed[u]);
    }
    if (kHides && at == special_at) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        unpack(packed[u], z);
        if (kEarly) load(u, at + u * kThreads + kStep);
        special(z, at + u * kThreads);
      }
    } else {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        unpack(packed[u], z);
        if (kEarly) load(u, at + u * kThreads + kStep);
        usual(z, at + u * kThreads);
      }
    }
  }
#pragma unroll 1
  for (; at < whole; at += kThreads) {
    if (!kEarly) load_whole<kReads>(row, at, &packed[0]);
    unpack(packed[0], z);
    if (kEarly) {
#pragma unroll
      for (int u = 0; u + 1 < kAhead; ++u) packed[u] = packed[u + 1];
    }
    special(z, at);
  }
#pragma unroll 1
  for (; at < end; at += kThreads) {
    Packed<T> part;
    load_elements(row, at, &part);
    unpack(part, z);
    cut(z, at);
  }
}

}  // namespace rlsd::cuda

#endif
