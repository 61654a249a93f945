/* The training step: one call accumulates a batch's gradient, another applies it. */
#ifndef RLSD_MODEL_TRAIN_H_
#define RLSD_MODEL_TRAIN_H_

#include "model/batch.h"

namespace rlsd::model {

/* What a policy loss reads beside the tokens: host arrays of N (advantages: of B unless per_token),
 * NULL: absent. */
struct LossInputs {
  const float* advantages;
  bool advantages_per_token;
  const uint8_t *completion_mask, *span_mask;
  const float *teacher, *contrast, *old, *reference, *sampler;
};

/* Host arrays of N, and RLSD_STAT_COUNT statistics. teacher may be NULL. */
struct LossOutputs {
  float *log_probs, *teacher, *token_advantages, *evidence_weights, *gradient;
  double* stats;
};

/* Adds loss_scale dL/dw to the gradient. A batch of more than batch_tokens rows is run in two
 * passes over micro-batches: log-probs first, so that the loss sees the whole batch, then
 * gradients. On any failure the accumulated gradient is cleared. */
rlsd_status accumulate(Model* model, const Sequences& sequences, const rlsd_objective& objective,
                       const LossInputs& inputs, double loss_scale, const LossOutputs& outputs);

/* A distribution-matching loss to another model of the same vocabulary: the same completions after
 * both prompts. `options` carries the choices; its tensors and arrays are filled in here. stats:
 * RLSD_DISTILL_STATS. */
rlsd_status accumulate_distillation(Model* model, Model* teacher,
                                    const Sequences& student_sequences,
                                    const Sequences& teacher_sequences,
                                    const uint8_t* completion_mask,
                                    const rlsd_distill_args& options, float* token_losses,
                                    double* stats);

struct StepOptions {
  double learning_rate, weight_decay, beta1, beta2, eps, max_gradient_norm;
};

/* One AdamW update from the accumulated gradient, which it clears. A norm that is not finite
 * changes nothing else. */
rlsd_status step(Model* model, const StepOptions& options, double* gradient_norm, bool* skipped);

}  // namespace rlsd::model

#endif
