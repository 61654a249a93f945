#ifndef RLSD_CPU_DISTILL_LOSS_H_
#define RLSD_CPU_DISTILL_LOSS_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

rlsd_status distill_loss_workspace(rlsd_context* context, const rlsd_distill_args* args, uint64_t* bytes);
rlsd_status distill_loss(rlsd_context* context, const rlsd_distill_args* args);

}  // namespace rlsd::cpu

#endif
