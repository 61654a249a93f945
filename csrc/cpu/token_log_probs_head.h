#ifndef RLSD_CPU_TOKEN_LOG_PROBS_HEAD_H_
#define RLSD_CPU_TOKEN_LOG_PROBS_HEAD_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

rlsd_status token_log_probs_head_workspace(rlsd_context* context, const rlsd_token_log_probs_args& args,
                                           uint64_t* bytes);

/* Writes log-probs and entropies; what is not finite is left to the caller to report. */
rlsd_status token_log_probs_head(rlsd_context* context, const rlsd_token_log_probs_args& args);

}  // namespace rlsd::cpu

#endif
