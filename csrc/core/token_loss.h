/* The loss of one token: credit, surrogate, importance correction, KL (docs/maths.md).
 *
 *   A^ = A rho / mean(rho)      L = surrogate(x, A^) * iw + klCoef KL      gradient = dL / dlogP
 *
 * A token's share of the batch loss is omega L; omega comes from the reduction. */
#ifndef RLSD_CORE_TOKEN_LOSS_H_
#define RLSD_CORE_TOKEN_LOSS_H_

#include "core/evidence.h"
#include "core/kl.h"
#include "core/surrogate.h"

namespace rlsd {

struct TokenInput {
  double log_prob;
  double old_log_prob; /* = log_prob when on-policy */
  double ref_log_prob, sampler_log_prob, teacher, contrast;
  double advantage;
  bool has_ref, has_sampler, has_teacher, has_contrast, in_span;
};

/* What a token needs of its sequence. Means are over unmasked tokens, those of ratios over
 * finite ones. */
struct SequenceTerms {
  double omega;             /* the reduction's weight of each token */
  bool negative;            /* the sequence's advantages sum to less than 0 */
  double mean_log_ratio;    /* of x; for gmpo of gmpo_log_ratio */
  double mean_advantage;    /* of A^ */
  double credit_scale;      /* 1 / mean(rho) under normalize: sequence, else 1 */
  double log_importance;    /* sum of log P_old - log P_sampler */
};

struct TokenCredit {
  Evidence evidence;
  double rho;       /* before the sequence's normalisation */
  double direction; /* the advantage whose sign w uses */
};

struct TokenLoss {
  double advantage; /* A^ */
  double policy_loss, kl;
  double gradient; /* dL / dlogP */
  double ratio;
  bool clipped_high, clipped_low, dual_clipped;
};

RLSD_HD bool uses_sequence_ratio(int32_t surrogate) {
  return surrogate == RLSD_GSPO || surrogate == RLSD_GSPO_TOKEN || surrogate == RLSD_LUSPO || surrogate == RLSD_GMPO;
}

/* True when a token's gradient depends on other tokens' log-probs. */
RLSD_HD bool needs_whole_sequence(const rlsd_objective& o, bool has_teacher, bool has_sampler) {
  return uses_sequence_ratio(o.surrogate) || (o.normalize_sequence && has_teacher) ||
         (has_sampler && (o.importance == RLSD_SEQUENCE_TRUNCATE || o.importance == RLSD_SEQUENCE_MASK));
}

/* row-coefficient is given dL/dlogP, which points against the advantage. */
RLSD_HD double direction(const rlsd_objective& o, double advantage) {
  return o.surrogate == RLSD_ROW_COEFFICIENT ? -advantage : advantage;
}

/* True when every score of an unmasked token can be used. */
RLSD_HD bool is_finite_token(const TokenInput& t) {
  return std::isfinite(t.log_prob) && std::isfinite(t.old_log_prob) && (!t.has_ref || std::isfinite(t.ref_log_prob)) &&
         (!t.has_sampler || std::isfinite(t.sampler_log_prob));
}

RLSD_HD TokenCredit token_credit(const rlsd_objective& o, const TokenInput& t, bool sequence_negative) {
  const double a = direction(o, t.advantage);
  if (!t.has_teacher) return {{0.0, 1.0, 1.0, true}, 1.0, a};
  const double student = o.student_source_old ? t.old_log_prob : t.log_prob;
  /* Made in its place: a copy of just-written halves would wait for the stores. */
  TokenCredit c{evidence(o, t.teacher, t.has_contrast ? t.contrast : student, a), 1.0, a};
  const bool credited = c.evidence.usable && a != 0.0 && t.in_span && (!o.negative_only || sequence_negative);
  c.rho = credit(o, c.evidence.clipped, credited);
  return c;
}

RLSD_HD double importance_weight(const rlsd_objective& o, const TokenInput& t, const SequenceTerms& q) {
  if (!t.has_sampler || o.importance == RLSD_IMPORTANCE_NONE) return 1.0;
  const bool by_token = o.importance == RLSD_TOKEN_TRUNCATE || o.importance == RLSD_TOKEN_MASK;
  const double ratio = std::exp(by_token ? t.old_log_prob - t.sampler_log_prob : q.log_importance);
  const bool truncate = o.importance == RLSD_TOKEN_TRUNCATE || o.importance == RLSD_SEQUENCE_TRUNCATE;
  if (truncate) return clamp(ratio, o.importance_min, o.importance_max);
  return within(ratio, o.importance_min, o.importance_max) ? ratio : 0.0;
}

/* `x` is the token's own log-ratio; `r` the importance ratio of the token or, for a sequence's surrogate, of it. */
RLSD_HD Surrogate token_surrogate(const rlsd_objective& o, const TokenInput& t, const SequenceTerms& q, double x,
                                  double r, double a) {
  switch (o.surrogate) {
    case RLSD_GSPO:
      return gspo(o, q.mean_log_ratio, r, a);
    case RLSD_GSPO_TOKEN:
    case RLSD_LUSPO:
      return ppo_clip(o, q.mean_log_ratio, r, a);
    case RLSD_CISPO:
      return cispo(o, x, r, a, t.log_prob);
    case RLSD_SAPO:
      return sapo(o, x, r, a);
    case RLSD_GMPO:
      return gmpo(o, x, a, q.mean_log_ratio, q.mean_advantage);
    case RLSD_ROW_COEFFICIENT:
      return {a * t.log_prob, a, false};
    default:
      return ppo_clip(o, x, r, a);
  }
}

/* gmpo clips the token's log-ratio, the others the log of the ratio they use. */
RLSD_HD void mark_clips(const rlsd_objective& o, double x, double ratio_x, double a, TokenLoss* l) {
  const bool gmpo_clip = o.surrogate == RLSD_GMPO;
  const double log_ratio = gmpo_clip ? x : ratio_x;
  l->clipped_high = a > 0.0 && log_ratio > (gmpo_clip ? o.clip_high : o.log_clip_high);
  l->clipped_low = a < 0.0 && log_ratio < (gmpo_clip ? -o.clip_low : o.log_clip_low);
}

RLSD_HD TokenLoss token_loss(const rlsd_objective& o, const TokenInput& t, const SequenceTerms& q, double rho) {
  const double x = t.log_prob - t.old_log_prob;
  const double a = t.advantage * (rho * q.credit_scale);
  const double ratio_x = uses_sequence_ratio(o.surrogate) ? q.mean_log_ratio : x;
  TokenLoss l{};
  l.ratio = importance_ratio(o, ratio_x);
  const Surrogate s = token_surrogate(o, t, q, x, l.ratio, a);
  l.advantage = a;
  l.dual_clipped = s.dual_clipped;
  mark_clips(o, x, ratio_x, a, &l);
  if (o.surrogate == RLSD_ROW_COEFFICIENT) {
    l.policy_loss = s.loss;
    l.gradient = s.slope;
    return l;
  }
  const double iw = importance_weight(o, t, q);
  l.policy_loss = s.loss * iw;
  l.gradient = s.slope * iw;
  if (t.has_ref) {
    const Kl kl = kl_estimate(o, t.log_prob, t.ref_log_prob);
    const double factor = o.kl_importance_correction ? l.ratio : 1.0;
    l.kl = kl.value * factor;
    if (o.kl_coef != 0.0) {
      const bool moves = o.surrogate == RLSD_GMPO ? gmpo_passes(o, x, a) : ratio_moves(o, ratio_x);
      l.gradient += o.kl_coef * (kl.slope * factor + (o.kl_importance_correction && moves ? l.kl : 0.0));
    }
  }
  return l;
}

}  // namespace rlsd

#endif
