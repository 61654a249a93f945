/* policy_loss at the level of log-probs and of logits: what is enqueued, in which order.
 *
 * log-probs   one kernel: csrc/cuda/policy_tokens.cu.
 * logits      claims (ids and rows are checked), terms (sequences), rows (log-probs and the gradient), the same pass
 *             over the tokens as above. Objectives whose coefficient depends on other rows of the sequence score every
 *             row first and read the student again for the gradient; the second score has the bits of the first.
 * Nothing waits unless the caller gives no place for the outcome. */
#include <algorithm>

#include "core/loss_arguments.h"
#include "cuda/dispatch.h"
#include "cuda/losses.h"
#include "cuda/policy_tokens.h"

namespace rlsd::cuda {
namespace {

/* The workspace's arrays. Those of a view are NULL where the caller gave a place or the view is log-probs. */
struct Arrays {
  Control* control;
  rlsd_outcome* outcome;
  PolicySums* parts;
  SequenceTerms* terms; /* (B) */
  RowTask* tasks;       /* (rows of the student, or N) */
  int32_t* owners[kViews];
  float* log_probs[kViews]; /* (N) */
  float* entropy;
  uint8_t* skipped;
};

const rlsd_scores& scores_of(const rlsd_policy_batch& b, int view) {
  return view == kStudent ? b.student : view == kTeacher ? b.teacher : b.contrast;
}

const char* name_of_view(int view) { return view == kStudent ? "student" : view == kTeacher ? "teacher" : "contrast"; }

bool is_logits(const rlsd_policy_batch& b, int view) { return scores_of(b, view).level == RLSD_LOGITS; }

int32_t highest_level(const rlsd_policy_batch& b) {
  return std::max({b.student.level, b.teacher.level, b.contrast.level});
}

int64_t loop_rows(const rlsd_policy_batch& b) {
  return is_logits(b, kStudent) ? b.student.logits.shape[0] : b.tokens;
}

float* given_place(const rlsd_policy_outputs& out, int view) {
  return view == kStudent ? out.log_probs : view == kTeacher ? out.teacher_log_probs : nullptr;
}

uint64_t cut_arrays(const rlsd_policy_batch& b, const rlsd_policy_outputs& out, void* base, Arrays* a) {
  Workspace w(base);
  *a = Arrays{};
  a->control = w.cut<Control>(1);
  a->outcome = w.cut<rlsd_outcome>(1);
  a->parts = w.cut<PolicySums>(kPassBlocks);
  if (highest_level(b) < RLSD_LOGITS) return w.bytes();
  a->terms = w.cut<SequenceTerms>(b.sequences);
  a->tasks = w.cut<RowTask>(loop_rows(b));
  for (int view = 0; view < kViews; ++view) {
    if (!is_logits(b, view)) continue;
    a->owners[view] = w.cut<int32_t>(scores_of(b, view).logits.shape[0]);
    a->log_probs[view] = given_place(out, view);
    if (a->log_probs[view] == nullptr) a->log_probs[view] = w.cut<float>(b.tokens);
  }
  if (is_logits(b, kStudent)) {
    a->entropy = w.cut<float>(b.tokens);
    a->skipped = w.cut<uint8_t>(b.tokens);
  }
  return w.bytes();
}

rlsd_status check_level(rlsd_context* context, const rlsd_policy_batch& b) {
  const bool served = b.student.level >= RLSD_LOG_PROBS && highest_level(b) <= RLSD_LOGITS;
  if (served) return RLSD_OK;
  return fail(context, RLSD_UNSUPPORTED, -1, "policy_loss of the cuda backend takes log-probs and logits.");
}

RowCall row_call(const rlsd_policy_batch& b, const rlsd_objective& o, const rlsd_policy_outputs& out, const Arrays& a,
                 const View* views) {
  RowCall call{};
  call.p = policy_tokens(b);
  for (int view = 0; view < kViews; ++view) {
    if (!is_logits(b, view)) continue;
    call.views[view] = views[view];
    call.views[view].owner = a.owners[view];
    call.views[view].log_probs = a.log_probs[view];
  }
  if (is_logits(b, kStudent)) call.p.log_probs = a.log_probs[kStudent];
  if (is_logits(b, kTeacher)) call.p.teacher = a.log_probs[kTeacher];
  if (is_logits(b, kContrast)) call.p.contrast = a.log_probs[kContrast];
  call.p.entropy = a.entropy;
  call.p.skipped = a.skipped;
  call.o = o;
  call.options = row_options(o.temperature, o.logit_softcap, o.logit_rounding_bf16);
  call.token_ids = b.token_ids;
  call.control = a.control;
  call.terms = a.terms;
  call.tasks = a.tasks;
  call.skipped = a.skipped;
  call.entropy = a.entropy;
  if (is_logits(b, kStudent)) {
    call.gradient = static_cast<char*>(out.gradient_logits.data);
    call.gradient_stride = out.gradient_logits.stride[0] * element_bytes(out.gradient_logits.dtype);
    call.gradient_aligned = has_aligned_rows(call.gradient, call.gradient_stride);
  }
  call.loss_scale = out.loss_scale;
  call.rows = loop_rows(b);
  call.skip_zero_rows = out.skip_zero_rows != 0;
  call.clear_other_rows = out.clear_other_rows != 0;
  call.whole_sequences = needs_whole_sequence(o, call.p.teacher != nullptr, call.p.sampler_log_probs != nullptr);
  return call;
}

/* Allows the plain kernel, where rows are not kept. */
rlsd_status require_plain_rows(rlsd_context* context, const RowCall& call) {
  const rlsd_status status = refuse_plain_rows(context, call.preferred_cluster);
  return status == RLSD_OK ? require(context, Kernel::kPlainRows) : status;
}

/* Which kernel the rows get: decided before anything is enqueued. */
rlsd_status plan_rows(rlsd_context* context, RowCall* call) {
  if (call->gradient != nullptr && may_use_resident_rows(context)) {
    const rlsd_status status = plan_resident_rows(context, call);
    if (status != RLSD_OK) return status;
  }
  return call->cluster > 0 ? RLSD_OK : require_plain_rows(context, *call);
}

rlsd_status launch_rows(rlsd_context* context, RowCall* call) {
  if (call->cluster > 0) {
    rlsd_status status = launch_resident_rows(context, call);
    if (status == RLSD_OK && call->cluster == 0) status = require_plain_rows(context, *call);
    if (status != RLSD_OK || call->cluster > 0) return status;
  }
  return launch_plain_rows(context, *call);
}

/* The rows, in one kernel or, under whole-sequence objectives, in two with the means between them. */
rlsd_status enqueue_rows(rlsd_context* context, RowCall* call) {
  if (call->gradient != nullptr && !call->whole_sequences) {
    call->mode = RowMode::kScoreAndGradient;
    return launch_rows(context, call);
  }
  call->mode = RowMode::kScore;
  rlsd_status status = launch_rows(context, call);
  if (status != RLSD_OK || call->gradient == nullptr) return status;
  status = launch_means(context, *call);
  call->mode = RowMode::kGradient;
  return status == RLSD_OK ? launch_rows(context, call) : status;
}

rlsd_status enqueue_log_probs(rlsd_context* context, const rlsd_policy_batch& b, const rlsd_objective& o,
                              const rlsd_policy_outputs& out, const Arrays& a, rlsd_outcome* outcome) {
  PolicyTokens tokens = policy_tokens(b);
  tokens.credit_only = out.gradient_log_probs == nullptr;
  return launch_policy_tokens(context, tokens, o, out, a.control, a.parts, outcome, false);
}

rlsd_status enqueue_logits(rlsd_context* context, const rlsd_policy_batch& b, const rlsd_objective& o,
                           const rlsd_policy_outputs& out, const Arrays& a, const View* views, rlsd_outcome* outcome) {
  RowCall call = row_call(b, o, out, a, views);
  rlsd_status status = plan_rows(context, &call);
  if (status != RLSD_OK) return status;
  RLSD_CUDA_CHECK(context, cudaMemsetAsync(a.control, 0xFF, sizeof(Control), stream_of(context)),
                  "Could not clear the workspace");
  RowCall claims = call;
  claims.p.log_probs = nullptr; /* none is written yet: terms without means */
  status = launch_claims(context, claims, outcome);
  if (status == RLSD_OK) status = enqueue_rows(context, &call);
  if (status != RLSD_OK) return status;
  return launch_policy_tokens(context, call.p, o, out, a.control, a.parts, outcome, true);
}

/* What the host can check before anything is enqueued; the views of those that are logits. */
rlsd_status check_call(rlsd_context* context, const rlsd_policy_batch& b, const rlsd_objective& o,
                       const rlsd_policy_outputs& out, View* views) {
  const WrongArgument wrong = wrong_policy_arguments(b, o, out);
  if (wrong.format != nullptr) return refuse(context, wrong);
  rlsd_status status = check_level(context, b);
  if (status == RLSD_OK) status = require(context, Kernel::kTokens);
  for (int view = 0; view < kViews && status == RLSD_OK; ++view) {
    if (!is_logits(b, view)) continue;
    views[view] = view_of(scores_of(b, view));
    status = check_view(context, name_of_view(view), views[view], b.tokens, b.token_ids);
  }
  return status;
}

}  // namespace

rlsd_status policy_loss_workspace(rlsd_context* context, const rlsd_policy_batch* batch, const rlsd_objective*,
                                  const rlsd_policy_outputs* outputs, uint64_t* bytes) {
  const rlsd_status status = check_level(context, *batch);
  if (status != RLSD_OK) return status;
  Arrays arrays;
  *bytes = cut_arrays(*batch, *outputs, nullptr, &arrays);
  return RLSD_OK;
}

rlsd_status policy_loss(rlsd_context* context, const rlsd_policy_batch* batch, const rlsd_objective* objective,
                        const rlsd_policy_outputs* outputs) {
  const rlsd_policy_batch& b = *batch;
  const rlsd_policy_outputs& out = *outputs;
  Arrays a{};
  View views[kViews]{};
  rlsd_status status = check_call(context, b, *objective, out, views);
  if (status == RLSD_OK) status = check_workspace(context, cut_arrays(b, out, context->workspace, &a));
  if (status != RLSD_OK) return status;
  rlsd_outcome* const outcome = out.outcome != nullptr ? out.outcome : a.outcome;
  return on_device(context, [&]() -> rlsd_status {
    const rlsd_status enqueued = highest_level(b) < RLSD_LOGITS
                                     ? enqueue_log_probs(context, b, *objective, out, a, outcome)
                                     : enqueue_logits(context, b, *objective, out, a, views, outcome);
    if (enqueued != RLSD_OK || out.outcome != nullptr) return enqueued;
    return await_outcome(context, outcome);
  });
}

rlsd_status policy_loss_rows(rlsd_context* context, const rlsd_policy_batch* batch, const rlsd_objective* objective,
                             const rlsd_policy_outputs* outputs, rlsd_rows* rows) {
  View views[kViews]{};
  rlsd_status status = check_call(context, *batch, *objective, *outputs, views);
  if (status != RLSD_OK) return status;
  *rows = {rows->struct_size, RLSD_ROWS_NONE, 0, 0, 0, 0};
  if (highest_level(*batch) < RLSD_LOGITS) return RLSD_OK;
  RowCall call = row_call(*batch, *objective, *outputs, Arrays{}, views);
  status = on_device(context, [&] { return plan_rows(context, &call); });
  const bool kept = call.cluster > 0;
  if (status == RLSD_OK) {
    *rows = {rows->struct_size, kept ? RLSD_ROWS_RESIDENT : RLSD_ROWS_PLAIN, kept ? call.cluster : 1,
             call.preferred_cluster, call.rows_at_once, 0};
  }
  return status;
}

}  // namespace rlsd::cuda
