/* The (N) arrays of a policy loss on the CPU: their check, their sequences, their pass. */
#ifndef RLSD_CPU_POLICY_TOKENS_H_
#define RLSD_CPU_POLICY_TOKENS_H_

#include "core/policy_tokens.h"

namespace rlsd::cpu {

/* Unmasked tokens of the batch; the divisor of token-mean. */
int64_t count_tokens(const PolicyTokens& p);

/* Terms that need no log-prob (omega, negative); with log-probs present also the sequence's means. */
SequenceTerms sequence_terms(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens, int64_t sequence);

/* Checks cu_seqlens, masks and advantages (where there are any); on failure writes context->error and touches nothing else. */
rlsd_status check_policy_tokens(rlsd_context* context, const PolicyTokens& p);

/* Per-token results, statistics and gradient to log-probs. RLSD_NON_FINITE when bad rows were left out. */
rlsd_status policy_loss_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                               const rlsd_policy_outputs& out);

}  // namespace rlsd::cpu

#endif
