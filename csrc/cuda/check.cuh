/* The check of a batch's small arrays, on the device. Every block looks at all of them and comes to the same verdict:
 * N bytes out of the L2 cache cost less than another launch, and nothing is written before the verdict is known. */
#ifndef RLSD_CUDA_CHECK_CUH_
#define RLSD_CUDA_CHECK_CUH_

#include "cuda/outcome.h"
#include "cuda/reduce.cuh"

namespace rlsd::cuda {

struct ExamineShared {
  BlockScratch<Key, 2> verdict;
};

struct Examined {
  Key error;
  int64_t tokens; /* unmasked */
};

__device__ inline void keep(Key* error, Key key) {
  if (key < *error) *error = key;
}

__device__ inline Key examine_offsets(const PolicyTokens& p) {
  Key error = kNoKey;
  if (threadIdx.x == 0 && p.cu_seqlens[0] != 0) keep(&error, make_key(0, 0, Reason::kFirstOffset));
  for (int64_t b = threadIdx.x; b < p.sequences; b += kThreads) {
    if (p.cu_seqlens[b + 1] < p.cu_seqlens[b]) keep(&error, make_key(0, b + 1, Reason::kDescending));
  }
  if (threadIdx.x == 0 && p.cu_seqlens[p.sequences] != p.tokens) {
    keep(&error, make_key(0, p.sequences, Reason::kLastOffset));
  }
  return error;
}

/* A sequence's advantage counts once one of its tokens does. Offsets may be wrong still: they are kept inside (N). */
__device__ inline Key examine_sequence_advantages(const PolicyTokens& p) {
  Key error = kNoKey;
  for (int64_t b = threadIdx.x; b < p.sequences; b += kThreads) {
    if (isfinite(p.advantages[b])) continue;
    const int64_t first = p.cu_seqlens[b] > 0 ? p.cu_seqlens[b] : 0;
    const int64_t last = p.cu_seqlens[b + 1] < p.tokens ? p.cu_seqlens[b + 1] : p.tokens;
    int64_t i = first;
    while (i < last && is_masked(p, i)) ++i;
    if (i < last) keep(&error, make_key(3, b, Reason::kAdvantage));
  }
  return error;
}

__device__ inline Examined examine(const PolicyTokens& p, ExamineShared* shared) {
  Key found[1] = {examine_offsets(p)};
  if (!p.advantages_per_token) keep(&found[0], examine_sequence_advantages(p));
  int64_t count = 0;
  for (int64_t i = threadIdx.x; i < p.tokens; i += kThreads) {
    const int mask = p.completion_mask != nullptr ? p.completion_mask[i] : 1;
    count += mask != 0;
    if (mask > 1) keep(&found[0], make_key(1, i, Reason::kMask));
    if (p.span_mask != nullptr && p.span_mask[i] > 1) keep(&found[0], make_key(2, i, Reason::kSpanMask));
    if (p.advantages_per_token && mask != 0 && !isfinite(p.advantages[i])) {
      keep(&found[0], make_key(3, i, Reason::kAdvantage));
    }
  }
  block_reduce(found, reinterpret_cast<BlockScratch<Key, 1>*>(&shared->verdict), Least());
  Key sum[1] = {static_cast<Key>(count)};
  block_reduce(sum, reinterpret_cast<BlockScratch<Key, 1>*>(&shared->verdict), Sum());
  return {found[0], static_cast<int64_t>(sum[0])};
}

/* The words' numbers for an error in the small arrays. */
__device__ inline void explain(const PolicyTokens& p, Key key, rlsd_outcome* o) {
  const int64_t i = key_index(key);
  *o = {RLSD_INVALID_ARGUMENT, static_cast<int32_t>(key_reason(key)), i, 0, {0, 0}, 0.0};
  switch (key_reason(key)) {
    case Reason::kFirstOffset:
      o->values[0] = p.cu_seqlens[0];
      break;
    case Reason::kDescending:
      o->values[0] = p.cu_seqlens[i];
      o->values[1] = p.cu_seqlens[i - 1];
      break;
    case Reason::kLastOffset:
      o->values[0] = p.tokens;
      o->values[1] = p.cu_seqlens[i];
      break;
    case Reason::kMask:
      o->values[0] = p.completion_mask[i];
      break;
    case Reason::kSpanMask:
      o->values[0] = p.span_mask[i];
      break;
    case Reason::kAdvantage:
      o->value = p.advantages[i];
      break;
    default:
      break;
  }
}

/* Terms of one sequence, by the whole block. */
struct TermsShared {
  BlockScratch<double, 6> sums;
};

__device__ inline SequenceTerms sequence_terms(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens,
                                               int64_t sequence, TermsShared* shared) {
  const int64_t first = p.cu_seqlens[sequence], last = p.cu_seqlens[sequence + 1];
  OutlineSums outline{};
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) add_outline(&outline, p, o, sequence, i);
  double lengths[2] = {outline.length, outline.advantages};
  block_reduce(lengths, reinterpret_cast<BlockScratch<double, 2>*>(&shared->sums), Add());
  SequenceTerms q = outline_terms({lengths[0], lengths[1]}, p, o, batch_tokens);
  if (!has_sequence_means(p, o)) return q;
  MeanSums means{};
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) add_mean(&means, p, o, q, sequence, i);
  double sums[6] = {means.credited, means.usable,     means.log_ratios,
                    means.credits,  means.advantages, means.log_importance};
  block_reduce(sums, &shared->sums, Add());
  set_means(&q, {sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]}, o);
  return q;
}

}  // namespace rlsd::cuda

#endif
