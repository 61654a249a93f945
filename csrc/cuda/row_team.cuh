/* What the row kernels share: a team of blocks that holds one token's rows, and adds its sums up. Peers' sums are added
 * in the order of their rank. */
#ifndef RLSD_CUDA_ROW_TEAM_CUH_
#define RLSD_CUDA_ROW_TEAM_CUH_

#include "cuda/reduce.cuh"
#include "cuda/rows.h"

namespace rlsd::cuda {

/* A team's sums: E of each view, at the view's number, and E t of the student. */
constexpr int kStudentEt = kViews, kSums = kViews + 1;

/* Vectors that pieces of a slice are a multiple of: whole turns of the loops that sum them. */
constexpr int kPieceStep = 4 * kThreads;

/* Shared memory of a block, in front of its slice. What lives through a row lives here: registers are for the loops. */
struct RowShared {
  uint64_t barriers[kPieces]; /* of the bulk copies */
  double warp[kWarps][kSums];
  double exchange[2][kSums]; /* read by peers; reductions take turns */
  double result[kSums];
  double kept[kSums]; /* while views are summed again */
  TokenInput input; /* scores apart, gathered while the logits are on their way */
  SequenceTerms terms;
  RowScore score; /* the student's */
  GradientBasis basis;
  RowCoefficients coefficients;
  Anchor anchors[kViews];
  RowTask task;
  int32_t next_rows[kViews]; /* each view's row to ask the L2 cache for; -1: none */
  float log_probs[kViews];
  int32_t doubtful; /* views whose target is no anchor, a bit each */
  bool known_zero;
};

constexpr size_t kControlBytes = (sizeof(RowShared) + 15) / 16 * 16;
static_assert(kControlBytes <= 832, "three quarter rows of 151936 16-bit columns fit on one multiprocessor");

/* kResident: the student's slice lies in shared memory behind RowShared. kShaped: softcap or rounding. Nothing is kept:
 * what a team knows of itself is a constant, a special register or a parameter of the kernel. */
template <bool kResident_, bool kShaped>
struct Team {
  static constexpr bool kResident = kResident_;
  static constexpr Form kForm = kShaped ? Form::kShaped : Form::kBare;

  __device__ __forceinline__ static RowShared* shared() { return shared_memory<RowShared>(); }
  __device__ __forceinline__ static int size(const RowCall& c) { return kResident ? c.cluster : 1; }
  __device__ __forceinline__ static int rank(const RowCall& c) {
#if RLSD_HAS_CLUSTERS
    if (kResident && c.cluster > 1) return static_cast<int>(cluster_rank());
#endif
    return 0;
  }
  __device__ __forceinline__ static Slice slice_of(const RowCall& c, int64_t columns) {
    return rlsd::cuda::slice_of(columns, rank(c), size(c));
  }
  template <class T>
  __device__ __forceinline__ static T* kept() {
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

__device__ __forceinline__ const char* row_address(const View& v, int64_t row) { return v.data + row * v.stride; }

template <class T>
__device__ __forceinline__ Row<const T> row_in_memory(const View& v, int64_t token) {
  return {reinterpret_cast<const T*>(row_address(v, v.row(token))), static_cast<int>(v.vocab), v.aligned, 0};
}

template <class T, class Team>
__device__ __forceinline__ Row<const T> resident_row(const View& v, const Team& team, Slice slice) {
  return {team.template kept<T>(), static_cast<int>(v.vocab), true, slice.begin};
}

template <class T>
__device__ __forceinline__ Row<T> gradient_row(const RowCall& c, int64_t row) {
  return {reinterpret_cast<T*>(c.gradient + row * c.gradient_stride), static_cast<int>(c.views[kStudent].columns),
          c.gradient_aligned, 0};
}

/* True where this kernel finds the view's log-prob from its logits. */
__device__ inline bool scores_view(const RowCall& c, int view) {
  return c.views[view].data != nullptr && (c.mode != RowMode::kGradient || view == kStudent);
}

#if RLSD_HAS_CLUSTERS
/* The sums of a cluster's blocks, in the order of their rank; four peers are asked at once. */
template <class Combine>
__device__ __forceinline__ double combine_peers(const double* mine, int size, Combine combine) {
  constexpr int kAtOnce = 4;
  double total = 0.0;
#pragma unroll 1
  for (int first = 0; first < size; first += kAtOnce) {
    double parts[kAtOnce];
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const int peer = first + r < size ? first + r : first;
      parts[r] = *peer_shared(mine, static_cast<unsigned>(peer));
    }
    if (first == 0) total = parts[0];
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      if (first + r > 0 && first + r < size) total = combine(total, parts[r]);
    }
  }
  return total;
}
#endif

/* From every thread's values to the team's in `result`, for every thread. `turn` alternates between reductions, so that a
 * peer may still read the last one's exchange. */
template <class Team, class Combine>
__device__ __forceinline__ void reduce_team(const RowCall& c, const Team& team, int turn, double (&values)[kSums],
                                            Combine combine) {
  RowShared* const s = team.shared();
  const auto j = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
#pragma unroll
    for (double& value : values) value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, step));
  }
  if (j % kWarp == 0) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) s->warp[j / kWarp][k] = values[k];
  }
  __syncthreads();
  if (j < kSums) {
    double total = s->warp[0][j];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) total = combine(total, s->warp[w][j]);
    s->exchange[turn][j] = total;
    s->result[j] = total;
  }
#if RLSD_HAS_CLUSTERS
  if (Team::kResident && team.size(c) > 1) {
    static_assert(kSums <= kWarp, "the first warp alone has something to show, and waits for a fence");
    __syncwarp(); /* the cluster's barrier takes whole warps */
    if (j < kWarp) {
      cluster_arrive();
    } else {
      cluster_arrive_relaxed();
    }
    cluster_wait();
    if (j < kSums) s->result[j] = combine_peers(&s->exchange[turn][j], team.size(c), combine);
  }
#endif
  __syncthreads();
}

}  // namespace rlsd::cuda

#endif
