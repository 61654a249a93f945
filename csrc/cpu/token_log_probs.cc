/* token_log_probs: log P of N tokens and the entropy of the distributions they were drawn from, one row a token. */
#include "cpu/token_log_probs.h"

#include <cmath>

#include "core/error.h"
#include "core/loss_arguments.h"
#include "cpu/logits_view.h"
#include "cpu/row_tasks.h"
#include "cpu/token_log_probs_head.h"
#include "cpu/workspace.h"

namespace rlsd::cpu {
namespace {

rlsd_status check_level(rlsd_context* context, const rlsd_token_log_probs_args& args) {
  if (args.scores.level == RLSD_LOGITS || args.scores.level == RLSD_HIDDEN) return RLSD_OK;
  return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected logits or hidden states for scores.");
}

void write_token(const rlsd_token_log_probs_args& args, int64_t i, const RowScore& score) {
  args.log_probs[i] = rounded(score.log_prob);
  if (args.entropy != nullptr) args.entropy[i] = rounded(score.entropy);
}

/* RLSD_NON_FINITE with the first bad token and how many, unless they are to be left as they are. */
rlsd_status report_bad(rlsd_context* context, const rlsd_token_log_probs_args& args) {
  int64_t first = -1, count = 0;
  for (int64_t i = 0; i < args.tokens; ++i) {
    if (std::isfinite(args.log_probs[i])) continue;
    if (first < 0) first = i;
    ++count;
  }
  if (count == 0 || args.non_finite_skip) return RLSD_OK;
  context->error_count = count;
  return fail(context, RLSD_NON_FINITE, first,
              "Expected finite log-probs at unmasked tokens but token %lld is not finite (%lld in all).",
              static_cast<long long>(first), static_cast<long long>(count));
}

rlsd_status from_logits(rlsd_context* context, const rlsd_token_log_probs_args& args) {
  Workspace w(context->workspace);
  const LogitsView view = logits_view(args.scores);
  int32_t* const owner = w.cut<int32_t>(view.rows);
  const TokenIds ids{args.tokens, args.token_ids, args.completion_mask};
  rlsd_status status = check_workspace(context, w.bytes());
  if (status == RLSD_OK) status = check_logits(context, "scores", view, ids, owner);
  if (status != RLSD_OK) return status;
  const RowOptions options = row_options(args.temperature, args.logit_softcap, args.logit_rounding_bf16 != 0);
  return for_rows(context, args.tokens, view.columns, [&](int64_t i, int64_t) {
    write_token(args, i, ids.masked(i) ? RowScore{} : score_token(view, ids, i, options, nullptr));
  });
}

}  // namespace

rlsd_status token_log_probs_workspace(rlsd_context* context, const rlsd_token_log_probs_args* args, uint64_t* bytes) {
  const rlsd_status status = check_level(context, *args);
  if (status != RLSD_OK) return status;
  if (args->scores.level == RLSD_HIDDEN) return token_log_probs_head_workspace(context, *args, bytes);
  Workspace w(nullptr);
  w.cut<int32_t>(args->scores.logits.shape[0]);
  *bytes = w.bytes();
  return RLSD_OK;
}

rlsd_status token_log_probs(rlsd_context* context, const rlsd_token_log_probs_args* args) {
  rlsd_status status = check_level(context, *args);
  if (status != RLSD_OK) return status;
  const WrongArgument wrong = wrong_token_arguments(*args);
  if (wrong.format != nullptr) return refuse(context, wrong);
  status = args->scores.level == RLSD_HIDDEN ? token_log_probs_head(context, *args) : from_logits(context, *args);
  return status == RLSD_OK ? report_bad(context, *args) : status;
}

}  // namespace rlsd::cpu
