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
  bool usable;   /* false: a NaN or +inf, or both log-probs -inf */
};

RLSD_HD double clamp(double x, double low, double high) { return x < low ? low : (x > high ? high : x); }

RLSD_HD double sign(double x) { return x > 0.0 ? 1.0 : (x < 0.0 ? -1.0 : 0.0); }

/* clip(w, 1 - eps, 1 + eps) of w = exp(e): exactly the bound when it binds, also where exp overflows. */
RLSD_HD double clip_weight(const rlsd_objective& o, double e, double w) {
  if (e >= o.log_evidence_high) return 1.0 + o.evidence_clip;
  if (e <= o.log_evidence_low && o.evidence_clip < 1.0) return 1.0 - o.evidence_clip;
  return clamp(w, 1.0 - o.evidence_clip, 1.0 + o.evidence_clip);
}

/* `against` is what the teacher is compared with: the student, or a contrast teacher. */
RLSD_HD Evidence evidence(const rlsd_objective& o, double teacher, double against, double advantage) {
  const double delta = teacher - against;
  if (std::isnan(delta) || teacher == INFINITY || against == INFINITY) return {0.0, 1.0, 1.0, false};
  const double s = sign(advantage);
  if (s == 0.0) return {delta, 1.0, 1.0, true};
  const double exponent = s * delta;
  const double e = o.pessimistic ? clamp(exponent, -kMaxLogRatio, kMaxLogRatio) : exponent;
  const double w = std::exp(e), c = clip_weight(o, e, w);
  if (!o.pessimistic) return {delta, w, c, true};
  return {delta, w, s > 0.0 ? std::fmin(w, c) : std::fmax(w, c), true};
}

/* rho, before normalisation over the sequence. `credited`: inside the span, and allowed by negative_only. */
RLSD_HD double credit(const rlsd_objective& o, double clipped, bool credited) {
  return credited ? (1.0 - o.credit_mix) + o.credit_mix * clipped : 1.0;
}

}  // namespace rlsd

#endif
