#ifndef RLSD_CUDA_POLICY_TOKENS_H_
#define RLSD_CUDA_POLICY_TOKENS_H_

#include "core/policy_pass.h"
#include "cuda/outcome.h"

namespace rlsd::cuda {

/* Blocks, and thus partial sums, of the pass: of the batch alone, so that its bits are. At most kThreads. */
constexpr int64_t kPassBlocks = kThreads;

/* Enqueues the pass over the tokens: per-token results, statistics, gradient to log-probs, outcome. `control` was filled
 * with ones and holds what earlier kernels of the call found; with `checked` they looked at the small arrays too.
 * `parts` (kPassBlocks). `views` names the views of the outcome's words. */
rlsd_status launch_policy_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                                 const rlsd_policy_outputs& out, Control* control, PolicySums* parts,
                                 rlsd_outcome* outcome, bool checked);

}  // namespace rlsd::cuda

#endif
