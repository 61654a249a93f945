/* The plain row kernel: log-probs of student, teacher and contrast, and the student's gradient, one block per row.
 *
 * Any V, any alignment, any device. The student is read twice, the second time out of the L2 cache where the rows under way
 * fit in it; teacher and contrast once. No (N, V) array but the gradient is made. It is the resident kernel's oracle and its fallback. */
#include "cuda/run_row.cuh"

namespace rlsd::cuda {
namespace {

/* One block, which keeps nothing of a row. */
template <bool kShaped>
struct PlainTeam : Team<false, kShaped> {
  __device__ __forceinline__ static void start(const RowCall&, int64_t) {}
  __device__ __forceinline__ static void next_row(const RowCall&) {}
  __device__ __forceinline__ static void release_peers(const RowCall&) {}
};

/* ---- kernels ------------------------------------------------------------------------------ */

/* Three blocks keep 48 KiB of loads in flight on a multiprocessor. */
template <bool kShaped>
__global__ void __launch_bounds__(kThreads, 3) plain_rows_kernel(const __grid_constant__ RowCall c) {
  const int64_t row = blockIdx.x;
  const RowTask task = c.tasks[row];
  if (c.control->error != kNoKey) return;
  const PlainTeam<kShaped> team;
  if (!leave_row(c, team, row, task)) run_row(c, team, row, task);
}

/* Masked tokens get 0; the first thread says how the call went. */
__global__ void __launch_bounds__(kThreads) row_outcome_kernel(const __grid_constant__ RowCall c, const bool skip_bad,
                                                               rlsd_outcome* const outcome) {
  if (c.control->error != kNoKey) return;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < c.p.tokens && is_masked(c.p, i)) {
    c.views[kStudent].log_probs[i] = 0.0f;
    if (c.entropy != nullptr) c.entropy[i] = 0.0f;
  }
  if (i != 0) return;
  const unsigned bad = c.control->bad + 1u;
  const bool failed = bad > 0 && !skip_bad;
  *outcome = {failed ? RLSD_NON_FINITE : RLSD_OK,
              static_cast<int32_t>(failed ? Reason::kNonFinite : Reason::kNone),
              static_cast<int64_t>(c.control->first_bad),
              bad,
              {0, 0},
              0.0};
}

}  // namespace

/* ---- launchers ---------------------------------------------------------------------------- */

rlsd_status launch_plain_rows(rlsd_context* context, const RowCall& call) {
  const Grid grid{static_cast<unsigned>(call.rows), 1, sizeof(RowShared)};
  auto* const kernel = call.options.is_shaped() ? plain_rows_kernel<true> : plain_rows_kernel<false>;
  return launch(context, "plain_rows_kernel", grid, kernel, call);
}

rlsd_status launch_row_outcome(rlsd_context* context, const RowCall& call, bool skip_bad, rlsd_outcome* outcome) {
  const Grid grid{static_cast<unsigned>(call.p.tokens / kThreads + 1)};
  return launch(context, "row_outcome_kernel", grid, row_outcome_kernel, call, skip_bad, outcome);
}

}  // namespace rlsd::cuda
