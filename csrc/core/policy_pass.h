/* What a policy loss writes for each token, and its statistics (docs/maths.md, "Reduction").
 *
 *   loss = sum_t omega_t (L_t + klCoef KL_t - entropyCoef H_t)      gradient_t = loss_scale omega_t dL_t/dlogP_t
 *
 * The caller decides who visits which token and in which order sums are added. */
#ifndef RLSD_CORE_POLICY_PASS_H_
#define RLSD_CORE_POLICY_PASS_H_

#include <stddef.h>

#include "core/policy_tokens.h"

namespace rlsd {

/* Sums over tokens: doubles first, so that they can be added as an array. `*_tokens` count what a mean divides by. */
struct PolicySums {
  double loss, policy_loss, kl, entropy, ratio, advantage, advantage_abs;
  double clipped_high, clipped_low, dual_clipped;
  double delta, delta_positive, delta_negative, weight, clipped_weight, evidence_low, evidence_high;
  double usable_tokens, evidence_tokens, positive_tokens, negative_tokens;
  double non_finite, nan_teacher, skipped;
  int64_t first_non_finite; /* -1: none */
};

constexpr int kPolicySums = 24;
static_assert(offsetof(PolicySums, first_non_finite) == kPolicySums * sizeof(double), "doubles first");

RLSD_HD PolicySums no_policy_sums() {
  PolicySums s{};
  s.first_non_finite = -1;
  return s;
}

/* `part` speaks of later tokens than `total`. */
RLSD_HD void add_policy_sums(PolicySums* total, const PolicySums& part) {
  auto* to = reinterpret_cast<double*>(total);
  const auto* from = reinterpret_cast<const double*>(&part);
  for (int i = 0; i < kPolicySums; ++i) to[i] += from[i];
  if (total->first_non_finite < 0) total->first_non_finite = part.first_non_finite;
}

RLSD_HD void write_token(const rlsd_policy_outputs& out, int64_t i, float log_prob, float teacher, double advantage,
                         double weight, double gradient) {
  if (out.log_probs != nullptr) out.log_probs[i] = log_prob;
  if (out.teacher_log_probs != nullptr) out.teacher_log_probs[i] = teacher;
  out.token_advantages[i] = static_cast<float>(advantage);
  out.evidence_weights[i] = static_cast<float>(weight);
  if (out.gradient_log_probs != nullptr) out.gradient_log_probs[i] = static_cast<float>(gradient);
}

RLSD_HD void add_evidence(PolicySums* s, const rlsd_objective& o, const TokenCredit& credit) {
  const Evidence& e = credit.evidence;
  if (!e.usable) {
    s->nan_teacher += 1.0;
    return;
  }
  s->evidence_tokens += 1.0;
  s->delta += e.delta;
  s->weight += e.weight;
  s->clipped_weight += e.clipped;
  s->evidence_low += e.weight < 1.0 - o.evidence_clip;
  s->evidence_high += e.weight > 1.0 + o.evidence_clip;
  if (credit.direction > 0.0) {
    s->delta_positive += e.delta;
    s->positive_tokens += 1.0;
  } else if (credit.direction < 0.0) {
    s->delta_negative += e.delta;
    s->negative_tokens += 1.0;
  }
}

RLSD_HD void add_advantage(PolicySums* s, double advantage) {
  s->usable_tokens += 1.0;
  s->advantage += advantage;
  s->advantage_abs += std::fabs(advantage);
}

RLSD_HD void add_loss(PolicySums* s, const TokenLoss& l, double omega, double kl_coef, double entropy,
                      double entropy_coef) {
  s->policy_loss += omega * l.policy_loss;
  s->loss += omega * (l.policy_loss - entropy_coef * entropy);
  if (kl_coef != 0.0) s->loss += omega * kl_coef * l.kl; /* an unclamped KL may be infinite */
  s->kl += l.kl;
  s->entropy += entropy;
  s->ratio += l.ratio;
  s->clipped_high += l.clipped_high;
  s->clipped_low += l.clipped_low;
  s->dual_clipped += l.dual_clipped;
}

RLSD_HD double entropy_coefficient(const rlsd_objective& o) {
  return o.surrogate == RLSD_ROW_COEFFICIENT ? 0.0 : o.entropy_coef;
}

/* One unmasked token that was read. */
RLSD_HD void read_token(PolicySums* s, const PolicyTokens& p, const rlsd_objective& o, const rlsd_policy_outputs& out,
                        const SequenceTerms& q, int64_t sequence, int64_t i) {
  const TokenInput t = token_input(p, sequence, i);
  const float teacher = p.teacher != nullptr ? p.teacher[i] : 0.0f;
  if (!p.credit_only && !is_finite_token(t)) { /* it leaves the loss; the caller sees the scores that came */
    s->non_finite += 1.0;
    if (s->first_non_finite < 0) s->first_non_finite = i;
    return write_token(out, i, p.log_probs[i], teacher, 0.0, 1.0, 0.0);
  }
  const TokenCredit credit = token_credit(o, t, q.negative);
  if (p.credit_only) {
    const double advantage = t.advantage * (credit.rho * q.credit_scale);
    add_evidence(s, o, credit);
    add_advantage(s, advantage);
    return write_token(out, i, p.log_probs[i], teacher, advantage, credit.evidence.clipped, 0.0);
  }
  const TokenLoss l = token_loss(o, t, q, credit.rho);
  if (t.has_teacher) add_evidence(s, o, credit);
  add_advantage(s, l.advantage);
  add_loss(s, l, q.omega, o.surrogate == RLSD_ROW_COEFFICIENT ? 0.0 : o.kl_coef,
           p.entropy != nullptr ? p.entropy[i] : 0.0, entropy_coefficient(o));
  write_token(out, i, p.log_probs[i], teacher, l.advantage, credit.evidence.clipped,
              out.loss_scale * q.omega * l.gradient);
}

/* Any token of the batch. */
RLSD_HD void visit_token(PolicySums* s, const PolicyTokens& p, const rlsd_objective& o, const rlsd_policy_outputs& out,
                         const SequenceTerms& q, int64_t sequence, int64_t i) {
  if (is_masked(p, i)) return write_token(out, i, 0.0f, 0.0f, 0.0, 0.0, 0.0);
  if (p.skipped == nullptr || p.skipped[i] == 0) return read_token(s, p, o, out, q, sequence, i);
  s->skipped += 1.0; /* its advantage stands, its gradient is 0 */
  write_token(out, i, 0.0f, 0.0f, advantage_at(p, sequence, i), 1.0, 0.0);
}

RLSD_HD double mean_of(double sum, double count) { return count > 0.0 ? sum / count : NAN; }

RLSD_HD void write_policy_stats(const PolicyTokens& p, const rlsd_objective& o, const PolicySums& s,
                                int64_t batch_tokens, double* stats) {
  for (int i = 0; i < RLSD_STAT_COUNT; ++i) stats[i] = NAN;
  stats[RLSD_STAT_TOKENS] = static_cast<double>(batch_tokens);
  stats[RLSD_STAT_SEQUENCES] = static_cast<double>(p.sequences);
  if (!p.credit_only) {
    stats[RLSD_STAT_LOSS] = s.loss;
    stats[RLSD_STAT_POLICY_LOSS] = s.policy_loss;
  }
  stats[RLSD_STAT_NON_FINITE_ROWS] = s.non_finite;
  stats[RLSD_STAT_NAN_TEACHER_ROWS] = s.nan_teacher;
  stats[RLSD_STAT_SKIPPED_ROWS] = s.skipped;
  const bool has_ratio = !p.credit_only && o.surrogate != RLSD_ROW_COEFFICIENT;
  if (has_ratio && p.ref_log_probs != nullptr) stats[RLSD_STAT_KL_MEAN] = mean_of(s.kl, s.usable_tokens);
  if (p.entropy != nullptr) stats[RLSD_STAT_ENTROPY_MEAN] = mean_of(s.entropy, s.usable_tokens);
  stats[RLSD_STAT_ADVANTAGE_MEAN] = mean_of(s.advantage, s.usable_tokens);
  stats[RLSD_STAT_ADVANTAGE_ABS_MEAN] = mean_of(s.advantage_abs, s.usable_tokens);
  if (has_ratio) stats[RLSD_STAT_RATIO_MEAN] = mean_of(s.ratio, s.usable_tokens);
  if (has_ratio && o.surrogate != RLSD_SAPO) {
    stats[RLSD_STAT_RATIO_CLIPPED_HIGH] = mean_of(s.clipped_high, s.usable_tokens);
    stats[RLSD_STAT_RATIO_CLIPPED_LOW] = mean_of(s.clipped_low, s.usable_tokens);
    stats[RLSD_STAT_DUAL_CLIPPED] = mean_of(s.dual_clipped, s.usable_tokens);
  }
  if (p.teacher == nullptr) return;
  stats[RLSD_STAT_DELTA_MEAN] = mean_of(s.delta, s.evidence_tokens);
  stats[RLSD_STAT_DELTA_MEAN_POSITIVE] = mean_of(s.delta_positive, s.positive_tokens);
  stats[RLSD_STAT_DELTA_MEAN_NEGATIVE] = mean_of(s.delta_negative, s.negative_tokens);
  stats[RLSD_STAT_EVIDENCE_WEIGHT_MEAN] = mean_of(s.weight, s.evidence_tokens);
  stats[RLSD_STAT_CLIPPED_WEIGHT_MEAN] = mean_of(s.clipped_weight, s.evidence_tokens);
  stats[RLSD_STAT_EVIDENCE_CLIPPED_LOW] = mean_of(s.evidence_low, s.evidence_tokens);
  stats[RLSD_STAT_EVIDENCE_CLIPPED_HIGH] = mean_of(s.evidence_high, s.evidence_tokens);
}

/* A row's weight in the loss: dL/dlogP, and what multiplies -H. */
struct RowCoefficients {
  double log_prob, entropy;
};

/* 0 for a bad row. */
RLSD_HD RowCoefficients row_coefficients(const rlsd_objective& o, double loss_scale, const SequenceTerms& q,
                                         const TokenInput& t) {
  if (!is_finite_token(t)) return {0.0, 0.0};
  const TokenLoss l = token_loss(o, t, q, token_credit(o, t, q.negative).rho);
  const double weight = loss_scale * q.omega;
  return {weight * l.gradient, weight * entropy_coefficient(o)};
}

}  // namespace rlsd

#endif
