#ifndef RLSD_CPU_TOKEN_LOG_PROBS_H_
#define RLSD_CPU_TOKEN_LOG_PROBS_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

rlsd_status token_log_probs_workspace(rlsd_context* context, const rlsd_token_log_probs_args* args, uint64_t* bytes);
rlsd_status token_log_probs(rlsd_context* context, const rlsd_token_log_probs_args* args);

}  // namespace rlsd::cpu

#endif
