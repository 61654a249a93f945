/* The (N) arrays of a policy loss and the functions that read them, shared by every level.
 *
 * A level above turns logits or hidden states into log-probs, asks token_gradient for the row's coefficient, and
 * leaves the per-token results and the statistics to policy_loss_tokens. */
#ifndef RLSD_CPU_POLICY_TOKENS_H_
#define RLSD_CPU_POLICY_TOKENS_H_

#include "core/token_loss.h"

namespace rlsd::cpu {

struct PolicyTokens {
  int64_t tokens, sequences;
  const float* log_probs;
  const float* teacher;  /* NULL: no teacher */
  const float* contrast; /* NULL: no contrast teacher */
  const float* entropy;  /* NULL: not computed */
  const float* old_log_probs;
  const float* ref_log_probs;
  const float* sampler_log_probs;
  const float* advantages;
  bool advantages_per_token;
  const int32_t* cu_seqlens;
  const uint8_t* completion_mask; /* NULL: all 1 */
  const uint8_t* span_mask;
  bool credit_only;       /* no loss is wanted: scores may be infinite, and no row is bad */
  const uint8_t* skipped; /* NULL, or 1 where a row was not read: it counts as a token with no gradient */
};

inline bool is_masked(const PolicyTokens& p, int64_t i) {
  return p.completion_mask != nullptr && p.completion_mask[i] == 0;
}

inline double advantage_at(const PolicyTokens& p, int64_t sequence, int64_t i) {
  return p.advantages[p.advantages_per_token ? i : sequence];
}

inline TokenInput token_input(const PolicyTokens& p, int64_t sequence, int64_t i) {
  TokenInput t{};
  t.log_prob = p.log_probs[i];
  t.old_log_prob = p.old_log_probs != nullptr ? p.old_log_probs[i] : t.log_prob;
  t.advantage = advantage_at(p, sequence, i);
  t.has_ref = p.ref_log_probs != nullptr;
  t.has_sampler = p.sampler_log_probs != nullptr;
  t.has_teacher = p.teacher != nullptr;
  t.has_contrast = p.contrast != nullptr;
  if (t.has_ref) t.ref_log_prob = p.ref_log_probs[i];
  if (t.has_sampler) t.sampler_log_prob = p.sampler_log_probs[i];
  if (t.has_teacher) t.teacher = p.teacher[i];
  if (t.has_contrast) t.contrast = p.contrast[i];
  t.in_span = p.span_mask == nullptr || p.span_mask[i] != 0;
  return t;
}

/* Unmasked tokens of the batch; the divisor of token-mean. */
int64_t count_tokens(const PolicyTokens& p);

/* omega of each token of a sequence with `length` unmasked tokens. */
double reduction_weight(const rlsd_objective& o, int64_t batch_tokens, int64_t sequences, int64_t length);

/* Terms that need no log-prob (omega, negative); with log-probs present also the sequence's means. */
SequenceTerms sequence_terms(const PolicyTokens& p, const rlsd_objective& o, int64_t batch_tokens, int64_t sequence);

/* Checks cu_seqlens, masks and advantages; on failure writes context->error and touches nothing else. */
rlsd_status check_policy_tokens(rlsd_context* context, const PolicyTokens& p);

/* Per-token results, statistics and gradient to log-probs. RLSD_NON_FINITE when bad rows were left out. */
rlsd_status policy_loss_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                               const rlsd_policy_outputs& out);

/* The arrays of a batch whose views are all log-probs. */
PolicyTokens policy_tokens(const rlsd_policy_batch& batch);

}  // namespace rlsd::cpu

#endif
