/* The check of a batch's small arrays, on the device. Every block looks at all of them and comes to the same verdict:
 * few bytes a token out of the L2 cache cost less than another launch, and nothing is written before the verdict is
 * known. */
#ifndef RLSD_CUDA_CHECK_CUH_
#define RLSD_CUDA_CHECK_CUH_

#include "cuda/outcome.h"
#include "cuda/reduce.cuh"

namespace rlsd::cuda {

struct ExamineShared {
  BlockScratch<Key, 1> verdict;
};

struct Examined {
  Key error;
  int64_t tokens; /* unmasked */
};

/* ---- masks, 16 bytes at a time ------------------------------------------------------------ */

/* This thread's share of m[first] .. m[last - 1]: word(16 bytes, their place), byte(one, its place). */
template <class Word, class Byte>
__device__ __forceinline__ void for_bytes(const uint8_t* m, int64_t first, int64_t last, Word&& word, Byte&& byte) {
  const auto base = reinterpret_cast<uintptr_t>(m);
  int64_t from = first + static_cast<int64_t>(-(base + static_cast<uintptr_t>(first)) % 16);
  if (from > last) from = last;
  const int64_t words = (last - from) / 16, thread = threadIdx.x;
#pragma unroll 4
  for (int64_t w = thread; w < words; w += kThreads) {
    word(*reinterpret_cast<const uint4*>(m + from + 16 * w), from + 16 * w);
  }
  const int64_t head = first + thread, tail = from + 16 * words + thread; /* at most 15 bytes each */
  if (head < from) byte(m[head], head);
  if (tail < last) byte(m[tail], tail);
}

__device__ __forceinline__ int count_ones(uint4 w) {
  constexpr unsigned kOnes = 0x01010101u;
  return __popc(w.x & kOnes) + __popc(w.y & kOnes) + __popc(w.z & kOnes) + __popc(w.w & kOnes);
}

/* Of this thread's share of a mask that holds 0 and 1. */
__device__ inline int64_t count_ones(const uint8_t* m, int64_t first, int64_t last) {
  int64_t ones = 0;
  for_bytes(m, first, last, [&](uint4 w, int64_t) { ones += count_ones(w); }, [&](uint8_t b, int64_t) { ones += b; });
  return ones;
}

/* ---- the verdict -------------------------------------------------------------------------- */

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

/* Of this thread's share of a mask: what is neither 0 nor 1. */
__device__ inline Key examine_mask(const uint8_t* m, int64_t count, int phase, Reason reason) {
  Key error = kNoKey;
  const auto byte = [&](uint8_t b, int64_t i) {
    if (b > 1) keep(&error, make_key(phase, i, reason));
  };
  const auto word = [&](uint4 w, int64_t i) {
    if (((w.x | w.y | w.z | w.w) & 0xFEFEFEFEu) == 0) return;
    for (int64_t j = 0; j < 16; ++j) byte(m[i + j], i + j);
  };
  for_bytes(m, 0, count, word, byte);
  return error;
}

__device__ inline Key examine_token_advantages(const PolicyTokens& p) {
  Key error = kNoKey;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < p.tokens; i += kThreads) {
    if (!isfinite(p.advantages[i]) && !is_masked(p, i)) keep(&error, make_key(3, i, Reason::kAdvantage));
  }
  return error;
}

__device__ inline Examined examine(const PolicyTokens& p, ExamineShared* shared) {
  Key found[1] = {examine_offsets(p)};
  keep(&found[0], p.advantages_per_token ? examine_token_advantages(p) : examine_sequence_advantages(p));
  if (p.completion_mask != nullptr) keep(&found[0], examine_mask(p.completion_mask, p.tokens, 1, Reason::kMask));
  if (p.span_mask != nullptr) keep(&found[0], examine_mask(p.span_mask, p.tokens, 2, Reason::kSpanMask));
  block_reduce(found, &shared->verdict, Least());
  if (p.completion_mask == nullptr) return {found[0], p.tokens};
  Key count[1] = {static_cast<Key>(count_ones(p.completion_mask, 0, p.tokens))};
  block_reduce(count, &shared->verdict, Sum());
  return {found[0], static_cast<int64_t>(count[0])};
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

/* A sequence's length, and the sum of its advantages where its sign decides something. */
__device__ inline OutlineSums sequence_outline(const PolicyTokens& p, const rlsd_objective& o, int64_t sequence,
                                               TermsShared* shared) {
  const int64_t first = p.cu_seqlens[sequence], last = p.cu_seqlens[sequence + 1];
  const bool adds = o.negative_only && p.advantages_per_token;
  OutlineSums outline{static_cast<double>(last - first), 0.0};
  if (adds) {
    outline.length = 0.0;
    for (int64_t i = first + threadIdx.x; i < last; i += kThreads) add_outline(&outline, p, o, sequence, i);
  } else if (p.completion_mask != nullptr) {
    outline.length = static_cast<double>(count_ones(p.completion_mask, first, last));
  }
  if (adds || p.completion_mask != nullptr) {
    double sums[2] = {outline.length, outline.advantages};
    block_reduce(sums, reinterpret_cast<BlockScratch<double, 2>*>(&shared->sums), Add());
    outline = {sums[0], sums[1]};
  }
  if (!p.advantages_per_token) outline.advantages = outline.length * direction(o, advantage_at(p, sequence, first));
  return outline;
}

__device__ inline SequenceTerms sequence_terms(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens,
                                               int64_t sequence, TermsShared* shared) {
  const int64_t first = p.cu_seqlens[sequence], last = p.cu_seqlens[sequence + 1];
  SequenceTerms q = outline_terms(sequence_outline(p, o, sequence, shared), p, o, batch_tokens);
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
