/* What a loss can refuse before it reads an array: absent memory, unknown choices, what does not go together.
 * Pointers are compared with NULL and nothing else, so they may be a device's. */
#ifndef RLSD_CORE_LOSS_ARGUMENTS_H_
#define RLSD_CORE_LOSS_ARGUMENTS_H_

#include <cmath>
#include <initializer_list>

#include "core/error.h"
#include "core/memory.h"

namespace rlsd {

/* A message with one %lld for `value`, or one %g for `number` where that is given; NULL: nothing is wrong. */
struct WrongArgument {
  const char* format = nullptr;
  long long value = 0;
  const double* number = nullptr;
};

inline rlsd_status refuse(rlsd_context* context, const WrongArgument& wrong) {
  return wrong.number != nullptr ? fail(context, RLSD_INVALID_ARGUMENT, -1, wrong.format, *wrong.number)
                                 : fail(context, RLSD_INVALID_ARGUMENT, -1, wrong.format, wrong.value);
}

inline bool is_one_of(int32_t value, int32_t last) { return value >= 0 && value <= last; }

inline WrongArgument wrong_temperature(const double& t) {
  if (t > 0.0 && t < INFINITY) return {};
  return {"Expected a finite number above 0 for temperature but received %g.", 0, &t};
}

/* A number that a caller may have left 0: it must be above `above`, and finite unless infinity stands for "off". */
struct NumberRule {
  bool used;
  const double* number;
  double above;
  bool may_be_off;
  const char* format;

  bool is_broken() const { return used && !(*number > above && (may_be_off || *number < INFINITY)); } /* NaN is */
};

/* Whether `log` is the logarithm of `bound`, or -infinity where there is none. */
inline bool is_log_of(double log, double bound) {
  const double exact = std::fmax(bound, 0.0);
  return std::fabs(std::exp(log) - exact) <= 1e-9 * (1.0 + exact);
}

inline WrongArgument wrong_numbers(const rlsd_objective& o) {
  const bool kl = o.kl_coef != 0.0, sapo = o.surrogate == RLSD_SAPO, corrects = o.importance != RLSD_IMPORTANCE_NONE;
  const NumberRule rules[] = {
      {true, &o.dual_clip, 1.0, true, "Expected more than 1, or infinity for off, for dual_clip but received %g."},
      {true, &o.ratio_bound, 0.0, true, "Expected more than 0, or infinity for off, for ratio_bound but received %g."},
      {kl, &o.kl_clamp, 0.0, true, "Expected more than 0, or infinity for off, for kl_clamp but received %g."},
      {sapo, &o.sapo_temperature_pos, 0.0, false, "Expected more than 0 for sapo_temperature_pos but received %g."},
      {sapo, &o.sapo_temperature_neg, 0.0, false, "Expected more than 0 for sapo_temperature_neg but received %g."},
      {corrects, &o.importance_max, 0.0, true,
       "Expected more than 0, or infinity for off, for importance_max but received %g."},
  };
  for (const NumberRule& rule : rules) {
    if (rule.is_broken()) return {rule.format, 0, rule.number};
  }
  if (!is_log_of(o.log_clip_low, 1.0 - o.clip_low) || !is_log_of(o.log_clip_high, 1.0 + o.clip_high)) {
    return {"Expected log(1 - clip_low) for log_clip_low and log(1 + clip_high) for log_clip_high; clip_high is %g.", 0,
            &o.clip_high};
  }
  if (!is_log_of(o.log_evidence_low, 1.0 - o.evidence_clip) || !is_log_of(o.log_evidence_high, 1.0 + o.evidence_clip)) {
    return {"Expected log(1 - evidence_clip) for log_evidence_low and log(1 + evidence_clip) for log_evidence_high; "
            "evidence_clip is %g.",
            0, &o.evidence_clip};
  }
  return {};
}

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
  const WrongArgument wrong = wrong_temperature(o.temperature);
  return wrong.format ? wrong : wrong_numbers(o);
}

/* Rows of neighbouring elements, apart from each other. */
inline bool is_matrix(const rlsd_tensor& t) {
  return t.rank == 2 && t.shape[0] >= 0 && t.shape[1] >= 0 && t.stride[1] == 1 &&
         (t.shape[0] <= 1 || t.stride[0] >= t.shape[1]);
}

/* One number for each row of the head, as (V) or (1, V); or absent. */
inline bool is_bias(const rlsd_tensor& t, int64_t vocab) {
  if (t.data == nullptr) return true;
  const int32_t last = t.rank - 1;
  const bool is_row = last == 0 || (last == 1 && t.shape[0] == 1);
  return is_float(t.dtype) && is_row && t.shape[last] == vocab && t.stride[last] == 1;
}

inline WrongArgument wrong_scores(const rlsd_scores& s, int64_t tokens, const char* absent) {
  if (!is_one_of(s.level, RLSD_HIDDEN)) return {"Expected an rlsd_level but received %lld.", s.level};
  if (s.level == RLSD_LOG_PROBS && s.log_probs == nullptr && tokens > 0) return {absent, tokens};
  if (s.level == RLSD_LOGITS && !is_matrix(s.logits)) {
    return {"Expected two dimensions, the last of stride 1 and rows apart, for logits but received rank %lld.",
            s.logits.rank};
  }
  if (s.level == RLSD_HIDDEN && !(is_matrix(s.hidden) && is_matrix(s.head))) {
    return {"Expected two dimensions, the last of stride 1 and rows apart, for hidden and head but hidden has %lld.",
            s.hidden.rank};
  }
  if (s.level == RLSD_HIDDEN && !is_bias(s.bias, s.head.shape[0])) {
    return {"Expected a bias of V = %lld floats.", s.head.shape[0]};
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

inline bool is_gradient_of(const rlsd_tensor& gradient, const rlsd_tensor& of) {
  return gradient.data == nullptr || (is_matrix(gradient) && gradient.dtype == of.dtype &&
                                      gradient.shape[0] == of.shape[0] && gradient.shape[1] == of.shape[1]);
}

/* The gradient of logits lies over the student's logits exactly, or apart from all that is read. */
inline WrongArgument wrong_gradient_of_logits(const rlsd_tensor& g, const rlsd_scores& student, const rlsd_scores& teacher,
                                              const rlsd_scores& contrast) {
  const rlsd_tensor& z = student.logits;
  if (g.data == nullptr || student.level != RLSD_LOGITS) return {};
  if (!is_gradient_of(g, z)) {
    return {"Expected the shape and dtype of student.logits, and rows apart, for gradient.logits (%lld rows).", z.shape[0]};
  }
  const bool in_place = g.data == z.data && g.stride[0] == z.stride[0];
  if (!in_place && overlaps(g, z)) {
    return {"gradient.logits shares part of its memory with student.logits (%lld rows).", z.shape[0]};
  }
  for (const rlsd_scores* s : {&teacher, &contrast}) {
    for (const rlsd_tensor* read : {&s->logits, &s->hidden, &s->head, &s->bias}) {
      if (!overlaps(g, *read)) continue;
      return {"gradient.logits shares its memory with another view, which is read while it is written (%lld rows).",
              z.shape[0]};
    }
  }
  return {};
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
  if (!wrong.format) wrong = wrong_together(b, o);
  return wrong.format ? wrong : wrong_gradient_of_logits(out.gradient_logits, b.student, b.teacher, b.contrast);
}

inline WrongArgument wrong_token_arguments(const rlsd_token_log_probs_args& a) {
  if (a.tokens > 0 && a.log_probs == nullptr) return {"Expected memory for logProbs (N = %lld).", a.tokens};
  WrongArgument wrong = wrong_tokens(a.tokens);
  if (!wrong.format) wrong = wrong_temperature(a.temperature);
  return wrong.format ? wrong : wrong_scores(a.scores, a.tokens, "Expected memory for logProbs (N = %lld).");
}

inline WrongArgument wrong_distill_options(const rlsd_distill_args& a) {
  if (!is_one_of(a.divergence, RLSD_JSD)) return {"Expected an rlsd_divergence but received %lld.", a.divergence};
  if (!is_one_of(a.reduction, RLSD_TOKEN_SUM)) return {"Expected an rlsd_reduction but received %lld.", a.reduction};
  if (a.top_k < 0) return {"Expected at least 0 for topK but received %lld.", a.top_k};
  if (!(a.value_clamp > 0.0)) {
    return {"Expected more than 0, or infinity for off, for value_clamp but received %g.", 0, &a.value_clamp};
  }
  return wrong_temperature(a.temperature);
}

inline WrongArgument wrong_distill_arguments(const rlsd_distill_args& a) {
  WrongArgument wrong = wrong_counts(a.tokens, a.sequences, a.cu_seqlens);
  if (!wrong.format) wrong = wrong_distill_options(a);
  if (!wrong.format) wrong = wrong_scores(a.student, a.tokens, "Expected logits or hidden states (N = %lld).");
  if (!wrong.format) wrong = wrong_scores(a.teacher, a.tokens, "Expected logits or hidden states (N = %lld).");
  if (wrong.format) return wrong;
  if (a.stats == nullptr) return {"Expected memory for stats (%lld).", RLSD_DISTILL_STATS};
  return wrong_gradient_of_logits(a.gradient_logits, a.student, a.teacher, {});
}

}  // namespace rlsd

#endif
