/* The views of a policy loss with hidden states: their check, the tokens that are read of them, and teacher and
 * contrast reduced to (N) log-probs. */
#ifndef RLSD_CPU_HEAD_VIEWS_H_
#define RLSD_CPU_HEAD_VIEWS_H_

#include "cpu/head_logits.h"
#include "cpu/policy_rows.h"

namespace rlsd::cpu {

/* True where the head level makes a view's log-probs: of logits only beside a student with hidden states, as the level
 * of logits scores them else. */
bool is_scored_here(const rlsd_policy_batch& batch, const rlsd_scores& view);

/* The most rows of any view. */
int64_t most_rows(const rlsd_policy_batch& batch);

/* Checks every view that is scored here. `owner` (most_rows) receives the token of each row of the student. */
rlsd_status check_views(rlsd_context* context, const rlsd_policy_batch& batch, const TokenIds& ids, int32_t* owner);

/* Tokens that are read: those with a gradient, then those whose gradient is known to be 0. */
struct TokenOrder {
  const int32_t* tokens; /* (count) */
  int64_t with_gradient, count;
};

/* Writes the order into `tokens` (N). With `skip_zero_rows` tokens without a gradient are left out, and marked in
 * `skipped` (N) unless that is NULL. */
TokenOrder list_tokens(const PolicyRows& rows, bool skip_zero_rows, int32_t* tokens, uint8_t* skipped);

/* (N) log-probs of a teacher or contrast. */
rlsd_status score_view(rlsd_context* context, const rlsd_scores& view, const TokenIds& ids, const TokenOrder& order,
                       const RowOptions& options, const HeadChunk& chunk, float* log_probs);

/* The batch with these log-probs in place of a teacher or contrast with hidden states. */
rlsd_policy_batch without_heads(const rlsd_policy_batch& batch, const float* teacher, const float* contrast);

}  // namespace rlsd::cpu

#endif
