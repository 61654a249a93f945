/* The pass over (N) log-probs: loss, statistics, per-token results, dL/dlogP, in one kernel.
 *
 *   loss = sum_t omega_t (L_t + klCoef KL_t - entropyCoef H_t)          (docs/maths.md, "Reduction")
 *
 * Blocks take equal shares of the tokens, or, where a token's loss depends on its whole sequence, sequences in turn; each
 * finds the terms of the sequences it meets. A block sums its tokens, the last block to finish adds the blocks' sums in
 * their order. Nothing waits on the host and nothing but (blocks) partial sums is stored besides the results. */
#include "cuda/policy_tokens.h"

#include <algorithm>
#include <chrono>

#include "cuda/check.cuh"

namespace rlsd::cuda {
namespace {

struct TokensCall {
  PolicyTokens p;
  rlsd_objective o;
  rlsd_policy_outputs out;
  Control* control;
  PolicySums* parts; /* (blocks) */
  rlsd_outcome* outcome;
  unsigned long long number; /* of the call, not 0 */
  bool checked;
  bool by_sequence; /* blocks take sequences */
};

struct TokensShared {
  union {
    ExamineShared examine;
    TermsShared terms;
    BlockScratch<double, kPolicySums> sums;
    BlockScratch<Key, 1> first;
  };
  bool last;
};

/* ---- kernels ------------------------------------------------------------------------------ */

/* The block's sums, in every thread. */
__device__ PolicySums reduce_sums(const PolicySums& mine, TokensShared* shared) {
  double values[kPolicySums];
  memcpy(values, &mine, sizeof(values));
  block_reduce(values, &shared->sums, Add());
  Key first[1] = {static_cast<Key>(mine.first_non_finite)}; /* -1 is the largest */
  block_reduce(first, &shared->first, Least());
  PolicySums total;
  memcpy(&total, values, sizeof(values));
  total.first_non_finite = static_cast<int64_t>(first[0]);
  return total;
}

/* The first sequence that ends after token `begin`. */
__device__ int64_t sequence_after(const PolicyTokens& p, int64_t begin, TokensShared* shared) {
  Key before[1] = {0};
  for (int64_t b = threadIdx.x; b < p.sequences; b += kThreads) before[0] += p.cu_seqlens[b + 1] <= begin;
  block_reduce(before, &shared->first, Sum());
  return static_cast<int64_t>(before[0]);
}

/* This thread's tokens of sequence b in [begin, end). */
__device__ void visit_tokens(const TokensCall& c, int64_t tokens, int64_t b, int64_t begin, int64_t end, PolicySums* sums,
                             TokensShared* shared) {
  const SequenceTerms q = sequence_terms(c.p, c.o, tokens, b, &shared->terms);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) visit_token(sums, c.p, c.o, c.out, q, b, i);
}

/* This thread's sums over the block's tokens. */
__device__ PolicySums visit_share(const TokensCall& c, int64_t tokens, TokensShared* shared) {
  const int32_t* const cu = c.p.cu_seqlens;
  const int64_t block = blockIdx.x, blocks = gridDim.x;
  PolicySums sums = no_policy_sums();
  const int64_t begin = c.by_sequence ? 0 : c.p.tokens * block / blocks;
  const int64_t end = c.by_sequence ? c.p.tokens : c.p.tokens * (block + 1) / blocks;
  const int64_t first = c.by_sequence ? block : sequence_after(c.p, begin, shared);
#pragma unroll 1
  for (int64_t b = first; b < c.p.sequences && (c.by_sequence || cu[b] < end); b += c.by_sequence ? blocks : 1) {
    const int64_t from = cu[b] > begin ? cu[b] : begin, to = cu[b + 1] < end ? cu[b + 1] : end;
    visit_tokens(c, tokens, b, from, to, &sums, shared);
  }
  return sums;
}

__device__ void write_outcome(const TokensCall& c, Key error, const PolicySums& s) {
  if (error != kNoKey) {
    if (key_phase(error) < kViewPhase) explain(c.p, error, c.outcome); /* a view's was explained when it was found */
    return;
  }
  const bool bad = s.non_finite > 0.0 && !c.o.non_finite_skip;
  *c.outcome = {bad ? RLSD_NON_FINITE : RLSD_OK,
                static_cast<int32_t>(bad ? Reason::kNonFinite : Reason::kNone),
                s.first_non_finite,
                static_cast<int64_t>(s.non_finite),
                {0, 0},
                0.0};
}

__global__ void __launch_bounds__(kThreads, 1) policy_tokens_kernel(const __grid_constant__ TokensCall c) {
  auto* const shared = shared_memory<TokensShared>();
  Examined examined = examine(c.p, &shared->examine);
  if (c.checked) examined.error = c.control->error;
  if (examined.error == kNoKey) {
    const PolicySums sums = reduce_sums(visit_share(c, examined.tokens, shared), shared);
    if (threadIdx.x == 0) c.parts[blockIdx.x] = sums;
  }
  __syncthreads(); /* the block's writes come before its arrival */
  if (threadIdx.x == 0) shared->last = is_last_of_call(&c.control->arrivals, c.number);
  __syncthreads();
  const bool last = shared->last;
  __syncthreads();
  if (!last) return;
  PolicySums total = no_policy_sums();
  if (examined.error == kNoKey && threadIdx.x < gridDim.x) total = c.parts[threadIdx.x];
  total = reduce_sums(total, shared);
  if (threadIdx.x != 0) return;
  if (examined.error == kNoKey) {
    write_policy_stats(c.p, c.o, total, examined.tokens, c.out.stats);
    if (c.out.loss != nullptr) *c.out.loss = static_cast<float>(c.out.stats[RLSD_STAT_LOSS]);
  }
  write_outcome(c, examined.error, total);
}

}  // namespace

/* ---- launchers ---------------------------------------------------------------------------- */

namespace {

/* A call that came to its end leaves no number behind, so that one must only differ from what else memory may hold: that of
 * a call that was lost with its context, or chance. From the clock, it comes again after 39 hours, which harms nobody. */
unsigned long long next_call_number() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return call_number(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace

rlsd_status launch_policy_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                                 const rlsd_policy_outputs& out, Control* control, PolicySums* parts,
                                 rlsd_outcome* outcome, bool checked) {
  const bool by_sequence = has_sequence_means(p, o);
  const int64_t shares = by_sequence ? 0 : (p.tokens + kThreads - 1) / kThreads;
  const int64_t blocks = std::clamp<int64_t>(std::max(p.sequences, shares), 1, kPassBlocks);
  const Grid grid{static_cast<unsigned>(blocks), 1, sizeof(TokensShared)};
  const TokensCall call{p, o, out, control, parts, outcome, next_call_number(), checked, by_sequence};
  return launch(context, "policy_tokens_kernel", grid, policy_tokens_kernel, call);
}

}  // namespace rlsd::cuda
