/* KL(policy || reference) of one token, estimated from d = log P_ref - log P (docs/maths.md, "KL").
 *   k1 = -d    k2 = d^2 / 2    k3 = e^d - d - 1    abs = |d| */
#ifndef RLSD_CORE_KL_H_
#define RLSD_CORE_KL_H_

#include "core/surrogate.h"

namespace rlsd {

struct Kl {
  double value;
  double slope; /* d value / d log P */
};

RLSD_HD Kl kl_estimate(const rlsd_objective& o, double log_prob, double ref_log_prob) {
  const double d = ref_log_prob - log_prob;
  switch (o.kl_estimator) {
    case RLSD_K1:
      return {-d, 1.0};
    case RLSD_K2:
      return {0.5 * d * d, -d};
    case RLSD_KL_ABS:
      return {std::fabs(d), -sign(d)};
    default:
      break;
  }
  if (!(o.kl_clamp < INFINITY)) return {std::exp(d) - d - 1.0, 1.0 - std::exp(d)};
  const double bounded = clamp(d, -kMaxLogRatio, kMaxLogRatio);
  const double value = std::exp(bounded) - bounded - 1.0;
  const bool passes = within(d, -kMaxLogRatio, kMaxLogRatio) && value <= o.kl_clamp;
  return {std::fmin(value, o.kl_clamp), passes ? 1.0 - std::exp(bounded) : 0.0};
}

}  // namespace rlsd

#endif
