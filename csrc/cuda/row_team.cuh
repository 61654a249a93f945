/* What the row kernels share: a team of blocks that holds one token's rows, and adds its sums up. Peers' sums are added
 * in the order of their rank. */
#ifndef RLSD_CUDA_ROW_TEAM_CUH_
#define RLSD_CUDA_ROW_TEAM_CUH_

#include "cuda/reduce.cuh"
#include "cuda/rows.h"

namespace rlsd::cuda {

constexpr int kSums = 2 * kViews;
enum Round { kAtTarget, kHighest, kAtHighest, kRounds };

struct RowTask {
  int64_t row, token, sequence;
  int target;
};

/* Shared memory of a block, in front of its slice. What lives through a row lives here: registers are for the loops. */
struct RowShared {
  uint64_t barrier; /* of the bulk copy */
  double warp[kWarps][kSums];
  double exchange[kRounds][kSums]; /* read by peers */
  double result[kSums];
  RowTask task;
  RowScore scores[kViews];
  RowCoefficients coefficients;
  RowGradient gradient;
  float targets[kViews]; /* each view's logit of the token */
  float highest[kViews]; /* of doubtful views, the largest logit */
  int32_t doubtful; /* views whose target is no anchor, a bit each */
};

constexpr size_t kControlBytes = (sizeof(RowShared) + 15) / 16 * 16;
static_assert(kControlBytes <= 832, "three quarter rows of 151936 16-bit columns fit on one multiprocessor");

/* kResident: the student's slice lies in shared memory behind RowShared. kShaped: softcap or rounding. Nothing is kept:
 * what a team knows of itself is a constant, a special register or a parameter of the kernel. */
template <bool kResident_, bool kShaped_>
struct Team {
  static constexpr bool kResident = kResident_, kShaped = kShaped_;

  __device__ __forceinline__ static RowShared* shared() { return shared_memory<RowShared>(); }
  __device__ __forceinline__ static int size(const RowCall& c) { return kResident ? c.cluster : 1; }
  __device__ __forceinline__ static int rank(const RowCall& c) {
#if RLSD_HAS_CLUSTERS
    if (kResident && c.cluster > 1) return static_cast<int>(cluster_rank());
#endif
    return 0;
  }
  template <class T>
  __device__ __forceinline__ static T* slice() {
    return reinterpret_cast<T*>(shared_memory<char>() + kControlBytes);
  }
};

template <class Body>
__device__ __forceinline__ void with_dtype(int32_t dtype, Body&& body) {
  switch (dtype) {
    case RLSD_F16:
      return body(F16{});
    case RLSD_BF16:
      return body(Bf16{});
    default:
      return body(float{});
  }
}

template <class T>
__device__ __forceinline__ Row<const T> row_in_memory(const View& v, int64_t token) {
  return {reinterpret_cast<const T*>(v.data + v.row(token) * v.stride), static_cast<int>(v.vocab), v.aligned, 0};
}

template <class T, class Team>
__device__ __forceinline__ Row<const T> resident_row(const View& v, const Team& team, Slice slice) {
  return {team.template slice<T>(), static_cast<int>(v.vocab), true, slice.begin};
}

template <class T>
__device__ __forceinline__ Row<T> gradient_row(const RowCall& c, int64_t row) {
  return {reinterpret_cast<T*>(c.gradient + row * c.gradient_stride), static_cast<int>(c.views[kStudent].columns),
          c.gradient_aligned, 0};
}

__device__ inline bool scores_view(const RowCall& c, int view) {
  return c.views[view].data != nullptr && (c.mode != RowMode::kGradient || view == kStudent);
}

/* Puts a warp's sum of two values at places j and j + 1 of the block's table. */
template <class Combine>
__device__ __forceinline__ void reduce_warp(RowShared* s, int j, double a, double b, Combine combine) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    a = combine(a, __shfl_xor_sync(0xFFFFFFFFu, a, step));
    b = combine(b, __shfl_xor_sync(0xFFFFFFFFu, b, step));
  }
  if (threadIdx.x % kWarp == 0) {
    s->warp[threadIdx.x / kWarp][j] = a;
    s->warp[threadIdx.x / kWarp][j + 1] = b;
  }
}

/* From the warps' tables to the team's sums in `result`, for every thread. */
template <class Team, class Combine>
__device__ void reduce_team(const RowCall& c, const Team& team, Round round, Combine combine) {
  RowShared* const s = team.shared();
  const auto j = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (j < kSums) {
    double total = s->warp[0][j];
    for (int w = 1; w < kWarps; ++w) total = combine(total, s->warp[w][j]);
    s->exchange[round][j] = total;
    s->result[j] = total;
  }
#if RLSD_HAS_CLUSTERS
  if (Team::kResident && team.size(c) > 1) {
    cluster_arrive();
    cluster_wait();
    if (j < kSums) {
      double total = *peer_shared(&s->exchange[round][j], 0);
      for (int r = 1; r < team.size(c); ++r) total = combine(total, *peer_shared(&s->exchange[round][j], r));
      s->result[j] = total;
    }
  }
#endif
  __syncthreads();
}

}  // namespace rlsd::cuda

#endif
