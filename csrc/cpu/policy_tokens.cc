#include "cpu/policy_tokens.h"

#include <cmath>

#include "cpu/error.h"

namespace rlsd::cpu {

PolicyTokens policy_tokens(const rlsd_policy_batch& batch) {
  PolicyTokens p{};
  p.tokens = batch.tokens;
  p.sequences = batch.sequences;
  p.log_probs = batch.student.log_probs;
  p.teacher = batch.teacher.level == RLSD_LOG_PROBS ? batch.teacher.log_probs : nullptr;
  p.contrast = batch.contrast.level == RLSD_LOG_PROBS ? batch.contrast.log_probs : nullptr;
  p.old_log_probs = batch.old_log_probs;
  p.ref_log_probs = batch.ref_log_probs;
  p.sampler_log_probs = batch.sampler_log_probs;
  p.advantages = batch.advantages;
  p.advantages_per_token = batch.advantages_per_token != 0;
  p.cu_seqlens = batch.cu_seqlens;
  p.completion_mask = batch.completion_mask;
  p.span_mask = batch.span_mask;
  return p;
}

int64_t count_tokens(const PolicyTokens& p) {
  if (p.completion_mask == nullptr) return p.tokens;
  int64_t count = 0;
  for (int64_t i = 0; i < p.tokens; ++i) count += p.completion_mask[i];
  return count;
}

double reduction_weight(const rlsd_objective& o, int64_t batch_tokens, int64_t sequences, int64_t length) {
  if (length == 0) return 0.0;
  const double given = o.normalizer;
  switch (o.reduction) {
    case RLSD_SEQUENCE_MEAN:
      return 1.0 / (static_cast<double>(length) * (given > 0.0 ? given : static_cast<double>(sequences)));
    case RLSD_SEQUENCE_SUM:
      return 1.0 / (given > 0.0 ? given : static_cast<double>(sequences));
    case RLSD_TOKEN_SUM:
      return given > 0.0 ? 1.0 / given : 1.0;
    default:
      return 1.0 / (given > 0.0 ? given : static_cast<double>(batch_tokens));
  }
}

namespace {

/* The part of a sequence that needs nothing but masks and advantages. */
SequenceTerms outline(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens, int64_t sequence) {
  int64_t length = 0;
  double advantages = 0.0;
  for (int64_t i = p.cu_seqlens[sequence]; i < p.cu_seqlens[sequence + 1]; ++i) {
    if (is_masked(p, i)) continue;
    ++length;
    advantages += direction(o, advantage_at(p, sequence, i));
  }
  SequenceTerms q{};
  q.omega = o.surrogate == RLSD_ROW_COEFFICIENT ? 1.0 : reduction_weight(o, batch_tokens, p.sequences, length);
  q.negative = advantages < 0.0;
  q.credit_scale = 1.0;
  return q;
}

}  // namespace

SequenceTerms sequence_terms(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens, int64_t sequence) {
  SequenceTerms q = outline(p, o, batch_tokens, sequence);
  if (p.log_probs == nullptr || !needs_whole_sequence(o, p.teacher != nullptr, p.sampler_log_probs != nullptr)) {
    return q;
  }
  double credited = 0.0, usable = 0.0, log_ratios = 0.0, credits = 0.0, advantages = 0.0, log_importance = 0.0;
  for (int64_t i = p.cu_seqlens[sequence]; i < p.cu_seqlens[sequence + 1]; ++i) {
    if (is_masked(p, i)) continue;
    const TokenInput t = token_input(p, sequence, i);
    const bool finite = is_finite_token(t);
    if (!finite && !p.credit_only) continue; /* a bad row: it leaves the means as it leaves the loss */
    const double rho = token_credit(o, t, q.negative).rho;
    credits += rho;
    credited += 1.0;
    if (!finite) continue;
    const double x = t.log_prob - t.old_log_prob;
    usable += 1.0;
    advantages += t.advantage * rho;
    log_ratios += o.surrogate == RLSD_GMPO ? gmpo_log_ratio(o, x, t.advantage) : x;
    if (t.has_sampler) log_importance += t.old_log_prob - t.sampler_log_prob;
  }
  if (o.normalize_sequence && credits > 0.0) q.credit_scale = credited / credits;
  if (usable == 0.0) return q;
  q.mean_log_ratio = log_ratios / usable;
  q.mean_advantage = advantages * q.credit_scale / usable;
  q.log_importance = log_importance;
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
