/* The (N) arrays of a policy loss, and what a token needs of its sequence: shared by every level and every backend.
 *
 * A level above turns logits or hidden states into log-probs, finds a row's coefficient from these arrays, and leaves
 * the per-token results and the statistics to policy_pass.h. */
#ifndef RLSD_CORE_POLICY_TOKENS_H_
#define RLSD_CORE_POLICY_TOKENS_H_

#include "core/token_loss.h"

namespace rlsd {

struct PolicyTokens {
  int64_t tokens, sequences;
  const float* log_probs;
  const float* teacher;  /* NULL: no teacher */
  const float* contrast; /* NULL: no contrast teacher */
  const float* entropy;  /* NULL: not computed */
  const float* old_log_probs;
  const float* ref_log_probs;
  const float* sampler_log_probs;
  const float* advantages;
  bool advantages_per_token;
  const int32_t* cu_seqlens;
  const uint8_t* completion_mask; /* NULL: all 1 */
  const uint8_t* span_mask;
  bool credit_only;       /* no loss is wanted: scores may be infinite, and no row is bad */
  const uint8_t* skipped; /* NULL, or 1 where a row was not read: it counts as a token with no gradient */
};

/* The arrays of a batch; those of a view are NULL unless it is log-probs. */
inline PolicyTokens policy_tokens(const rlsd_policy_batch& batch) {
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

RLSD_HD bool is_masked(const PolicyTokens& p, int64_t i) {
  return p.completion_mask != nullptr && p.completion_mask[i] == 0;
}

RLSD_HD double advantage_at(const PolicyTokens& p, int64_t sequence, int64_t i) {
  return p.advantages[p.advantages_per_token ? i : sequence];
}

/* A token's log-probs under each view; 0 where a view is absent. */
struct TokenScores {
  float student, teacher, contrast;
};

/* A token's input but for the views' log-probs. */
RLSD_HD TokenInput given_input(const PolicyTokens& p, int64_t sequence, int64_t i) {
  TokenInput t{};
  if (p.old_log_probs != nullptr) t.old_log_prob = p.old_log_probs[i];
  t.advantage = advantage_at(p, sequence, i);
  t.has_ref = p.ref_log_probs != nullptr;
  t.has_sampler = p.sampler_log_probs != nullptr;
  t.has_teacher = p.teacher != nullptr;
  t.has_contrast = p.contrast != nullptr;
  if (t.has_ref) t.ref_log_prob = p.ref_log_probs[i];
  if (t.has_sampler) t.sampler_log_prob = p.sampler_log_probs[i];
  t.in_span = p.span_mask == nullptr || p.span_mask[i] != 0;
  return t;
}

RLSD_HD void set_scores(TokenInput* t, const PolicyTokens& p, const TokenScores& scores) {
  t->log_prob = scores.student;
  if (p.old_log_probs == nullptr) t->old_log_prob = scores.student;
  if (t->has_teacher) t->teacher = scores.teacher;
  if (t->has_contrast) t->contrast = scores.contrast;
}

RLSD_HD TokenInput token_input(const PolicyTokens& p, const TokenScores& scores, int64_t sequence, int64_t i) {
  TokenInput t = given_input(p, sequence, i);
  set_scores(&t, p, scores);
  return t;
}

RLSD_HD TokenInput token_input(const PolicyTokens& p, int64_t sequence, int64_t i) {
  const TokenScores scores = {p.log_probs[i], p.teacher != nullptr ? p.teacher[i] : 0.0f,
                              p.contrast != nullptr ? p.contrast[i] : 0.0f};
  return token_input(p, scores, sequence, i);
}

/* True when a token's gradient is 0 whatever its logits are. */
RLSD_HD bool known_zero(const PolicyTokens& p, const rlsd_objective& o, int64_t sequence, int64_t i) {
  if (advantage_at(p, sequence, i) != 0.0) return false;
  if (o.surrogate == RLSD_ROW_COEFFICIENT) return true;
  return !(o.kl_coef != 0.0 && p.ref_log_probs != nullptr) && o.entropy_coef == 0.0;
}

/* omega of each token of a sequence with `length` unmasked tokens. */
RLSD_HD double reduction_weight(const rlsd_objective& o, int64_t batch_tokens, int64_t sequences, int64_t length) {
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

/* Sums over a sequence's tokens that need nothing but masks and advantages. */
struct OutlineSums {
  double length, advantages;
};

RLSD_HD void add_outline(OutlineSums* s, const PolicyTokens& p, const rlsd_objective& o, int64_t sequence, int64_t i) {
  if (is_masked(p, i)) return;
  s->length += 1.0;
  s->advantages += direction(o, advantage_at(p, sequence, i));
}

RLSD_HD SequenceTerms outline_terms(const OutlineSums& s, const PolicyTokens& p, const rlsd_objective& o,
                                    int64_t batch_tokens) {
  SequenceTerms q{};
  const auto length = static_cast<int64_t>(s.length);
  q.omega = o.surrogate == RLSD_ROW_COEFFICIENT ? 1.0 : reduction_weight(o, batch_tokens, p.sequences, length);
  q.negative = s.advantages < 0.0;
  q.credit_scale = 1.0;
  return q;
}

/* True when the terms below hold means over the sequence's log-probs. */
RLSD_HD bool has_sequence_means(const PolicyTokens& p, const rlsd_objective& o) {
  return p.log_probs != nullptr && needs_whole_sequence(o, p.teacher != nullptr, p.sampler_log_probs != nullptr);
}

/* Sums over a sequence's tokens for its means. */
struct MeanSums {
  double credited, usable, log_ratios, credits, advantages, log_importance;
};

RLSD_HD void add_mean(MeanSums* s, const PolicyTokens& p, const rlsd_objective& o, const SequenceTerms& q,
                      int64_t sequence, int64_t i) {
  if (is_masked(p, i)) return;
  const TokenInput t = token_input(p, sequence, i);
  const bool finite = is_finite_token(t);
  if (!finite && !p.credit_only) return; /* a bad row: it leaves the means as it leaves the loss */
  const double rho = token_credit(o, t, q.negative).rho;
  s->credits += rho;
  s->credited += 1.0;
  if (!finite) return;
  const double x = t.log_prob - t.old_log_prob;
  s->usable += 1.0;
  s->advantages += t.advantage * rho;
  s->log_ratios += o.surrogate == RLSD_GMPO ? gmpo_log_ratio(o, x, t.advantage) : x;
  if (t.has_sampler) s->log_importance += t.old_log_prob - t.sampler_log_prob;
}

RLSD_HD void set_means(SequenceTerms* q, const MeanSums& s, const rlsd_objective& o) {
  if (o.normalize_sequence && s.credits > 0.0) q->credit_scale = s.credited / s.credits;
  if (s.usable == 0.0) return;
  q->mean_log_ratio = s.log_ratios / s.usable;
  q->mean_advantage = s.advantages * q->credit_scale / s.usable;
  q->log_importance = s.log_importance;
}

}  // namespace rlsd

#endif
