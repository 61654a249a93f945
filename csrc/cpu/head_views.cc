#include "cpu/head_views.h"

#include <algorithm>
#include <cstring>

#include "cpu/row_tasks.h"

namespace rlsd::cpu {
namespace {

int64_t rows_of(const rlsd_scores& s) {
  return s.level == RLSD_HIDDEN ? s.hidden.shape[0] : (s.level == RLSD_LOGITS ? s.logits.shape[0] : 0);
}

rlsd_status check_view(rlsd_context* context, const char* name, const rlsd_policy_batch& b, const rlsd_scores& s,
                       const TokenIds& ids, int32_t* owner) {
  if (s.level == RLSD_HIDDEN) return check_head(context, name, head_view(s), ids, owner);
  return is_scored_here(b, s) ? check_logits(context, name, logits_view(s), ids, owner) : RLSD_OK;
}

void replace(rlsd_scores* s, const float* log_probs) {
  if (s->level != RLSD_HIDDEN) return;
  *s = rlsd_scores{};
  s->level = RLSD_LOG_PROBS;
  s->log_probs = log_probs;
}

}  // namespace

bool is_scored_here(const rlsd_policy_batch& b, const rlsd_scores& s) {
  return s.level == RLSD_HIDDEN || (s.level == RLSD_LOGITS && b.student.level == RLSD_HIDDEN);
}

int64_t most_rows(const rlsd_policy_batch& b) {
  return std::max({rows_of(b.student), rows_of(b.teacher), rows_of(b.contrast)});
}

rlsd_status check_views(rlsd_context* context, const rlsd_policy_batch& b, const TokenIds& ids, int32_t* owner) {
  rlsd_status status = check_view(context, "contrast", b, b.contrast, ids, owner);
  if (status == RLSD_OK) status = check_view(context, "teacher", b, b.teacher, ids, owner);
  /* The last: owner stays the student's. */
  return status == RLSD_OK ? check_view(context, "student", b, b.student, ids, owner) : status;
}

TokenOrder list_tokens(const PolicyRows& rows, bool skip_zero_rows, int32_t* tokens, uint8_t* skipped) {
  const PolicyTokens& p = rows.p;
  int64_t front = 0, back = p.tokens;
  for (int64_t b = 0; b < p.sequences; ++b) {
    for (int64_t i = p.cu_seqlens[b]; i < p.cu_seqlens[b + 1]; ++i) {
      if (is_masked(p, i)) continue;
      if (!rows.has_no_gradient(b, i)) {
        tokens[front++] = static_cast<int32_t>(i);
      } else if (!skip_zero_rows) {
        tokens[--back] = static_cast<int32_t>(i);
      } else if (skipped != nullptr) {
        skipped[i] = 1;
      }
    }
  }
  const int64_t zeros = p.tokens - back;
  std::reverse(tokens + back, tokens + p.tokens);
  std::memmove(tokens + front, tokens + back, static_cast<size_t>(zeros) * sizeof(int32_t));
  return {tokens, front, front + zeros};
}

rlsd_status score_view(rlsd_context* context, const rlsd_scores& s, const TokenIds& ids, const TokenOrder& order,
                       const RowOptions& options, const HeadChunk& chunk, float* log_probs) {
  if (s.level == RLSD_HIDDEN) {
    return head_log_probs(context, head_view(s), ids, order.tokens, order.count, options, chunk, log_probs, nullptr);
  }
  const LogitsView view = logits_view(s);
  return for_rows(context, order.count, view.columns, [&](int64_t i, int64_t) {
    const int64_t token = order.tokens[i];
    log_probs[token] = rounded(score_token(view, ids, token, options, nullptr).log_prob);
  });
}

rlsd_policy_batch without_heads(const rlsd_policy_batch& b, const float* teacher, const float* contrast) {
  rlsd_policy_batch batch = b;
  replace(&batch.teacher, teacher);
  replace(&batch.contrast, contrast);
  return batch;
}

}  // namespace rlsd::cpu
