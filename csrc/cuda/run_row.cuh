/* What the row kernels share: a team scores one token's rows and writes its gradient.
 *
 * Between the last logit that is read and the first gradient that is written a block moves no memory, so that way is
 * kept short: everything small is gathered while the logits arrive, one exchange of sums serves all views, and warps
 * find scores, coefficients and what the gradient needs of its score side by side. A second turn follows only where a
 * target was no anchor. */
#ifndef RLSD_CUDA_RUN_ROW_CUH_
#define RLSD_CUDA_RUN_ROW_CUH_

#include "cuda/row_scalars.cuh"

namespace rlsd::cuda {

/* ---- the first turn: sums anchored at the targets ---------------------------------------- */

#if RLSD_HAS_CLUSTERS
/* Takes the target's column out of the slice in shared memory: its thread alone reads that vector. In the gradient it
 * counts nothing, and is written over. */
template <class T, class Team>
__device__ __forceinline__ void hide_target(const Team& team, Slice slice, Slice part, int target) {
  if (!is_mine(target / kVector, part)) return; /* pieces deal threads what the slice does */
  store_column(-INFINITY, Row<T>{team.template kept<T>(), 0, true, slice.begin}, target);
}

/* Over the slice in shared memory, piece by piece as they arrive. */
template <class T, class Team>
__device__ __forceinline__ void sum_pieces(ThreadSums* sums, const RowCall& c, const Team& team, Slice slice) {
  RowShared* const s = team.shared();
  const Row<const T> row = resident_row<T>(c.views[kStudent], team, slice);
#pragma unroll 1
  for (int piece = 0; piece < kPieces; ++piece) {
    const Slice part = piece_of(slice, kPieceStep, piece);
    if (part.begin == part.end) return;
    barrier_wait(&s->barriers[piece]);
    hide_target<T>(team, slice, part, s->task.target);
    sum_slice<T, Team::kForm, true, Reads::kShared, false>(sums, row, part, kNone, s->anchors[kStudent], c.options);
  }
}
#endif

/* This thread's sums over its block's slice of one view; entropies are the student's alone. */
template <bool kEntropy, class Team>
__device__ __forceinline__ ThreadSums sum_view(const RowCall& c, const Team& team, int view) {
  RowShared* const s = team.shared();
  const View& v = c.views[view];
  const Slice slice = team.slice_of(c, v.vocab);
  ThreadSums sums;
  with_dtype(v.dtype, [&](auto tag) {
    using T = decltype(tag);
#if RLSD_HAS_CLUSTERS
    if (Team::kResident && kEntropy) return sum_pieces<T>(&sums, c, team, slice);
#endif
    const Row<const T> row = row_in_memory<T>(v, s->task.token);
    constexpr Reads kReads = kEntropy ? Reads::kAgain : Reads::kOnce; /* the student's gradient reads it again */
    sum_slice<T, Team::kForm, kEntropy, kReads, true>(&sums, row, slice, s->task.target, s->anchors[view], c.options);
  });
  return sums;
}

/* The team's sums of the views that this call scores. The student comes last: its bulk copy is under way meanwhile. */
template <class Team>
__device__ __forceinline__ void sum_views(const RowCall& c, const Team& team) {
  double values[kSums] = {};
#pragma unroll 1
  for (int view = 0; view < kStudent; ++view) {
    if (!scores_view(c, view)) continue;
    const double e = sum_view<false>(c, team, view).all_e();
    if (view == kTeacher) values[kTeacher] = e;
    if (view == kContrast) values[kContrast] = e;
  }
  if (scores_view(c, kStudent)) {
    const ThreadSums sums = sum_view<true>(c, team, kStudent);
    values[kStudent] = sums.all_e();
    values[kStudentEt] = sums.all_et();
  }
  team.next_row(c);
  reduce_team(c, team, 0, values, Add());
}

/* ---- the second turn: rare, and thus out of line ------------------------------------------ */

/* From memory: neither a piece nor the fast form is worth keeping for it. */
template <class Team>
__device__ __noinline__ double largest_of_view(const RowCall& c, const Team& team, int view) {
  const View& v = c.views[view];
  double highest = -INFINITY;
  with_dtype(v.dtype, [&](auto tag) {
    highest = largest_of_slice(row_in_memory<decltype(tag)>(v, team.shared()->task.token), team.slice_of(c, v.vocab));
  });
  return highest;
}

template <class Team>
__device__ __noinline__ RowSums sum_again(const RowCall& c, const Team& team, int view) {
  const View& v = c.views[view];
  const Anchor& anchor = team.shared()->anchors[view];
  ThreadSums sums;
  with_dtype(v.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Row<const T> row = row_in_memory<T>(v, team.shared()->task.token);
    sum_slice<T, Form::kExact, true, Reads::kAgain, false>(&sums, row, team.slice_of(c, v.vocab), kNone, anchor, c.options);
  });
  return {sums.all_e(), sums.all_et()};
}

/* Anchors the views of `doubtful` at their largest logits and sums them again; the same for the whole team. */
template <class Team>
__device__ __noinline__ void sum_doubtful(const RowCall& c, const Team& team, int doubtful) {
  RowShared* const s = team.shared();
  const auto j = static_cast<int>(threadIdx.x);
  if (j < kSums) s->kept[j] = s->result[j];
#pragma unroll 1
  for (int view = 0; view < kViews; ++view) {
    if (!(doubtful >> view & 1)) continue;
    double highest[kSums] = {largest_of_view(c, team, view)};
    reduce_team(c, team, 1, highest, Larger());
    if (j == 0) s->anchors[view] = anchor_at_highest(s->anchors[view].target, static_cast<float>(s->result[0]), c.options);
    __syncthreads();
    const RowSums again = sum_again(c, team, view);
    double sums[kSums] = {again.e, again.et};
    reduce_team(c, team, 0, sums, Add());
    if (j == 0) s->kept[view] = s->result[0];
    if (j == 0 && view == kStudent) s->kept[kStudentEt] = s->result[1];
  }
  __syncthreads();
  if (j < kSums) s->result[j] = s->kept[j];
  if (j == 0) s->doubtful = doubtful;
  __syncthreads();
}

/* ---- the gradient ------------------------------------------------------------------------- */

/* Zeros for the block's part of a gradient row. */
template <class Team>
__device__ __noinline__ void zero_row(const RowCall& c, const Team& team, int64_t row) {
  if (c.gradient == nullptr) return;
  const View& v = c.views[kStudent];
  with_dtype(v.dtype, [&](auto tag) {
    const Slice slice = team.slice_of(c, v.columns);
    zero_vectors(gradient_row<decltype(tag)>(c, row), slice.begin, slice.end);
  });
}

/* Of a row that was summed again: rare. */
template <class Team>
__device__ __noinline__ void write_exact_row(const RowCall& c, const Team& team, int64_t row) {
  RowShared* const s = team.shared();
  const View& v = c.views[kStudent];
  const RowGradient g = row_gradient(s->basis, s->score, s->anchors[kStudent], s->coefficients);
  with_dtype(v.dtype, [&](auto tag) {
    using T = decltype(tag);
    write_slice<T, Form::kExact, Reads::kAgain>(row_in_memory<T>(v, s->task.token), gradient_row<T>(c, row),
                                                team.slice_of(c, v.vocab), s->task.target, g, s->anchors[kStudent],
                                                c.options);
  });
}

template <class Team>
__device__ void write_row(const RowCall& c, const Team& team, int64_t row) {
  RowShared* const s = team.shared();
  const View& v = c.views[kStudent];
  if (s->doubtful >> kStudent & 1) {
    write_exact_row(c, team, row);
  } else {
    const Slice slice = team.slice_of(c, v.vocab);
    const Anchor anchor = s->anchors[kStudent];
    const RowGradient g = row_gradient(s->basis, s->score, anchor, s->coefficients);
    with_dtype(v.dtype, [&](auto tag) {
      using T = decltype(tag);
      const Row<T> out = gradient_row<T>(c, row);
      constexpr Reads kReads = Team::kResident ? Reads::kShared : Reads::kAgain;
      const Row<const T> in = Team::kResident ? resident_row<T>(v, team, slice) : row_in_memory<T>(v, s->task.token);
      write_slice<T, Team::kForm, kReads>(in, out, slice, s->task.target, g, anchor, c.options);
    });
  }
  if (team.rank(c) != team.size(c) - 1) return;
  with_dtype(v.dtype, [&](auto tag) {
    zero_vectors(gradient_row<decltype(tag)>(c, row), vectors_of(v.vocab), vectors_of(v.columns));
  });
}

/* ---- a row -------------------------------------------------------------------------------- */

__device__ __forceinline__ bool is_zero(const RowCoefficients& g) { return g.log_prob == 0.0 && g.entropy == 0.0; }

/* Scores a token, finds its coefficients and what its gradient is made of. */
template <class Team>
__device__ __forceinline__ void score_row(const RowCall& c, const Team& team) {
  RowShared* const s = team.shared();
  sum_views(c, team);
  const int doubtful = find_doubtful(c, s);
  if (doubtful != 0) sum_doubtful(c, team, doubtful);
  finish_row(c, s);
  team.release_peers(c);
  if (c.mode != RowMode::kGradient && team.rank(c) == 0 && threadIdx.x < kViews) {
    write_score(c, s, static_cast<int>(threadIdx.x));
  }
}

/* Scores the row and writes its gradient, as the mode says; false when it was not even started. */
template <class Team>
__device__ __forceinline__ bool run_row(const RowCall& c, const Team& team, int64_t row, RowTask task) {
  RowShared* const s = team.shared();
  if (c.mode == RowMode::kGradient) { /* the coefficient is known before the row is read */
    gather_input(c, s, task);
    __syncthreads();
    if (is_zero(s->coefficients)) {
      zero_row(c, team, row);
      return false;
    }
  }
  team.start(c, row);
  gather_row(c, s, task);
  __syncthreads();
  score_row(c, team);
  if (c.mode == RowMode::kScore) return true;
  if (is_zero(s->coefficients)) {
    zero_row(c, team, row);
  } else {
    write_row(c, team, row);
  }
  return true;
}

/* Zeros for a row that is not read, where it gets any; false: it is to be run. */
template <class Team>
__device__ __forceinline__ bool leave_row(const RowCall& c, const Team& team, int64_t row, RowTask task) {
  const bool named = task.token != kNoToken && task.token != kMaskedToken;
  if (named && task.skipped == 0) return false;
  const bool zeros = named || task.token == kMaskedToken || c.clear_other_rows;
  if (zeros && c.mode != RowMode::kScore) zero_row(c, team, row);
  return true;
}

}  // namespace rlsd::cuda

#endif
