#ifndef RLSD_CUDA_POLICY_TOKENS_H_
#define RLSD_CUDA_POLICY_TOKENS_H_

#include "core/policy_pass.h"
#include "cuda/outcome.h"

namespace rlsd::cuda {

/* Blocks, and thus partial sums, of the pass: of the batch alone, so that its bits are. At most kThreads. */
constexpr int64_t kPassBlocks = kThreads;

/* Enqueues the pass over the tokens: per-token results, statistics, gradient to log-probs, outcome. With `checked`, earlier
 * kernels of the call looked at the small arrays, and `control` holds what they found; without, it may hold anything.
 * `parts` (kPassBlocks). */
rlsd_status launch_policy_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                                 const rlsd_policy_outputs& out, Control* control, PolicySums* parts,
                                 rlsd_outcome* outcome, bool checked);

}  // namespace rlsd::cuda

#endif
