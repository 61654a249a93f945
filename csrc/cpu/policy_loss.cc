/* policy_loss at log-prob level: (N) log-probs in; loss, per-token results, statistics and dL/dlogP out.
 *
 *   loss = sum_t omega_t (L_t + klCoef KL_t - entropyCoef H_t)          (docs/maths.md, "Reduction")
 *
 * One task per range of whole sequences; ranges depend on the batch alone and their sums are added in order, so
 * the bits of the result do not depend on the number of threads. */
#include "cpu/policy_loss.h"

#include <algorithm>

#include "core/error.h"
#include "core/loss_arguments.h"
#include "core/policy_pass.h"
#include "cpu/policy_loss_head.h"
#include "cpu/policy_loss_logits.h"
#include "cpu/policy_tokens.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kMaxTasks = 64;
constexpr int64_t kTokensPerTask = 4096; /* about 100 us of work: less is not worth waking a thread */

class Pass {
 public:
  Pass(const PolicyTokens& tokens, const rlsd_objective& objective, const rlsd_policy_outputs& outputs)
      : p(tokens), o(objective), out(outputs), batch_tokens(count_tokens(tokens)) {}

  const PolicyTokens& p;
  const rlsd_objective& o;
  const rlsd_policy_outputs& out;
  int64_t batch_tokens;

  PolicySums range(int64_t first, int64_t last) const { return is_plain() ? plain(first, last) : any(p, o, first, last); }

 private:
  /* Most calls: PPO's surrogate with or without a teacher, and no KL, entropy or correction. */
  bool is_plain() const {
    return o.surrogate == RLSD_PPO_CLIP && !o.pessimistic && !o.student_source_old && !o.negative_only &&
           !p.credit_only && p.contrast == nullptr && p.entropy == nullptr && p.ref_log_probs == nullptr &&
           p.sampler_log_probs == nullptr && p.span_mask == nullptr && p.skipped == nullptr;
  }

  /* The same functions and bits as `any`; what is written here as a constant, the compiler leaves out of the loop. */
  PolicySums plain(int64_t first, int64_t last) const {
    rlsd_objective c = o;
    c.surrogate = RLSD_PPO_CLIP;
    c.pessimistic = c.student_source_old = c.negative_only = 0;
    PolicyTokens q = p;
    q.credit_only = false;
    q.contrast = q.entropy = q.ref_log_probs = q.sampler_log_probs = nullptr;
    q.span_mask = q.skipped = nullptr;
    if (q.teacher != nullptr) return any(q, c, first, last);
    q.teacher = nullptr;
    return any(q, c, first, last);
  }

  RLSD_HD PolicySums any(const PolicyTokens& q, const rlsd_objective& c, int64_t first, int64_t last) const {
    PolicySums s = no_policy_sums();
    for (int64_t b = first; b < last; ++b) {
      const SequenceTerms terms = sequence_terms(p, o, batch_tokens, b);
      for (int64_t i = p.cu_seqlens[b]; i < p.cu_seqlens[b + 1]; ++i) visit_token(&s, q, c, out, terms, b, i);
    }
    return s;
  }
};

/* First sequence that starts at or after a task's share of the tokens. */
int64_t task_start(const PolicyTokens& p, int64_t task, int64_t tasks) {
  if (task == tasks) return p.sequences;
  const int64_t token = p.tokens / tasks * task;
  return std::lower_bound(p.cu_seqlens, p.cu_seqlens + p.sequences, static_cast<int32_t>(token)) - p.cu_seqlens;
}

}  // namespace

rlsd_status policy_loss_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                               const rlsd_policy_outputs& out) {
  const Pass pass(p, o, out);
  const int64_t tasks = std::clamp<int64_t>(p.tokens / kTokensPerTask, 1, kMaxTasks);
  PolicySums parts[kMaxTasks];
  PolicySums total = no_policy_sums();
  if (tasks == 1) {
    total = pass.range(0, p.sequences);
  } else {
    const rlsd_status status = parallel_for(context, tasks, [&](int64_t task) {
      parts[task] = pass.range(task_start(p, task, tasks), task_start(p, task + 1, tasks));
    });
    if (status != RLSD_OK) return status;
    for (int64_t task = 0; task < tasks; ++task) add_policy_sums(&total, parts[task]);
  }
  write_policy_stats(p, o, total, pass.batch_tokens, out.stats);
  if (out.loss != nullptr) *out.loss = static_cast<float>(out.stats[RLSD_STAT_LOSS]);
  if (total.non_finite == 0.0 || o.non_finite_skip) return RLSD_OK;
  context->error_count = static_cast<int64_t>(total.non_finite);
  return fail(context, RLSD_NON_FINITE, total.first_non_finite,
              "Expected finite log-probs at unmasked tokens but token %lld is not finite (%lld in all).",
              static_cast<long long>(total.first_non_finite), static_cast<long long>(context->error_count));
}

rlsd_status policy_loss_workspace(rlsd_context* context, const rlsd_policy_batch* batch,
                                  const rlsd_objective* objective, const rlsd_policy_outputs* outputs,
                                  uint64_t* bytes) {
  if (is_head_level(*batch)) return policy_loss_head_workspace(context, *batch, *objective, *outputs, bytes);
  if (is_logits_level(*batch)) return policy_loss_logits_workspace(context, *batch, *objective, *outputs, bytes);
  *bytes = 0;
  return RLSD_OK;
}

rlsd_status policy_loss(rlsd_context* context, const rlsd_policy_batch* batch, const rlsd_objective* objective,
                        const rlsd_policy_outputs* outputs) {
  const WrongArgument wrong = wrong_policy_arguments(*batch, *objective, *outputs);
  if (wrong.format != nullptr) return refuse(context, wrong);
  if (is_head_level(*batch)) return policy_loss_head(context, *batch, *objective, *outputs);
  if (is_logits_level(*batch)) return policy_loss_logits(context, *batch, *objective, *outputs);
  if (batch->student.level != RLSD_LOG_PROBS) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected log-probs, logits or hidden states for student.");
  }
  PolicyTokens tokens = policy_tokens(*batch);
  tokens.credit_only = outputs->gradient_log_probs == nullptr;
  const rlsd_status status = check_policy_tokens(context, tokens);
  return status == RLSD_OK ? policy_loss_tokens(context, tokens, *objective, *outputs) : status;
}

}  // namespace rlsd::cpu
