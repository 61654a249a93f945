#ifndef RLSD_CPU_POLICY_LOSS_LOGITS_H_
#define RLSD_CPU_POLICY_LOSS_LOGITS_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

/* True when at least one view is logits and none is hidden states. */
bool is_logits_level(const rlsd_policy_batch& batch);

rlsd_status policy_loss_logits_workspace(rlsd_context* context, const rlsd_policy_batch& batch,
                                         const rlsd_objective& objective, const rlsd_policy_outputs& outputs,
                                         uint64_t* bytes);
rlsd_status policy_loss_logits(rlsd_context* context, const rlsd_policy_batch& batch, const rlsd_objective& objective,
                               const rlsd_policy_outputs& outputs);

}  // namespace rlsd::cpu

#endif
