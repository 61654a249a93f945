/* Policy surrogates of one token: value L and slope dL/dlogP (docs/maths.md, "Surrogates").
 *
 * `x` is the log of the importance ratio r: log P - log P_old of the token, or its mean over the sequence; the slope
 * of a sequence's ratio goes straight through to each of its tokens. Slopes are those of autograd on the published
 * code: a clamp passes the gradient at its bounds, max and min share it equally on a tie. */
#ifndef RLSD_CORE_SURROGATE_H_
#define RLSD_CORE_SURROGATE_H_

#include "core/evidence.h"

namespace rlsd {

struct Surrogate {
  double loss;
  double slope;
  bool dual_clipped;
};

RLSD_HD bool within(double x, double low, double high) { return x >= low && x <= high; }

/* min(a, b) and its slope */
RLSD_HD Surrogate smaller(double a, double slope_a, double b, double slope_b) {
  if (a < b) return {a, slope_a, false};
  if (b < a) return {b, slope_b, false};
  return {a, 0.5 * (slope_a + slope_b), false};
}

RLSD_HD Surrogate larger(double a, double slope_a, double b, double slope_b) {
  const Surrogate s = smaller(-a, -slope_a, -b, -slope_b);
  return {-s.loss, -s.slope, false};
}

RLSD_HD bool within_exponent(double x) { return within(x, -kMaxLogRatio, kMaxLogRatio); }

/* Where log-ratios are held before exp: at +-20; by verl's gspo from above alone, at 10. */
RLSD_HD double lowest_log_ratio(const rlsd_objective& o) { return o.surrogate == RLSD_GSPO ? -INFINITY : -kMaxLogRatio; }
RLSD_HD double highest_log_ratio(const rlsd_objective& o) { return o.surrogate == RLSD_GSPO ? 10.0 : kMaxLogRatio; }

/* r from its log x: the token's, or its sequence's mean. */
RLSD_HD double importance_ratio(const rlsd_objective& o, double x) {
  return std::exp(clamp(x, lowest_log_ratio(o), highest_log_ratio(o)));
}

/* Whether r moves with x. */
RLSD_HD bool ratio_moves(const rlsd_objective& o, double x) {
  return within(x, lowest_log_ratio(o), highest_log_ratio(o));
}

/* exp(clamp(x, log(1 - clip_low), log(1 + clip_high))) where r = importance_ratio(o, x) */
RLSD_HD double clipped_ratio(const rlsd_objective& o, double x, double r) {
  if (x >= o.log_clip_high) return 1.0 + o.clip_high;
  if (x <= o.log_clip_low) return 1.0 - o.clip_low;
  return within_exponent(x) ? r : std::exp(x);
}

/* max(-r A, -clip(r) A); for A < 0 at most -dual A. The unclipped branch's r is bounded by ratio_bound.
 * ppo-clip over the token's x; gspo-token and luspo over the sequence's. */
RLSD_HD Surrogate ppo_clip(const rlsd_objective& o, double x, double r, double a) {
  const double r_clipped = clipped_ratio(o, x, r);
  const bool passes = within_exponent(x) && r <= o.ratio_bound;
  const double r_bounded = std::fmin(r, o.ratio_bound);
  const bool inside = within(x, o.log_clip_low, o.log_clip_high);
  Surrogate s = larger(-a * r_bounded, passes ? -a * r : 0.0, -a * r_clipped, inside ? -a * r_clipped : 0.0);
  if (a < 0.0 && o.dual_clip < INFINITY) {
    const double ceiling = -a * o.dual_clip;
    const bool clipped = s.loss > ceiling;
    s = smaller(s.loss, s.slope, ceiling, 0.0);
    s.dual_clipped = clipped;
  }
  return s;
}

/* verl's gspo: the sequence's ratio, clipped as a ratio, no dual clip. */
RLSD_HD Surrogate gspo(const rlsd_objective& o, double x, double r, double a) {
  const double low = 1.0 - o.clip_low, high = 1.0 + o.clip_high;
  const double slope = ratio_moves(o, x) ? -a * r : 0.0;
  return larger(-a * r, slope, -a * clamp(r, low, high), within(r, low, high) ? slope : 0.0);
}

/* -A sg(clip(r)) log P */
RLSD_HD Surrogate cispo(const rlsd_objective& o, double x, double r, double a, double log_prob) {
  const double weight = clipped_ratio(o, x, r);
  return {-a * weight * log_prob, -a * weight, false};
}

/* -A (4 / tau) sigmoid(tau (r - 1)) */
RLSD_HD Surrogate sapo(const rlsd_objective& o, double x, double r, double a) {
  const double tau = a > 0.0 ? o.sapo_temperature_pos : o.sapo_temperature_neg;
  const double gate = 1.0 / (1.0 + std::exp(-tau * (r - 1.0)));
  const bool passes = within_exponent(x);
  return {-a * 4.0 / tau * gate, passes ? -a * 4.0 * gate * (1.0 - gate) * r : 0.0, false};
}

/* The one-sided clamp of gmpo: log-ratios above clip_high (A > 0) or below -clip_low (A < 0) are cut. */
RLSD_HD double gmpo_log_ratio(const rlsd_objective& o, double x, double a) {
  const double clamped = clamp(x, -kMaxLogRatio, kMaxLogRatio);
  if (a > 0.0) return std::fmin(clamped, clamp(clamped, -o.clip_low, o.clip_high));
  if (a < 0.0) return std::fmax(clamped, clamp(clamped, -o.clip_low, o.clip_high));
  return 0.0;
}

/* Whether gmpo's ratio moves with the token's own log-ratio x: a cut token's is a constant. */
RLSD_HD bool gmpo_passes(const rlsd_objective& o, double x, double a) {
  const bool cut = (a > 0.0 && x > o.clip_high) || (a < 0.0 && x < -o.clip_low);
  return a != 0.0 && !cut && within_exponent(x);
}

/* -mean(A) exp(mean of gmpo_log_ratio); `x` and `a` are the token's own, the means its sequence's. */
RLSD_HD Surrogate gmpo(const rlsd_objective& o, double x, double a, double mean_log_ratio, double mean_advantage) {
  const double value = -mean_advantage * std::exp(mean_log_ratio);
  return {value, gmpo_passes(o, x, a) ? value : 0.0, false};
}

}  // namespace rlsd

#endif
