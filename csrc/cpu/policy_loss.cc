/* policy_loss at log-prob level: (N) log-probs in; loss, per-token results, statistics and dL/dlogP out.
 *
 *   loss = sum_t omega_t (L_t + klCoef KL_t - entropyCoef H_t)          (docs/maths.md, "Reduction")
 *
 * One task per range of whole sequences; ranges depend on the batch alone and their sums are added in order, so
 * the bits of the result do not depend on the number of threads. */
#include "cpu/policy_loss.h"

#include <algorithm>
#include <cmath>

#include "cpu/error.h"
#include "cpu/policy_loss_logits.h"
#include "cpu/policy_tokens.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kMaxTasks = 64;
constexpr int64_t kTokensPerTask = 4096; /* about 100 us of work: less is not worth waking a thread */

/* Sums over the tokens of one task. `*_tokens` count what a mean divides by. */
struct Sums {
  double loss, policy_loss, kl, entropy, ratio, advantage, advantage_abs;
  double clipped_high, clipped_low, dual_clipped;
  double delta, delta_positive, delta_negative, weight, clipped_weight, evidence_low, evidence_high;
  double usable_tokens, evidence_tokens, positive_tokens, negative_tokens;
  double non_finite, nan_teacher, skipped;
  int64_t first_non_finite;
};

void add(Sums* total, const Sums& part) {
  constexpr int64_t kDoubles = offsetof(Sums, first_non_finite) / sizeof(double);
  auto* to = reinterpret_cast<double*>(total);
  const auto* from = reinterpret_cast<const double*>(&part);
  for (int64_t i = 0; i < kDoubles; ++i) to[i] += from[i];
  if (total->first_non_finite < 0) total->first_non_finite = part.first_non_finite;
}

void write_token(const rlsd_policy_outputs& out, int64_t i, float log_prob, float teacher, double advantage,
                 double weight, double gradient) {
  if (out.log_probs != nullptr) out.log_probs[i] = log_prob;
  if (out.teacher_log_probs != nullptr) out.teacher_log_probs[i] = teacher;
  out.token_advantages[i] = static_cast<float>(advantage);
  out.evidence_weights[i] = static_cast<float>(weight);
  if (out.gradient_log_probs != nullptr) out.gradient_log_probs[i] = static_cast<float>(gradient);
}

void add_evidence(Sums* s, const rlsd_objective& o, const TokenCredit& credit) {
  const Evidence& e = credit.evidence;
  if (!e.usable) {
    s->nan_teacher += 1.0;
    return;
  }
  s->evidence_tokens += 1.0;
  s->delta += e.delta;
  s->weight += e.weight;
  s->clipped_weight += e.clipped;
  s->evidence_low += e.weight < 1.0 - o.evidence_clip;
  s->evidence_high += e.weight > 1.0 + o.evidence_clip;
  if (credit.direction > 0.0) {
    s->delta_positive += e.delta;
    s->positive_tokens += 1.0;
  } else if (credit.direction < 0.0) {
    s->delta_negative += e.delta;
    s->negative_tokens += 1.0;
  }
}

void add_advantage(Sums* s, double advantage) {
  s->usable_tokens += 1.0;
  s->advantage += advantage;
  s->advantage_abs += std::fabs(advantage);
}

void add_loss(Sums* s, const TokenLoss& l, double omega, double kl_coef, double entropy, double entropy_coef) {
  s->policy_loss += omega * l.policy_loss;
  s->loss += omega * (l.policy_loss - entropy_coef * entropy);
  if (kl_coef != 0.0) s->loss += omega * kl_coef * l.kl; /* an unclamped KL may be infinite */
  s->kl += l.kl;
  s->entropy += entropy;
  s->ratio += l.ratio;
  s->clipped_high += l.clipped_high;
  s->clipped_low += l.clipped_low;
  s->dual_clipped += l.dual_clipped;
}

struct Pass {
  const PolicyTokens& p;
  const rlsd_objective& o;
  const rlsd_policy_outputs& out;
  int64_t batch_tokens;

  float teacher_at(int64_t i) const { return p.teacher != nullptr ? p.teacher[i] : 0.0f; }

  /* It leaves the loss; the caller sees the scores that came. */
  void bad_row(Sums* s, int64_t i) const {
    s->non_finite += 1.0;
    if (s->first_non_finite < 0) s->first_non_finite = i;
    write_token(out, i, p.log_probs[i], teacher_at(i), 0.0, 1.0, 0.0);
  }

  /* A row that was not read: its advantage stands, its gradient is 0. */
  void skipped_row(Sums* s, int64_t sequence, int64_t i) const {
    s->skipped += 1.0;
    write_token(out, i, 0.0f, 0.0f, advantage_at(p, sequence, i), 1.0, 0.0);
  }

  void credit_token(Sums* s, const SequenceTerms& q, const TokenInput& t, int64_t i) const {
    const TokenCredit credit = token_credit(o, t, q.negative);
    const double advantage = t.advantage * (credit.rho * q.credit_scale);
    add_evidence(s, o, credit);
    add_advantage(s, advantage);
    write_token(out, i, p.log_probs[i], teacher_at(i), advantage, credit.evidence.clipped, 0.0);
  }

  void token(Sums* s, const SequenceTerms& q, int64_t sequence, int64_t i) const {
    const TokenInput t = token_input(p, sequence, i);
    if (p.credit_only) return credit_token(s, q, t, i);
    if (!is_finite_token(t)) return bad_row(s, i);
    const TokenCredit credit = token_credit(o, t, q.negative);
    const TokenLoss l = token_loss(o, t, q, credit.rho);
    if (t.has_teacher) add_evidence(s, o, credit);
    add_advantage(s, l.advantage);
    const bool bare = o.surrogate == RLSD_ROW_COEFFICIENT;
    add_loss(s, l, q.omega, bare ? 0.0 : o.kl_coef, p.entropy != nullptr ? p.entropy[i] : 0.0,
             bare ? 0.0 : o.entropy_coef);
    write_token(out, i, p.log_probs[i], teacher_at(i), l.advantage, credit.evidence.clipped,
                out.loss_scale * q.omega * l.gradient);
  }

  Sums range(int64_t first, int64_t last) const {
    Sums s{};
    s.first_non_finite = -1;
    for (int64_t b = first; b < last; ++b) {
      const SequenceTerms q = sequence_terms(p, o, batch_tokens, b);
      for (int64_t i = p.cu_seqlens[b]; i < p.cu_seqlens[b + 1]; ++i) {
        if (is_masked(p, i)) {
          write_token(out, i, 0.0f, 0.0f, 0.0, 0.0, 0.0);
        } else if (p.skipped != nullptr && p.skipped[i] != 0) {
          skipped_row(&s, b, i);
        } else {
          token(&s, q, b, i);
        }
      }
    }
    return s;
  }
};

double mean(double sum, double count) { return count > 0.0 ? sum / count : NAN; }

void write_stats(const PolicyTokens& p, const rlsd_objective& o, const Sums& s, int64_t batch_tokens,
                 double* stats) {
  std::fill(stats, stats + RLSD_STAT_COUNT, NAN);
  stats[RLSD_STAT_TOKENS] = static_cast<double>(batch_tokens);
  stats[RLSD_STAT_SEQUENCES] = static_cast<double>(p.sequences);
  if (!p.credit_only) {
    stats[RLSD_STAT_LOSS] = s.loss;
    stats[RLSD_STAT_POLICY_LOSS] = s.policy_loss;
  }
  stats[RLSD_STAT_NON_FINITE_ROWS] = s.non_finite;
  stats[RLSD_STAT_NAN_TEACHER_ROWS] = s.nan_teacher;
  stats[RLSD_STAT_SKIPPED_ROWS] = s.skipped;
  const bool has_ratio = !p.credit_only && o.surrogate != RLSD_ROW_COEFFICIENT;
  if (has_ratio && p.ref_log_probs != nullptr) stats[RLSD_STAT_KL_MEAN] = mean(s.kl, s.usable_tokens);
  if (p.entropy != nullptr) stats[RLSD_STAT_ENTROPY_MEAN] = mean(s.entropy, s.usable_tokens);
  stats[RLSD_STAT_ADVANTAGE_MEAN] = mean(s.advantage, s.usable_tokens);
  stats[RLSD_STAT_ADVANTAGE_ABS_MEAN] = mean(s.advantage_abs, s.usable_tokens);
  if (has_ratio) stats[RLSD_STAT_RATIO_MEAN] = mean(s.ratio, s.usable_tokens);
  if (has_ratio && o.surrogate != RLSD_SAPO) {
    stats[RLSD_STAT_RATIO_CLIPPED_HIGH] = mean(s.clipped_high, s.usable_tokens);
    stats[RLSD_STAT_RATIO_CLIPPED_LOW] = mean(s.clipped_low, s.usable_tokens);
    stats[RLSD_STAT_DUAL_CLIPPED] = mean(s.dual_clipped, s.usable_tokens);
  }
  if (p.teacher == nullptr) return;
  stats[RLSD_STAT_DELTA_MEAN] = mean(s.delta, s.evidence_tokens);
  stats[RLSD_STAT_DELTA_MEAN_POSITIVE] = mean(s.delta_positive, s.positive_tokens);
  stats[RLSD_STAT_DELTA_MEAN_NEGATIVE] = mean(s.delta_negative, s.negative_tokens);
  stats[RLSD_STAT_EVIDENCE_WEIGHT_MEAN] = mean(s.weight, s.evidence_tokens);
  stats[RLSD_STAT_CLIPPED_WEIGHT_MEAN] = mean(s.clipped_weight, s.evidence_tokens);
  stats[RLSD_STAT_EVIDENCE_CLIPPED_LOW] = mean(s.evidence_low, s.evidence_tokens);
  stats[RLSD_STAT_EVIDENCE_CLIPPED_HIGH] = mean(s.evidence_high, s.evidence_tokens);
}

/* First sequence that starts at or after a task's share of the tokens. */
int64_t task_start(const PolicyTokens& p, int64_t task, int64_t tasks) {
  if (task == tasks) return p.sequences;
  const int64_t token = p.tokens / tasks * task;
  return std::lower_bound(p.cu_seqlens, p.cu_seqlens + p.sequences, static_cast<int32_t>(token)) - p.cu_seqlens;
}

}  // namespace

rlsd_status policy_loss_tokens(rlsd_context* context, const PolicyTokens& p, const rlsd_objective& o,
                               const rlsd_policy_outputs& out) {
  const Pass pass{p, o, out, count_tokens(p)};
  const int64_t tasks = std::clamp<int64_t>(p.tokens / kTokensPerTask, 1, kMaxTasks);
  Sums parts[kMaxTasks];
  Sums total{};
  total.first_non_finite = -1;
  if (tasks == 1) {
    total = pass.range(0, p.sequences);
  } else {
    const rlsd_status status = parallel_for(context, tasks, [&](int64_t task) {
      parts[task] = pass.range(task_start(p, task, tasks), task_start(p, task + 1, tasks));
    });
    if (status != RLSD_OK) return status;
    for (int64_t task = 0; task < tasks; ++task) add(&total, parts[task]);
  }
  write_stats(p, o, total, pass.batch_tokens, out.stats);
  if (total.non_finite == 0.0 || o.non_finite_skip) return RLSD_OK;
  context->error_count = static_cast<int64_t>(total.non_finite);
  return fail(context, RLSD_NON_FINITE, total.first_non_finite,
              "Expected finite log-probs at unmasked tokens but token %lld is not finite (%lld in all).",
              static_cast<long long>(total.first_non_finite), static_cast<long long>(context->error_count));
}

rlsd_status policy_loss_workspace(rlsd_context* context, const rlsd_policy_batch* batch,
                                  const rlsd_objective* objective, const rlsd_policy_outputs* outputs,
                                  uint64_t* bytes) {
  if (is_logits_level(*batch)) return policy_loss_logits_workspace(context, *batch, *objective, *outputs, bytes);
  *bytes = 0;
  return RLSD_OK;
}

rlsd_status policy_loss(rlsd_context* context, const rlsd_policy_batch* batch, const rlsd_objective* objective,
                        const rlsd_policy_outputs* outputs) {
  if (is_logits_level(*batch)) return policy_loss_logits(context, *batch, *objective, *outputs);
  if (batch->student.level != RLSD_LOG_PROBS || batch->teacher.level > RLSD_LOG_PROBS ||
      batch->contrast.level > RLSD_LOG_PROBS) {
    return fail(context, RLSD_UNSUPPORTED, -1, "policy_loss of the cpu backend takes log-probs and logits.");
  }
  PolicyTokens tokens = policy_tokens(*batch);
  tokens.credit_only = outputs->gradient_log_probs == nullptr;
  const rlsd_status status = check_policy_tokens(context, tokens);
  return status == RLSD_OK ? policy_loss_tokens(context, tokens, *objective, *outputs) : status;
}

}  // namespace rlsd::cpu
