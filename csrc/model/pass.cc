#include "model/pass.h"

#include <cstring>

#include "model/shared_rows.h"

namespace rlsd::model {

/* Ids, positions and offsets into the model's integers. */
rlsd_status Pass::place(const MicroBatch& m, bool gradients) {
  const SharedRows s = share_rows(m);
  const bool shares = s.distinct() < s.packed();
  std::vector<int32_t> predictors, host;
  for (const int32_t row : m.rows) predictors.push_back(s.distinct_of[static_cast<size_t>(row)]);
  using Part = const std::vector<int32_t>*;
  for (const Part part : {Part{&s.ids}, Part{&s.positions}, Part{&m.cu_seqlens}, Part{&predictors},
                          Part{&s.cu_queries}, Part{&s.distinct_of}}) {
    host.insert(host.end(), part->begin(), part->end());
  }
  const uint64_t bytes = host.size() * sizeof(int32_t);
  RLSD_CHECK(m_->device.reserve(&m_->integers, bytes, "Token ids"));
  const int32_t* at = m_->integers.ints();
  RLSD_CHECK(m_->device.upload(m_->integers.ints(), host.data(), bytes));
  const int64_t u = s.distinct(), offsets = m.sequences() + 1;
  targets_ = m.target_count();
  rows_ = {at, at + u, at + 2 * u, u, m.sequences(), {}};
  predictors_ = rows_.cu_seqlens + offsets;
  hidden_ = d_hidden_ = nullptr;
  if (!shares) return RLSD_OK;
  rows_.shared.cu_queries = predictors_ + targets_;
  rows_.shared.row_of = rows_.shared.cu_queries + offsets;
  rows_.shared.count = s.packed();
  return make_copies(rows_, gradients);
}

/* Room for what is there once for every sequence: keys, values and predicting hidden states. */
rlsd_status Pass::make_copies(const DeviceRows& rows, bool gradients) {
  const int64_t keys = rows.shared.count * m_->config.kv_width(), hidden = targets_ * width();
  const auto bytes = [](int64_t floats) {
    return Staging::padded(static_cast<uint64_t>(floats) * sizeof(float));
  };
  Staging copies(&m_->device, &m_->copies);
  RLSD_CHECK(copies.reserve((gradients ? 2 : 1) * (2 * bytes(keys) + bytes(hidden))));
  rows_.shared.k = copies.take<float>(keys);
  rows_.shared.v = copies.take<float>(keys);
  hidden_ = copies.take<float>(hidden);
  if (!gradients) return RLSD_OK;
  rows_.shared.dk = copies.take<float>(keys);
  rows_.shared.dv = copies.take<float>(keys);
  d_hidden_ = copies.take<float>(hidden);
  return RLSD_OK;
}

rlsd_status Pass::forward(const MicroBatch& m, bool gradients) {
  RLSD_CHECK(place(m, gradients));
  RLSD_CHECK(model::forward(m_, rows_, gradients, &m_->activations));
  if (hidden_ == nullptr) return RLSD_OK;
  return m_->device.gather(matrix(hidden_, targets_, width()),
                           matrix(m_->activations.hidden, rows_.rows, width()), predictors_);
}

rlsd_scores Pass::scores() const {
  rlsd_scores scores;
  std::memset(&scores, 0, sizeof(scores));
  scores.level = RLSD_HIDDEN;
  scores.head = m_->head();
  scores.vocab_size = m_->config.vocab;
  if (hidden_ != nullptr) {
    scores.hidden = matrix(hidden_, targets_, width());
  } else {
    scores.hidden = matrix(m_->activations.hidden, rows_.rows, width());
    scores.rows = predictors_;
  }
  return scores;
}

rlsd_tensor Pass::hidden_gradient() const {
  if (hidden_ != nullptr) return matrix(d_hidden_, targets_, width());
  return matrix(m_->activations.d_hidden, rows_.rows, width());
}

rlsd_status Pass::backward() {
  if (hidden_ != nullptr) {
    RLSD_CHECK(m_->device.scatter(matrix(m_->activations.d_hidden, rows_.rows, width()),
                                  hidden_gradient(), predictors_));
  }
  return model::backward(m_, rows_, &m_->activations);
}

}  // namespace rlsd::model
