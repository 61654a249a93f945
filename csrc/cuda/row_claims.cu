/* Which token each row predicts, and what is wrong with ids and rows: integers only, one thread a token.
 *
 * A row may be named once by an unmasked token: every token puts its number at its row, the smallest stays, and a token
 * that does not find its own number there came second. */
#include "cuda/check.cuh"
#include "cuda/rows.h"

namespace rlsd::cuda {
namespace {

struct ClaimShared {
  ExamineShared examine;
  TermsShared terms;
};

/* ---- helpers ------------------------------------------------------------------------------ */

__device__ void claim_row(const RowCall& c, int view, int64_t i) {
  const View& v = c.views[view];
  const int64_t row = v.row(i);
  const bool inside = v.is_inside(row);
  if (is_masked(c.p, i)) {
    if (inside) atomicMin(v.owner + row, kMaskedToken);
    return;
  }
  const int32_t id = c.token_ids[i];
  if (id < 0 || id >= v.vocab) {
    atomicMin(&c.control->error, make_key(kViewPhase + view, i, Reason::kTokenId));
  } else if (!inside) {
    atomicMin(&c.control->error, make_key(kViewPhase + view, i, Reason::kRow));
  } else {
    atomicMin(v.owner + row, static_cast<int32_t>(i));
  }
}

/* A token whose id or row is wrong has claimed nothing. */
__device__ Key find_second(const RowCall& c, int view, int64_t i) {
  const View& v = c.views[view];
  if (v.row_of == nullptr || is_masked(c.p, i)) return kNoKey;
  const int64_t row = v.row(i);
  const int32_t id = c.token_ids[i];
  if (!v.is_inside(row) || id < 0 || id >= v.vocab || v.owner[row] == i) return kNoKey;
  return make_key(kViewPhase + view, i, Reason::kRowTwice);
}

/* The words' numbers for an error in a view; `standalone`: the only view is called "scores". */
__device__ void explain_view(const RowCall& c, Key key, rlsd_outcome* o) {
  const int view = key_phase(key) - kViewPhase;
  const int name = c.terms != nullptr ? view : kViews;
  const View& v = c.views[view];
  const int64_t i = key_index(key);
  *o = {RLSD_INVALID_ARGUMENT, static_cast<int32_t>(key_reason(key)) | name << 8, i, 0, {0, 0}, 0.0};
  switch (key_reason(key)) {
    case Reason::kTokenId:
      o->values[0] = v.vocab - 1;
      o->values[1] = c.token_ids[i];
      break;
    case Reason::kRow:
      o->values[0] = v.rows - 1;
      o->values[1] = v.row(i);
      break;
    default:
      o->values[0] = v.owner[v.row(i)];
      o->values[1] = v.row(i);
      break;
  }
}

/* Under whole-sequence objectives a row is left unread only when no token of its sequence needs it. */
__device__ bool may_skip_tokens(const RowCall& c, int64_t sequence, int64_t first, int64_t last) {
  if (!c.skip_zero_rows) return false;
  if (!c.whole_sequences || !c.p.advantages_per_token) return true; /* each token decides for itself */
  int needed = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
    needed |= !is_masked(c.p, i) && !known_zero(c.p, c.o, sequence, i);
  }
  return __syncthreads_or(needed) == 0;
}

/* Tells the row kernels what token i's row is for. A row that only masked tokens name says so; one that an unmasked token
 * names too is that token's. Rows out of range have no place: the call fails. */
__device__ void write_task(const RowCall& c, int64_t i, int64_t sequence, bool skipped) {
  const View& student = c.views[kStudent];
  const int64_t row = c.task_row(i);
  if (student.data != nullptr && !student.is_inside(row)) return;
  const bool masked = is_masked(c.p, i);
  if (masked && student.data != nullptr && student.owner[row] != kMaskedToken) return;
  c.tasks[row] = {masked ? kMaskedToken : static_cast<int32_t>(i), masked ? 0 : c.token_ids[i],
                  static_cast<int32_t>(sequence), skipped};
}

/* Terms of the sequences, tasks of their tokens, and whether these are left unread. */
__device__ void write_terms(const RowCall& c, int64_t batch_tokens, TermsShared* shared) {
  for (int64_t b = blockIdx.x; b < c.p.sequences; b += gridDim.x) {
    const int64_t first = c.p.cu_seqlens[b], last = c.p.cu_seqlens[b + 1];
    const SequenceTerms q = sequence_terms(c.p, c.o, batch_tokens, b, shared);
    if (threadIdx.x == 0) c.terms[b] = q;
    const bool may_skip = may_skip_tokens(c, b, first, last);
    for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
      const bool skipped = may_skip && !is_masked(c.p, i) && known_zero(c.p, c.o, b, i);
      if (c.skipped != nullptr) c.skipped[i] = skipped;
      write_task(c, i, b, c.skipped != nullptr && skipped);
    }
  }
}

/* ---- kernels ------------------------------------------------------------------------------ */

__global__ void __launch_bounds__(kThreads) claim_kernel(const __grid_constant__ RowCall c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= c.p.tokens) return;
  for (int view = 0; view < kViews; ++view) {
    if (c.views[view].data != nullptr) claim_row(c, view, i);
  }
}

/* After every claim: rows named twice, the small arrays, the sequences' terms; the last block explains the verdict. */
__global__ void __launch_bounds__(kThreads, 1) settle_kernel(const __grid_constant__ RowCall c,
                                                          rlsd_outcome* const outcome) {
  auto* const shared = shared_memory<ClaimShared>();
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < c.p.tokens;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    for (int view = 0; view < kViews; ++view) {
      const Key second = c.views[view].data != nullptr ? find_second(c, view, i) : kNoKey;
      if (second != kNoKey) atomicMin(&c.control->error, second);
    }
    if (c.terms == nullptr) write_task(c, i, 0, false);
  }
  if (c.terms != nullptr) {
    const Examined examined = examine(c.p, &shared->examine);
    if (examined.error == kNoKey) write_terms(c, examined.tokens, &shared->terms);
    if (examined.error != kNoKey && threadIdx.x == 0) atomicMin(&c.control->error, examined.error);
  }
  __syncthreads();
  if (threadIdx.x != 0 || !is_last_block(&c.control->settled)) return;
  const Key error = *static_cast<const volatile Key*>(&c.control->error); /* what the last of the blocks left */
  if (error != kNoKey && key_phase(error) >= kViewPhase) explain_view(c, error, outcome);
}

/* The terms again, now that the log-probs of their means are there. */
__global__ void __launch_bounds__(kThreads, 1) means_kernel(const __grid_constant__ RowCall c) {
  auto* const shared = shared_memory<ClaimShared>();
  if (c.control->error != kNoKey) return;
  write_terms(c, examine(c.p, &shared->examine).tokens, &shared->terms);
}

unsigned blocks_for(int64_t count) { return static_cast<unsigned>(count < 1 ? 1 : count < 1024 ? count : 1024); }

}  // namespace

/* ---- launchers ---------------------------------------------------------------------------- */

rlsd_status launch_claims(rlsd_context* context, const RowCall& call, rlsd_outcome* outcome) {
  for (const View& v : call.views) {
    if (v.data == nullptr || v.rows == 0) continue;
    RLSD_CUDA_CHECK(context, cudaMemsetAsync(v.owner, 0x7F, v.rows * sizeof(int32_t), stream_of(context)),
                    "Could not clear the claims");
  }
  if (call.rows > 0) {
    RLSD_CUDA_CHECK(context, cudaMemsetAsync(call.tasks, 0x7F, call.rows * sizeof(RowTask), stream_of(context)),
                    "Could not clear the tasks");
  }
  const Grid tokens{static_cast<unsigned>((call.p.tokens + kThreads - 1) / kThreads)};
  const rlsd_status status = launch(context, "claim_kernel", tokens, claim_kernel, call);
  if (status != RLSD_OK) return status;
  const int64_t share = (call.p.tokens + kThreads - 1) / kThreads;
  const Grid grid{blocks_for(call.terms != nullptr && call.p.sequences > share ? call.p.sequences : share), 1,
                  sizeof(ClaimShared)};
  return launch(context, "settle_kernel", grid, settle_kernel, call, outcome);
}

rlsd_status launch_means(rlsd_context* context, const RowCall& call) {
  return launch(context, "means_kernel", {blocks_for(call.p.sequences), 1, sizeof(ClaimShared)}, means_kernel, call);
}

}  // namespace rlsd::cuda
