/* What a row is besides its columns: few numbers, found in float64 by single threads with the functions of csrc/core. */
#ifndef RLSD_CUDA_ROW_SCALARS_CUH_
#define RLSD_CUDA_ROW_SCALARS_CUH_

#include "cuda/row_team.cuh"

namespace rlsd::cuda {

/* What one thread does in float64 is kept out of line: inlined, its registers would be taken from the loops. */
#define RLSD_ONE_THREAD __device__ __noinline__ inline

/* ---- before the sums: gathered by warps of their own ------------------------------------------- */

/* A view's log-prob that was given, or found by an earlier kernel; 0: this kernel finds it, or there is none. */
__device__ inline float known_score(const RowCall& c, int view, const float* given, int64_t token) {
  return given != nullptr && !scores_view(c, view) ? given[token] : 0.0f;
}

/* The token's share of the batch's small arrays; log-probs that this kernel finds follow. */
RLSD_ONE_THREAD void load_input(const RowCall& c, RowShared* s, RowTask task) {
  s->known_zero = known_zero(c.p, c.o, task.sequence, task.token);
  s->terms = c.terms[task.sequence];
  s->input = given_input(c.p, task.sequence, task.token);
  const float student = c.mode == RowMode::kGradient ? c.p.log_probs[task.token]
                                                     : known_score(c, kStudent, c.p.log_probs, task.token);
  s->log_probs[kStudent] = student;
  s->log_probs[kTeacher] = known_score(c, kTeacher, c.p.teacher, task.token);
  s->log_probs[kContrast] = known_score(c, kContrast, c.p.contrast, task.token);
}

/* dL/dlogP and the entropy's weight, once every log-prob is there. */
RLSD_ONE_THREAD void find_coefficients(const RowCall& c, RowShared* s) {
  s->coefficients = {0.0, 0.0};
  if (s->known_zero) return;
  set_scores(&s->input, c.p, {s->log_probs[kStudent], s->log_probs[kTeacher], s->log_probs[kContrast]});
  s->coefficients = row_coefficients(c.o, c.loss_scale, s->terms, s->input);
}

RLSD_ONE_THREAD void load_anchor(const RowCall& c, RowShared* s, RowTask task, int view) {
  const View& v = c.views[view];
  float target = 0.0f;
  with_dtype(v.dtype, [&](auto tag) {
    target = to_float(row_in_memory<decltype(tag)>(v, task.token).data[task.target]);
  });
  s->anchors[view] = anchor_at_target(target, c.options);
}

/* Whole-sequence objectives: the coefficient from an earlier kernel's scores. */
__device__ inline void gather_input(const RowCall& c, RowShared* s, RowTask task) {
  if (threadIdx.x != 0) return;
  load_input(c, s, task);
  find_coefficients(c, s);
}

/* Each warp but the first, which starts the copy, gathers something; the caller's barrier makes it known. */
__device__ __forceinline__ void gather_row(const RowCall& c, RowShared* s, RowTask task) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  if (threadIdx.x == 0) {
    s->task = task;
    s->doubtful = 0;
  }
  if (warp == 1 && lane < kViews && scores_view(c, lane)) load_anchor(c, s, task, lane);
  if (warp == 2 && lane == 0 && c.mode == RowMode::kScoreAndGradient) load_input(c, s, task);
}

/* ---- after the sums ------------------------------------------------------------------------ */

/* Views of this call whose target is no anchor, a bit each: the same in every thread of the team. */
__device__ __forceinline__ int find_doubtful(const RowCall& c, const RowShared* s) {
  int doubtful = 0;
#pragma unroll
  for (int view = 0; view < kViews; ++view) {
    if (scores_view(c, view) && !is_anchored(s->anchors[view], s->result[view])) doubtful |= 1 << view;
  }
  return doubtful;
}

__device__ inline RowScore score_of(const RowCall& c, const RowShared* s, int view) {
  const Anchor& a = s->anchors[view];
  const double e = s->result[view], et = view == kStudent ? s->result[kStudentEt] : 0.0;
  return s->doubtful >> view & 1 ? score_at_highest(a, e, et, c.options) : score_at_target(a, e, et);
}

RLSD_ONE_THREAD void find_score(const RowCall& c, RowShared* s, int view) {
  const RowScore score = score_of(c, s, view);
  s->log_probs[view] = rounded(score.log_prob);
  if (view == kStudent) s->score = score;
}

RLSD_ONE_THREAD void find_basis(const RowCall& c, RowShared* s) {
  s->basis = gradient_basis(score_of(c, s, kStudent), s->anchors[kStudent], c.options);
}

/* Scores, coefficients and the gradient's basis, for all threads. Lanes of the first warp take a view each. */
__device__ __forceinline__ void finish_row(const RowCall& c, RowShared* s) {
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread < kWarp) {
    if (thread < kViews && scores_view(c, thread)) find_score(c, s, thread);
    __syncwarp();
    if (thread == 0 && c.mode == RowMode::kScoreAndGradient) find_coefficients(c, s);
  }
  if (thread == kWarp && c.mode != RowMode::kScore && scores_view(c, kStudent)) find_basis(c, s);
  __syncthreads();
}

/* A view's log-prob, and the student's entropy, to memory. */
__device__ __forceinline__ void write_score(const RowCall& c, const RowShared* s, int view) {
  if (!scores_view(c, view)) return;
  const int64_t token = s->task.token;
  c.views[view].log_probs[token] = s->log_probs[view];
  if (view != kStudent) return;
  if (c.entropy != nullptr) c.entropy[token] = rounded(s->score.entropy);
  if (c.terms == nullptr && !isfinite(s->score.log_prob)) {
    atomicAdd(&c.control->bad, 1u);
    atomicMin(&c.control->first_bad, static_cast<unsigned long long>(token));
  }
}

}  // namespace rlsd::cuda

#endif
