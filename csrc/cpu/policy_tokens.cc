#include "cpu/policy_tokens.h"

#include <cmath>

#include "core/error.h"

namespace rlsd::cpu {

int64_t count_tokens(const PolicyTokens& p) {
  if (p.completion_mask == nullptr) return p.tokens;
  int64_t count = 0;
  for (int64_t i = 0; i < p.tokens; ++i) count += p.completion_mask[i];
  return count;
}

SequenceTerms sequence_terms(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens, int64_t sequence) {
  const int64_t first = p.cu_seqlens[sequence], last = p.cu_seqlens[sequence + 1];
  OutlineSums outline{};
  for (int64_t i = first; i < last; ++i) add_outline(&outline, p, o, sequence, i);
  SequenceTerms q = outline_terms(outline, p, o, batch_tokens);
  if (!has_sequence_means(p, o)) return q;
  MeanSums means{};
  for (int64_t i = first; i < last; ++i) add_mean(&means, p, o, q, sequence, i);
  set_means(&q, means, o);
  return q;
}

namespace {

rlsd_status check_sequences(rlsd_context* c, const PolicyTokens& p) {
  const int32_t* cu = p.cu_seqlens;
  if (cu[0] != 0) return fail(c, RLSD_INVALID_ARGUMENT, 0, "Expected cuSeqlens[0] to be 0 but received %d.", cu[0]);
  for (int64_t b = 0; b < p.sequences; ++b) {
    if (cu[b + 1] >= cu[b]) continue;
    return fail(c, RLSD_INVALID_ARGUMENT, b + 1,
                "Expected cuSeqlens to ascend but cuSeqlens[%lld] is %d, after %d.", static_cast<long long>(b + 1),
                cu[b + 1], cu[b]);
  }
  if (cu[p.sequences] == p.tokens) return RLSD_OK;
  return fail(c, RLSD_INVALID_ARGUMENT, p.sequences, "Expected cuSeqlens to end at N = %lld but it ends at %d.",
              static_cast<long long>(p.tokens), cu[p.sequences]);
}

rlsd_status check_mask(rlsd_context* c, const char* name, const uint8_t* mask, int64_t tokens) {
  if (mask == nullptr) return RLSD_OK;
  for (int64_t i = 0; i < tokens; ++i) {
    if (mask[i] <= 1) continue;
    return fail(c, RLSD_INVALID_ARGUMENT, i, "Expected %s to hold 0 or 1 but %s[%lld] is %d.", name, name,
                static_cast<long long>(i), mask[i]);
  }
  return RLSD_OK;
}

/* Only advantages that an unmasked token reads must be finite. */
rlsd_status check_advantages(rlsd_context* c, const PolicyTokens& p) {
  if (p.advantages == nullptr) return RLSD_OK;
  for (int64_t b = 0; b < p.sequences; ++b) {
    for (int64_t i = p.cu_seqlens[b]; i < p.cu_seqlens[b + 1]; ++i) {
      if (is_masked(p, i)) continue;
      const double a = advantage_at(p, b, i);
      const int64_t at = p.advantages_per_token ? i : b;
      if (!std::isfinite(a)) {
        return fail(c, RLSD_INVALID_ARGUMENT, at, "Expected advantages to be finite but advantages[%lld] is %g.",
                    static_cast<long long>(at), a);
      }
      if (!p.advantages_per_token) break;
    }
  }
  return RLSD_OK;
}

}  // namespace

rlsd_status check_policy_tokens(rlsd_context* context, const PolicyTokens& p) {
  rlsd_status status = check_sequences(context, p);
  if (status == RLSD_OK) status = check_mask(context, "completionMask", p.completion_mask, p.tokens);
  if (status == RLSD_OK) status = check_mask(context, "spanMask", p.span_mask, p.tokens);
  if (status == RLSD_OK) status = check_advantages(context, p);
  return status;
}

}  // namespace rlsd::cpu
