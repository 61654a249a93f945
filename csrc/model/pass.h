/* A micro-batch's way through a model: forward, the hidden states that a loss reads, backward.
 * Sequences that begin alike are computed together up to where they part (shared_rows.h). */
#ifndef RLSD_MODEL_PASS_H_
#define RLSD_MODEL_PASS_H_

#include <cstdint>

#include "model/batch.h"

namespace rlsd::model {

/* One pass of a model at a time: it works in the model's memory. */
class Pass {
 public:
  explicit Pass(Model* model) : m_(model) {}

  /* With gradients, what the backward pass needs is kept. */
  rlsd_status forward(const MicroBatch& batch, bool gradients);
  /* The view of the targets: hidden states, head, rows. */
  rlsd_scores scores() const;
  /* Where a loss writes the gradient of those hidden states; rows that it does not name become 0.
   */
  rlsd_tensor hidden_gradient() const;
  /* Adds to every parameter's gradient. */
  rlsd_status backward();

 private:
  rlsd_status place(const MicroBatch& batch, bool gradients);
  rlsd_status make_copies(const DeviceRows& rows, bool gradients);
  int64_t width() const { return m_->config.hidden; }

  Model* m_;
  DeviceRows rows_ = {};
  int64_t targets_ = 0;
  const int32_t* predictors_ = nullptr; /* (n): the row that predicts each target */
  /* (n, H): a row that sequences share may predict several targets. NULL: none is shared, and the
   * loss reads the rows themselves. */
  float *hidden_ = nullptr, *d_hidden_ = nullptr;
};

}  // namespace rlsd::model

#endif
