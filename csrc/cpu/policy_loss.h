#ifndef RLSD_CPU_POLICY_LOSS_H_
#define RLSD_CPU_POLICY_LOSS_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

rlsd_status policy_loss_workspace(rlsd_context* context, const rlsd_policy_batch* batch,
                                  const rlsd_objective* objective, const rlsd_policy_outputs* outputs,
                                  uint64_t* bytes);
rlsd_status policy_loss(rlsd_context* context, const rlsd_policy_batch* batch, const rlsd_objective* objective,
                        const rlsd_policy_outputs* outputs);

}  // namespace rlsd::cpu

#endif
