#ifndef RLSD_CPU_POLICY_LOSS_HEAD_H_
#define RLSD_CPU_POLICY_LOSS_HEAD_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

/* True when a view is hidden states and an LM head. */
bool is_head_level(const rlsd_policy_batch& batch);

rlsd_status policy_loss_head_workspace(rlsd_context* context, const rlsd_policy_batch& batch,
                                       const rlsd_objective& objective, const rlsd_policy_outputs& outputs,
                                       uint64_t* bytes);
rlsd_status policy_loss_head(rlsd_context* context, const rlsd_policy_batch& batch, const rlsd_objective& objective,
                             const rlsd_policy_outputs& outputs);

}  // namespace rlsd::cpu

#endif
