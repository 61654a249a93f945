/* One batch's gradient. The loss reads hidden states, so that logits exist only inside it. */
#include <cmath>
#include <cstring>

#include "model/pass.h"
#include "model/train.h"

namespace rlsd::model {
namespace {

/* The batch's arrays on the device, and where the loss writes. */
struct DeviceLoss {
  rlsd_policy_batch batch;
  rlsd_policy_outputs outputs;
};

class Accumulation {
 public:
  Accumulation(Model* model, const Sequences& sequences, const rlsd_objective& objective,
               const LossInputs& inputs, double loss_scale, const LossOutputs& outputs)
      : m_(model),
        device_(model->device),
        objective_(objective),
        in_(inputs),
        out_(outputs),
        loss_scale_(loss_scale),
        micro_(split(sequences, model->batch_tokens)),
        pass_(model),
        staging_(&model->device, &model->scores) {
    for (const MicroBatch& m : micro_) {
      targets_.insert(targets_.end(), m.targets.begin(), m.targets.end());
      for (size_t i = 1; i < m.cu_targets.size(); ++i) {
        cu_.push_back(static_cast<int32_t>(m.first_target) + m.cu_targets[i]);
      }
    }
  }

  rlsd_status run() {
    RLSD_CHECK(stage());
    if (m_->gradient.empty()) RLSD_CHECK(check_batch());
    RLSD_CHECK(m_->need_gradient());
    if (targets_.empty()) {
      RLSD_CHECK(loss_from_log_probs(objective_));
      return download();
    }
    return micro_.size() == 1 ? one_pass() : two_passes();
  }

 private:
  int64_t tokens() const { return static_cast<int64_t>(targets_.size()); }
  int64_t sequences() const { return static_cast<int64_t>(cu_.size()) - 1; }

  rlsd_status stage() {
    const int64_t n = tokens(), b = sequences();
    const uint64_t array = Staging::padded(static_cast<uint64_t>(n > b ? n : b) * 4 + 4);
    RLSD_CHECK(staging_.reserve(18 * array + Staging::padded(RLSD_STAT_COUNT * sizeof(double))));
    std::memset(&loss_, 0, sizeof(loss_));
    rlsd_policy_batch& batch = loss_.batch;
    batch.tokens = n;
    batch.sequences = b;
    batch.advantages_per_token = in_.advantages_per_token;
    RLSD_CHECK(staging_.put(targets_.data(), n, &batch.token_ids));
    RLSD_CHECK(staging_.put(cu_.data(), b + 1, &batch.cu_seqlens));
    RLSD_CHECK(staging_.put(in_.completion_mask, n, &batch.completion_mask));
    RLSD_CHECK(staging_.put(in_.span_mask, n, &batch.span_mask));
    RLSD_CHECK(staging_.put(in_.advantages, in_.advantages_per_token ? n : b, &batch.advantages));
    RLSD_CHECK(staging_.put(in_.old, n, &batch.old_log_probs));
    RLSD_CHECK(staging_.put(in_.reference, n, &batch.ref_log_probs));
    RLSD_CHECK(staging_.put(in_.sampler, n, &batch.sampler_log_probs));
    RLSD_CHECK(stage_log_probs(in_.teacher, &batch.teacher));
    RLSD_CHECK(stage_log_probs(in_.contrast, &batch.contrast));
    rlsd_policy_outputs& o = loss_.outputs;
    o.log_probs = staging_.take<float>(n);
    o.teacher_log_probs = in_.teacher != nullptr ? staging_.take<float>(n) : nullptr;
    o.token_advantages = staging_.take<float>(n);
    o.evidence_weights = staging_.take<float>(n);
    o.gradient_log_probs = staging_.take<float>(n);
    o.stats = staging_.take<double>(RLSD_STAT_COUNT);
    o.loss_scale = loss_scale_;
    o.accumulate = 1;
    o.clear_other_rows = 1;
    whole_ = staging_.take<int32_t>(2);
    unread_ = staging_.take<float>(n);
    entropy_ = staging_.take<float>(n);
    return RLSD_OK;
  }

  rlsd_status stage_log_probs(const float* host, rlsd_scores* scores) {
    scores->level = host != nullptr ? RLSD_LOG_PROBS : RLSD_ABSENT;
    return staging_.put(host, tokens(), &scores->log_probs);
  }

  rlsd_status call_loss(const rlsd_policy_batch& batch, const rlsd_objective& o,
                        const rlsd_policy_outputs& outputs) {
    uint64_t bytes = 0;
    RLSD_CHECK(
        device_.table().policy_loss_workspace(device_.context(), &batch, &o, &outputs, &bytes));
    RLSD_CHECK(device_.workspace(bytes));
    return device_.table().policy_loss(device_.context(), &batch, &o, &outputs);
  }

  void want_gradients(rlsd_policy_outputs* o) {
    o->gradient_hidden = pass_.hidden_gradient();
    o->gradient_head = m_->head_gradient();
  }

  rlsd_status one_pass() {
    RLSD_CHECK(pass_.forward(micro_[0], true));
    loss_.batch.student = pass_.scores();
    want_gradients(&loss_.outputs);
    RLSD_CHECK(call_loss(loss_.batch, objective_, loss_.outputs));
    RLSD_CHECK(download());
    return pass_.backward();
  }

  /* What the loss refuses of the batch whatever the log-probs, before memory is taken for training
   * and the weights are widened. */
  rlsd_status check_batch() {
    RLSD_CHECK(check_passes());
    RLSD_CHECK(device_.zero(loss_.outputs.log_probs, tokens()));
    rlsd_objective o = objective_;
    o.entropy_coef = 0.0;
    o.non_finite_skip = 1;
    return loss_from_log_probs(o);
  }

  rlsd_status check_passes() {
    if (objective_.entropy_coef != 0.0 && micro_.size() > 1) {
      return device_.fail(
          RLSD_UNSUPPORTED,
          "An entropy bonus needs the whole batch in one pass, but it has more than %lld input "
          "tokens: "
          "raise batchTokens or send smaller batches with the normalizer of the whole.",
          static_cast<long long>(m_->batch_tokens));
    }
    return RLSD_OK;
  }

  rlsd_status two_passes() {
    RLSD_CHECK(check_passes());
    for (const MicroBatch& m : micro_) RLSD_CHECK(log_probs_of(m));
    RLSD_CHECK(loss_from_log_probs(objective_));
    RLSD_CHECK(download());
    RLSD_CHECK(mean_entropy());
    for (const MicroBatch& m : micro_) RLSD_CHECK(gradient_of(m));
    return RLSD_OK;
  }

  rlsd_status log_probs_of(const MicroBatch& m) {
    if (m.targets.empty()) return RLSD_OK;
    RLSD_CHECK(pass_.forward(m, false));
    rlsd_token_log_probs_args args;
    std::memset(&args, 0, sizeof(args));
    args.scores = pass_.scores();
    args.tokens = m.target_count();
    args.token_ids = loss_.batch.token_ids + m.first_target;
    if (in_.completion_mask != nullptr)
      args.completion_mask = loss_.batch.completion_mask + m.first_target;
    args.temperature = objective_.temperature;
    args.logit_softcap = objective_.logit_softcap;
    args.logit_rounding_bf16 = objective_.logit_rounding_bf16;
    args.non_finite_skip = 1; /* the loss itself reports them */
    args.log_probs = loss_.outputs.log_probs + m.first_target;
    args.entropy = entropy_ + m.first_target;
    uint64_t bytes = 0;
    RLSD_CHECK(device_.table().token_log_probs_workspace(device_.context(), &args, &bytes));
    RLSD_CHECK(device_.workspace(bytes));
    return device_.table().token_log_probs(device_.context(), &args);
  }

  /* The loss of the whole batch; gradient_log_probs then says what each token's log-prob is worth.
   */
  rlsd_status loss_from_log_probs(const rlsd_objective& o) {
    rlsd_policy_batch batch = loss_.batch;
    std::memset(&batch.student, 0, sizeof(batch.student));
    batch.student.level = RLSD_LOG_PROBS;
    batch.student.log_probs = loss_.outputs.log_probs;
    return call_loss(batch, o, loss_.outputs);
  }

  /* Gradient of sum over the micro-batch's targets of gradient_log_probs log P. */
  rlsd_status gradient_of(const MicroBatch& m) {
    if (m.targets.empty()) return RLSD_OK;
    RLSD_CHECK(pass_.forward(m, true));
    rlsd_policy_batch batch;
    std::memset(&batch, 0, sizeof(batch));
    batch.student = pass_.scores();
    const int32_t whole[] = {0, static_cast<int32_t>(m.target_count())};
    RLSD_CHECK(device_.upload(whole_, whole, sizeof(whole)));
    batch.tokens = m.target_count();
    batch.sequences = 1;
    batch.cu_seqlens = whole_;
    batch.token_ids = loss_.batch.token_ids + m.first_target;
    batch.advantages = loss_.outputs.gradient_log_probs + m.first_target;
    batch.advantages_per_token = 1;
    if (in_.completion_mask != nullptr)
      batch.completion_mask = loss_.batch.completion_mask + m.first_target;
    rlsd_objective o = objective_;
    o.surrogate = RLSD_ROW_COEFFICIENT;
    o.reduction = RLSD_TOKEN_SUM;
    o.normalizer = 0.0;
    o.kl_coef = 0.0;
    o.importance = RLSD_IMPORTANCE_NONE;
    o.non_finite_skip = 1; /* the first pass has reported them */
    rlsd_policy_outputs outputs = loss_.outputs;
    outputs.log_probs = outputs.token_advantages = outputs.evidence_weights = unread_;
    outputs.gradient_log_probs = unread_;
    outputs.teacher_log_probs = nullptr;
    outputs.skip_zero_rows = 1;
    outputs.loss_scale = 1.0;
    want_gradients(&outputs);
    RLSD_CHECK(call_loss(batch, o, outputs));
    return pass_.backward();
  }

  /* Whether the loss has an unmasked token: each of its log-probs is finite. */
  bool was_read(size_t i) const {
    if (in_.completion_mask != nullptr && in_.completion_mask[i] == 0) return false;
    const float* const all[] = {out_.log_probs, in_.old, in_.reference, in_.sampler};
    for (const float* scores : all) {
      if (scores != nullptr && !std::isfinite(scores[i])) return false;
    }
    return true;
  }

  /* A loss from log-probs has no entropy: its mean is taken here, over the tokens that the loss has
   * read. */
  rlsd_status mean_entropy() {
    std::vector<float> entropy(targets_.size());
    RLSD_CHECK(device_.download(entropy.data(), entropy_, entropy.size() * sizeof(float)));
    double sum = 0.0, count = 0.0;
    for (size_t i = 0; i < entropy.size(); ++i) {
      if (!was_read(i)) continue;
      sum += static_cast<double>(entropy[i]);
      count += 1.0;
    }
    out_.stats[RLSD_STAT_ENTROPY_MEAN] = count > 0.0 ? sum / count : NAN;
    return RLSD_OK;
  }

  rlsd_status download() {
    const uint64_t bytes = targets_.size() * sizeof(float);
    const rlsd_policy_outputs& o = loss_.outputs;
    RLSD_CHECK(device_.download(out_.log_probs, o.log_probs, bytes));
    if (o.teacher_log_probs != nullptr)
      RLSD_CHECK(device_.download(out_.teacher, o.teacher_log_probs, bytes));
    RLSD_CHECK(device_.download(out_.token_advantages, o.token_advantages, bytes));
    RLSD_CHECK(device_.download(out_.evidence_weights, o.evidence_weights, bytes));
    RLSD_CHECK(device_.download(out_.gradient, o.gradient_log_probs, bytes));
    return device_.download(out_.stats, o.stats, RLSD_STAT_COUNT * sizeof(double));
  }

  Model* m_;
  Device& device_;
  const rlsd_objective& objective_;
  const LossInputs& in_;
  const LossOutputs& out_;
  const double loss_scale_;
  const std::vector<MicroBatch> micro_;
  std::vector<int32_t> targets_, cu_ = {0};
  Pass pass_;
  Staging staging_;
  DeviceLoss loss_;
  int32_t* whole_ = nullptr; /* (2) one sequence of all targets */
  float* unread_ = nullptr;  /* (N) results of the second pass */
  float* entropy_ = nullptr; /* (N) from the first pass */
};

}  // namespace

rlsd_status accumulate(Model* model, const Sequences& sequences, const rlsd_objective& objective,
                       const LossInputs& inputs, double loss_scale, const LossOutputs& outputs) {
  const rlsd_status status =
      Accumulation(model, sequences, objective, inputs, loss_scale, outputs).run();
  /* Part of the gradient may have been added: an optimizer must not see it. */
  if (status != RLSD_OK) model->clear_gradient();
  return status;
}

}  // namespace rlsd::model
