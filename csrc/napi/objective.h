/* An objective as it crosses: one Float64Array, written by lib/objectives/encode.ts in this order. */
#ifndef RLSD_NAPI_OBJECTIVE_H_
#define RLSD_NAPI_OBJECTIVE_H_

#include <cstring>

#include "rlsd/rlsd.h"

namespace rlsd::addon {

constexpr size_t kObjectiveFields = 31;

inline rlsd_objective decode_objective(const double* f) {
  rlsd_objective o;
  std::memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  o.surrogate = static_cast<int32_t>(f[0]);
  o.reduction = static_cast<int32_t>(f[1]);
  o.importance = static_cast<int32_t>(f[2]);
  o.kl_estimator = static_cast<int32_t>(f[3]);
  o.kl_importance_correction = static_cast<int32_t>(f[4]);
  o.negative_only = static_cast<int32_t>(f[5]);
  o.pessimistic = static_cast<int32_t>(f[6]);
  o.normalize_sequence = static_cast<int32_t>(f[7]);
  o.student_source_old = static_cast<int32_t>(f[8]);
  o.non_finite_skip = static_cast<int32_t>(f[9]);
  o.logit_rounding_bf16 = static_cast<int32_t>(f[10]);
  o.clip_low = f[11];
  o.clip_high = f[12];
  o.dual_clip = f[13];
  o.ratio_bound = f[14];
  o.normalizer = f[15];
  o.kl_coef = f[16];
  o.kl_clamp = f[17];
  o.temperature = f[18];
  o.entropy_coef = f[19];
  o.logit_softcap = f[20];
  o.credit_mix = f[21];
  o.evidence_clip = f[22];
  o.sapo_temperature_pos = f[23];
  o.sapo_temperature_neg = f[24];
  o.importance_min = f[25];
  o.importance_max = f[26];
  o.log_clip_low = f[27];
  o.log_clip_high = f[28];
  o.log_evidence_low = f[29];
  o.log_evidence_high = f[30];
  return o;
}

}  // namespace rlsd::addon

#endif
