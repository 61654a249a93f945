/* What a loss can refuse before it reads an array: absent memory, unknown choices, what does not go together.
 * Pointers are compared with NULL and nothing else, so they may be a device's. */
#ifndef RLSD_CORE_LOSS_ARGUMENTS_H_
#define RLSD_CORE_LOSS_ARGUMENTS_H_

#include "rlsd/rlsd.h"

namespace rlsd {

/* A message with one %lld for `value`; NULL: nothing is wrong. */
struct WrongArgument {
  const char* format = nullptr;
  long long value = 0;
};

inline bool is_one_of(int32_t value, int32_t last) { return value >= 0 && value <= last; }

inline WrongArgument wrong_objective(const rlsd_objective& o) {
  if (o.struct_size < sizeof(o)) {
    return {"Expected the size of rlsd_objective for struct_size but received %lld.", o.struct_size};
  }
  if (!is_one_of(o.surrogate, RLSD_ROW_COEFFICIENT)) {
    return {"Expected an rlsd_surrogate but received %lld.", o.surrogate};
  }
  if (!is_one_of(o.reduction, RLSD_TOKEN_SUM)) {
    return {"Expected an rlsd_reduction but received %lld.", o.reduction};
  }
  if (!is_one_of(o.importance, RLSD_SEQUENCE_MASK)) {
    return {"Expected an rlsd_importance but received %lld.", o.importance};
  }
  if (!is_one_of(o.kl_estimator, RLSD_KL_ABS)) {
    return {"Expected an rlsd_kl_estimator but received %lld.", o.kl_estimator};
  }
  return {};
}

inline bool is_matrix(const rlsd_tensor& t) { return t.rank == 2 && t.stride[1] == 1; }

inline WrongArgument wrong_scores(const rlsd_scores& s, int64_t tokens, const char* absent) {
  if (!is_one_of(s.level, RLSD_HIDDEN)) return {"Expected an rlsd_level but received %lld.", s.level};
  if (s.level == RLSD_LOG_PROBS && s.log_probs == nullptr && tokens > 0) return {absent, tokens};
  if (s.level == RLSD_LOGITS && !is_matrix(s.logits)) {
    return {"Expected two dimensions, the last of stride 1, for logits but received rank %lld.", s.logits.rank};
  }
  if (s.level == RLSD_HIDDEN && !(is_matrix(s.hidden) && is_matrix(s.head))) {
    return {"Expected two dimensions, the last of stride 1, for hidden and head but hidden has %lld.", s.hidden.rank};
  }
  return {};
}

/* Which inputs an objective needs. Under row-coefficient there is neither KL nor entropy bonus. */
inline WrongArgument wrong_together(const rlsd_policy_batch& b, const rlsd_objective& o) {
  const bool bare = o.surrogate == RLSD_ROW_COEFFICIENT;
  if (bare && !b.advantages_per_token) {
    return {"Expected dL/dlogP of N = %lld tokens for advantages.", b.tokens};
  }
  if (b.contrast.level != RLSD_ABSENT && b.teacher.level == RLSD_ABSENT) {
    return {"Expected a teacher beside the contrast but its level is %lld.", b.teacher.level};
  }
  if (b.tokens == 0) return {};
  if (!bare && o.kl_coef > 0.0 && b.ref_log_probs == nullptr) {
    return {"Expected refLogProbs (N = %lld), as klCoef is above 0.", b.tokens};
  }
  if (o.student_source_old && b.teacher.level != RLSD_ABSENT && b.old_log_probs == nullptr) {
    return {"Expected oldLogProbs (N = %lld), as studentSource is \"old\".", b.tokens};
  }
  if (!bare && o.entropy_coef != 0.0 && b.student.level == RLSD_LOG_PROBS) {
    return {"Expected logits or hidden states (N = %lld), as log-probs have no entropy.", b.tokens};
  }
  return {};
}

inline WrongArgument wrong_tokens(int64_t tokens) {
  if (tokens >= 0 && tokens <= INT32_MAX) return {};
  return {"Expected 0 to 2^31 - 1 for tokens but received %lld.", tokens};
}

inline WrongArgument wrong_counts(int64_t tokens, int64_t sequences, const int32_t* cu_seqlens) {
  if (sequences < 0) return {"Expected at least 0 for sequences but received %lld.", sequences};
  if (cu_seqlens == nullptr) return {"Expected memory for cuSeqlens (B = %lld).", sequences};
  return wrong_tokens(tokens);
}

inline WrongArgument wrong_policy_arguments(const rlsd_policy_batch& b, const rlsd_objective& o,
                                            const rlsd_policy_outputs& out) {
  const WrongArgument counts = wrong_counts(b.tokens, b.sequences, b.cu_seqlens);
  if (counts.format) return counts;
  if (out.stats == nullptr) return {"Expected memory for stats (%lld).", RLSD_STAT_COUNT};
  if (b.tokens > 0) {
    if (b.advantages == nullptr) return {"Expected memory for advantages (N = %lld).", b.tokens};
    if (out.token_advantages == nullptr) return {"Expected memory for tokenAdvantages (N = %lld).", b.tokens};
    if (out.evidence_weights == nullptr) return {"Expected memory for evidenceWeights (N = %lld).", b.tokens};
  }
  WrongArgument wrong = wrong_objective(o);
  if (!wrong.format) wrong = wrong_scores(b.student, b.tokens, "Expected memory for student.logProbs (N = %lld).");
  if (!wrong.format) wrong = wrong_scores(b.teacher, b.tokens, "Expected memory for teacher.logProbs (N = %lld).");
  if (!wrong.format) wrong = wrong_scores(b.contrast, b.tokens, "Expected memory for contrast.logProbs (N = %lld).");
  return wrong.format ? wrong : wrong_together(b, o);
}

inline WrongArgument wrong_token_arguments(const rlsd_token_log_probs_args& a) {
  if (a.tokens > 0 && a.log_probs == nullptr) return {"Expected memory for logProbs (N = %lld).", a.tokens};
  const WrongArgument wrong = wrong_tokens(a.tokens);
  return wrong.format ? wrong : wrong_scores(a.scores, a.tokens, "Expected memory for logProbs (N = %lld).");
}

inline bool is_gradient_of(const rlsd_tensor& gradient, const rlsd_tensor& of) {
  return gradient.data == nullptr || (is_matrix(gradient) && gradient.dtype == of.dtype &&
                                      gradient.shape[0] == of.shape[0] && gradient.shape[1] == of.shape[1]);
}

inline WrongArgument wrong_distill_options(const rlsd_distill_args& a) {
  if (!is_one_of(a.divergence, RLSD_JSD)) return {"Expected an rlsd_divergence but received %lld.", a.divergence};
  if (!is_one_of(a.reduction, RLSD_TOKEN_SUM)) return {"Expected an rlsd_reduction but received %lld.", a.reduction};
  if (a.top_k < 0) return {"Expected at least 0 for topK but received %lld.", a.top_k};
  return {};
}

inline WrongArgument wrong_distill_arguments(const rlsd_distill_args& a) {
  WrongArgument wrong = wrong_counts(a.tokens, a.sequences, a.cu_seqlens);
  if (!wrong.format) wrong = wrong_distill_options(a);
  if (!wrong.format) wrong = wrong_scores(a.student, a.tokens, "Expected logits or hidden states (N = %lld).");
  if (!wrong.format) wrong = wrong_scores(a.teacher, a.tokens, "Expected logits or hidden states (N = %lld).");
  if (wrong.format) return wrong;
  if (a.stats == nullptr) return {"Expected memory for stats (%lld).", RLSD_DISTILL_STATS};
  if (a.student.level == RLSD_LOGITS && !is_gradient_of(a.gradient_logits, a.student.logits)) {
    return {"Expected the shape and dtype of student.logits for gradient.logits (%lld rows).", a.student.logits.shape[0]};
  }
  return {};
}

}  // namespace rlsd

#endif
