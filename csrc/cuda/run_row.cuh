/* What the row kernels share: a team scores one token's rows and writes its gradient.
 *
 * One exchange of sums serves all views; a second and third follow only where a target was no anchor. */
#ifndef RLSD_CUDA_RUN_ROW_CUH_
#define RLSD_CUDA_RUN_ROW_CUH_

#include "cuda/row_team.cuh"

namespace rlsd::cuda {

/* This thread's sums over its block's slice of one view. */
template <class Team>
__device__ RowSums sum_view(const RowCall& c, const Team& team, int view, int hidden, float anchor) {
  const View& v = c.views[view];
  const Slice slice = slice_of(v.vocab, team.rank(c), team.size(c));
  RowSums sums{};
  with_dtype(v.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (Team::kResident && view == kStudent) {
#if RLSD_HAS_CLUSTERS
      barrier_wait(&team.shared()->barrier);
#endif
      sums = sum_slice<T, Team::kShaped>(resident_row<T>(v, team, slice), slice, hidden, anchor, c.options);
    } else {
      sums = sum_slice<T, Team::kShaped>(row_in_memory<T>(v, team.shared()->task.token), slice, hidden, anchor, c.options);
    }
  });
  return sums;
}

/* Rare, and thus out of line. */
template <class Team>
__device__ __noinline__ void largest_of_views(const RowCall& c, const Team& team) {
#pragma unroll 1
  for (int view = 0; view < kViews; ++view) {
    double highest = -INFINITY;
    if (team.shared()->doubtful >> view & 1) {
      const View& v = c.views[view];
      with_dtype(v.dtype, [&](auto tag) {
        using T = decltype(tag);
        const Row<const T> row = row_in_memory<T>(v, team.shared()->task.token);
        highest = largest_of_slice(row, slice_of(v.vocab, team.rank(c), team.size(c)));
      });
    }
    reduce_warp(team.shared(), 2 * view, highest, highest, Larger());
  }
  reduce_team(c, team, kHighest, Larger());
  if (threadIdx.x < kViews) team.shared()->highest[threadIdx.x] = static_cast<float>(team.shared()->result[2 * threadIdx.x]);
  __syncthreads();
}

/* What one thread does in float64 is kept out of line: inlined, its registers would be taken from the loops. */
#define RLSD_ONE_THREAD __device__ __noinline__ inline

/* Scores of the views whose sums are in `result`. */
RLSD_ONE_THREAD void finish_scores(const RowCall& c, RowShared* s, Round round) {
  const int asked = round == kAtTarget ? ~0 : s->doubtful;
  int doubtful = 0;
#pragma unroll 1
  for (int view = 0; view < kViews; ++view) {
    if (!scores_view(c, view) || !(asked >> view & 1)) continue;
    const RowSums sums = {s->result[2 * view], s->result[2 * view + 1]};
    const float target = s->targets[view], anchor = shape(target, c.options);
    if (round == kAtHighest) {
      s->scores[view] = score_at_highest(s->highest[view], target, sums, c.options);
    } else if (is_anchored(anchor, sums)) {
      s->scores[view] = score_at_target(anchor, target, sums);
    } else {
      doubtful |= 1 << view;
    }
  }
  s->doubtful = doubtful;
}

/* Scores the token under every view that this call scores; the scores are in shared memory for all. The student comes
 * last: its bulk copy is under way meanwhile. The second turn, for views beyond float32's reach from their target, is
 * rare and the same for the whole team. */
template <class Team>
__device__ void score_token(const RowCall& c, const Team& team) {
  RowShared* const s = team.shared();
  if (threadIdx.x < kViews && scores_view(c, static_cast<int>(threadIdx.x))) {
    const View& v = c.views[threadIdx.x];
    with_dtype(v.dtype, [&](auto tag) {
      s->targets[threadIdx.x] = to_float(row_in_memory<decltype(tag)>(v, s->task.token).data[s->task.target]);
    });
  }
  if (threadIdx.x == 0) s->doubtful = 0;
  __syncthreads();
#pragma unroll 1
  for (Round round = kAtTarget;; round = kAtHighest) {
    if (round == kAtHighest) largest_of_views(c, team);
#pragma unroll 1
    for (int view = 0; view < kViews; ++view) {
      RowSums sums{};
      if (scores_view(c, view) && (round == kAtTarget || (s->doubtful >> view & 1))) {
        const float at = round == kAtTarget ? s->targets[view] : s->highest[view];
        sums = sum_view(c, team, view, round == kAtTarget ? s->task.target : -1, shape(at, c.options));
      }
      reduce_warp(s, 2 * view, sums.e, sums.et, Add());
    }
    reduce_team(c, team, round, Add());
    if (threadIdx.x == 0) finish_scores(c, s, round);
    __syncthreads();
    if (s->doubtful == 0) return;
  }
}

/* The row's log-probs. */
RLSD_ONE_THREAD void write_scores(const RowCall& c, const RowShared* s) {
  const int64_t token = s->task.token;
#pragma unroll 1
  for (int view = 0; view < kViews; ++view) {
    if (scores_view(c, view)) c.views[view].log_probs[token] = rounded(s->scores[view].log_prob);
  }
  if (!scores_view(c, kStudent)) return;
  if (c.entropy != nullptr) c.entropy[token] = rounded(s->scores[kStudent].entropy);
  if (c.terms == nullptr && !isfinite(s->scores[kStudent].log_prob)) {
    atomicAdd(&c.control->bad, 1u);
    atomicMin(&c.control->first_bad, static_cast<unsigned long long>(token));
  }
}

/* A view's log-prob: just found, found by an earlier kernel, or given. */
__device__ inline float score_of(const RowCall& c, const RowShared* s, int64_t token, int view, const float* given) {
  if (scores_view(c, view)) return rounded(s->scores[view].log_prob);
  return given != nullptr ? given[token] : 0.0f;
}

/* dL/dlogP and the entropy's weight. Under whole-sequence objectives it is asked before this row is read
 * again, and the earlier kernel's scores serve. */
RLSD_ONE_THREAD void find_coefficients(const RowCall& c, RowShared* s) {
  const RowTask task = s->task;
  s->coefficients = {0.0, 0.0};
  if (known_zero(c.p, c.o, task.sequence, task.token)) return;
  TokenScores scores = {c.p.log_probs[task.token], 0.0f, 0.0f};
  if (c.mode != RowMode::kGradient) scores.student = score_of(c, s, task.token, kStudent, c.p.log_probs);
  scores.teacher = score_of(c, s, task.token, kTeacher, c.p.teacher);
  scores.contrast = score_of(c, s, task.token, kContrast, c.p.contrast);
  s->coefficients = row_coefficients(c.o, c.loss_scale, c.terms[task.sequence],
                                     token_input(c.p, scores, task.sequence, task.token));
}

RLSD_ONE_THREAD void set_gradient(const RowCall& c, RowShared* s) {
  s->gradient = row_gradient(s->scores[kStudent], s->coefficients, c.options);
}

/* Zeros for the block's part of a gradient row. */
template <class Team>
__device__ __noinline__ void zero_row(const RowCall& c, const Team& team, int64_t row) {
  if (c.gradient == nullptr) return;
  const View& v = c.views[kStudent];
  with_dtype(v.dtype, [&](auto tag) {
    const Slice slice = slice_of(v.columns, team.rank(c), team.size(c));
    zero_vectors(gradient_row<decltype(tag)>(c, row), slice.begin, slice.end);
  });
}

template <class Team>
__device__ void write_row(const RowCall& c, const Team& team) {
  const View& v = c.views[kStudent];
  const Slice slice = slice_of(v.vocab, team.rank(c), team.size(c));
  const RowGradient g = team.shared()->gradient;
  with_dtype(v.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Row<T> out = gradient_row<T>(c, team.shared()->task.row);
    if (Team::kResident) {
      write_slice<T, Team::kShaped>(resident_row<T>(v, team, slice), out, slice, team.shared()->task.target, g, c.options);
    } else {
      write_slice<T, Team::kShaped>(row_in_memory<T>(v, team.shared()->task.token), out, slice, team.shared()->task.target, g, c.options);
    }
    if (team.rank(c) == team.size(c) - 1) zero_vectors(out, vectors_of(v.vocab), vectors_of(v.columns));
  });
}

/* What is to be done with a row: false when nothing is left to do. The same for the whole team. */
template <class Team>
__device__ bool find_task(const RowCall& c, const Team& team, int64_t row, RowTask* task) {
  const View& student = c.views[kStudent];
  const bool writes = c.mode != RowMode::kScore;
  task->row = row;
  task->token = student.data != nullptr ? student.owner[row] : row;
  if (task->token == kNoToken || task->token == kMaskedToken) {
    if (writes && (task->token == kMaskedToken || c.clear_other_rows)) zero_row(c, team, row);
    return false;
  }
  if (is_masked(c.p, task->token)) return false; /* a student of log-probs: its rows are its tokens */
  task->sequence = c.sequence_of != nullptr ? c.sequence_of[task->token] : 0;
  task->target = c.token_ids[task->token];
  if (c.skipped == nullptr || c.skipped[task->token] == 0) return true;
  if (writes) zero_row(c, team, row);
  return false;
}

/* Scores the row and writes its gradient, as the mode says. Under whole-sequence objectives the coefficient is known
 * before the row is read. */
template <class Team>
__device__ void run_row(const RowCall& c, const Team& team, const RowTask& task) {
  RowShared* const s = team.shared();
  if (threadIdx.x == 0) s->task = task;
  __syncthreads();
  if (c.mode != RowMode::kGradient) {
    score_token(c, team);
    if (threadIdx.x == 0 && team.rank(c) == 0) write_scores(c, s);
    if (c.mode == RowMode::kScore) return;
  }
  if (threadIdx.x == 0) find_coefficients(c, s);
  __syncthreads();
  if (s->coefficients.log_prob == 0.0 && s->coefficients.entropy == 0.0) return zero_row(c, team, s->task.row);
  if (c.mode == RowMode::kGradient) score_token(c, team);
  if (threadIdx.x == 0) set_gradient(c, s);
  __syncthreads();
  write_row(c, team);
}

}  // namespace rlsd::cuda

#endif
