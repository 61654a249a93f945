/* token_log_probs: log P of N tokens and the entropy of the distributions they were drawn from, one row a token.
 * Each row is read once; nothing of size (N, V) is made. */
#include "core/loss_arguments.h"
#include "cuda/dispatch.h"
#include "cuda/losses.h"

namespace rlsd::cuda {
namespace {

struct Arrays {
  Control* control;
  rlsd_outcome* outcome;
  int32_t* owner; /* (rows) */
  RowTask* tasks; /* (rows) */
};

uint64_t cut_arrays(const rlsd_token_log_probs_args& args, void* base, Arrays* a) {
  Workspace w(base);
  a->control = w.cut<Control>(1);
  a->outcome = w.cut<rlsd_outcome>(1);
  a->owner = w.cut<int32_t>(args.scores.logits.shape[0]);
  a->tasks = w.cut<RowTask>(args.scores.logits.shape[0]);
  return w.bytes();
}

rlsd_status check_level(rlsd_context* context, const rlsd_token_log_probs_args& args) {
  if (args.scores.level == RLSD_LOGITS) return RLSD_OK;
  return fail(context, RLSD_UNSUPPORTED, -1, "token_log_probs of the cuda backend takes logits.");
}

RowCall row_call(const rlsd_token_log_probs_args& args, const View& view, const Arrays& a) {
  RowCall call{};
  call.p.tokens = args.tokens;
  call.p.completion_mask = args.completion_mask;
  call.options = row_options(args.temperature, args.logit_softcap, args.logit_rounding_bf16);
  call.views[kStudent] = view;
  call.views[kStudent].owner = a.owner;
  call.views[kStudent].log_probs = args.log_probs;
  call.token_ids = args.token_ids;
  call.control = a.control;
  call.tasks = a.tasks;
  call.entropy = args.entropy;
  call.rows = view.rows;
  call.mode = RowMode::kScore;
  return call;
}

/* Of a call that has nothing to do; NULL: it waits, and has. */
rlsd_status clear_outcome(rlsd_context* context, rlsd_outcome* outcome) {
  static_assert(RLSD_OK == 0 && static_cast<int>(Reason::kNone) == 0, "all zeros say that nothing is wrong");
  if (outcome == nullptr) return RLSD_OK;
  return on_device(context, [&] {
    return to_status(context, cudaMemsetAsync(outcome, 0, sizeof(*outcome), stream_of(context)), "Could not clear memory");
  });
}

}  // namespace

rlsd_status token_log_probs_workspace(rlsd_context* context, const rlsd_token_log_probs_args* args, uint64_t* bytes) {
  const rlsd_status status = check_level(context, *args);
  if (status != RLSD_OK) return status;
  Arrays a;
  *bytes = cut_arrays(*args, nullptr, &a);
  return RLSD_OK;
}

rlsd_status token_log_probs(rlsd_context* context, const rlsd_token_log_probs_args* args) {
  Arrays a;
  const WrongArgument wrong = wrong_token_arguments(*args);
  if (wrong.format != nullptr) return refuse(context, wrong);
  rlsd_status status = check_level(context, *args);
  if (status == RLSD_OK) status = require(context, Kernel::kPlainRows);
  if (status == RLSD_OK) status = check_workspace(context, cut_arrays(*args, context->workspace, &a));
  if (status != RLSD_OK) return status;
  const View view = view_of(args->scores);
  status = check_view(context, "scores", view, args->tokens, args->token_ids);
  if (status != RLSD_OK) return status;
  if (args->tokens == 0) return clear_outcome(context, args->outcome);
  rlsd_outcome* const outcome = args->outcome != nullptr ? args->outcome : a.outcome;
  return on_device(context, [&]() -> rlsd_status {
    const RowCall call = row_call(*args, view, a);
    RLSD_CUDA_CHECK(context, cudaMemsetAsync(a.control, 0xFF, sizeof(Control), stream_of(context)),
                    "Could not clear the workspace");
    rlsd_status enqueued = launch_claims(context, call, outcome);
    if (enqueued == RLSD_OK) enqueued = launch_plain_rows(context, call); /* read once: nothing to keep on the chip */
    if (enqueued == RLSD_OK) enqueued = launch_row_outcome(context, call, args->non_finite_skip != 0, outcome);
    if (enqueued != RLSD_OK || args->outcome != nullptr) return enqueued;
    return await_outcome(context, outcome);
  });
}

}  // namespace rlsd::cuda
