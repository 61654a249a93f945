/* RLSD credit of one token (docs/maths.md, "Credit").
 *
 *   delta = log P_T - log P_S           (stop-gradient)
 *   w     = exp(sign(A) delta)
 *   c     = clip(w, 1 - eps, 1 + eps)   symmetric, the official code; or
 *           m with m A = min(w A, clip(w) A), pessimistic, Eq. 16 as printed
 *   rho   = (1 - lambda) + lambda c
 *
 * Everything is double: N is small beside N V, and the clip decides branches. */
#ifndef RLSD_CORE_EVIDENCE_H_
#define RLSD_CORE_EVIDENCE_H_

#include <cmath>

#include "core/host_device.h"
#include "rlsd/rlsd.h"

namespace rlsd {

/* The largest |exponent| that reaches exp() where no clip bounds it. */
constexpr double kMaxLogRatio = 20.0;

struct Evidence {
  double delta;  /* 0 when unusable */
  double weight; /* w, before the clip */
  double clipped; /* c; exactly 1 when A = 0 or the teacher is unusable */
  bool usable;   /* false: a NaN, or both log-probs -inf */
};

RLSD_HD double clamp(double x, double low, double high) { return x < low ? low : (x > high ? high : x); }

RLSD_HD double sign(double x) { return x > 0.0 ? 1.0 : (x < 0.0 ? -1.0 : 0.0); }

/* clip(exp(e), 1 - eps, 1 + eps), exactly the bound when it binds, also where exp overflows. */
RLSD_HD double clipped_exp(double e, double eps) {
  if (e >= std::log1p(eps)) return 1.0 + eps;
  if (eps < 1.0 && e <= std::log1p(-eps)) return 1.0 - eps;
  return clamp(std::exp(e), 1.0 - eps, 1.0 + eps);
}

/* `against` is what the teacher is compared with: the student, or a contrast teacher. */
RLSD_HD Evidence evidence(const rlsd_objective& o, double teacher, double against, double advantage) {
  const double delta = teacher - against;
  if (std::isnan(delta) || teacher == INFINITY) return {0.0, 1.0, 1.0, false};
  const double s = sign(advantage);
  if (s == 0.0) return {delta, 1.0, 1.0, true};
  if (!o.pessimistic) {
    const double e = s * delta;
    return {delta, std::exp(e), clipped_exp(e, o.evidence_clip), true};
  }
  const double e = clamp(s * delta, -kMaxLogRatio, kMaxLogRatio);
  const double w = std::exp(e), c = clipped_exp(e, o.evidence_clip);
  return {delta, w, s > 0.0 ? std::fmin(w, c) : std::fmax(w, c), true};
}

/* rho, before normalisation over the sequence. `credited`: inside the span, and allowed by negative_only. */
RLSD_HD double credit(const rlsd_objective& o, double clipped, bool credited) {
  return credited ? (1.0 - o.credit_mix) + o.credit_mix * clipped : 1.0;
}

}  // namespace rlsd

#endif
