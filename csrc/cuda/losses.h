#ifndef RLSD_CUDA_LOSSES_H_
#define RLSD_CUDA_LOSSES_H_

#include "cuda/rows.h"

namespace rlsd::cuda {

rlsd_status policy_loss_workspace(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*,
                                  const rlsd_policy_outputs*, uint64_t* bytes);
rlsd_status policy_loss(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*, const rlsd_policy_outputs*);
rlsd_status policy_loss_rows(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*, const rlsd_policy_outputs*,
                             rlsd_rows*);
rlsd_status token_log_probs_workspace(rlsd_context*, const rlsd_token_log_probs_args*, uint64_t* bytes);
rlsd_status token_log_probs(rlsd_context*, const rlsd_token_log_probs_args*);

/* ---- shared by the two ---- */

rlsd_status check_workspace(rlsd_context* context, uint64_t needed);

/* The view's rows, without its arrays. `scores` is at logits level. */
View view_of(const rlsd_scores& scores);

/* Sizes and dtypes that the host knows; `name` is the view's in the error. */
rlsd_status check_view(rlsd_context* context, const char* name, const View& view, int64_t tokens,
                       const int32_t* token_ids);

}  // namespace rlsd::cuda

#endif
