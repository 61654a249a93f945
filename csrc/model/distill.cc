/* Distribution matching: the student's distribution of each completion token against that of a
 * teacher model, which may read another prompt. Both sides are hidden states and heads, so that
 * neither's logits exist as a whole. */
#include <algorithm>
#include <cstring>

#include "model/non_finite.h"
#include "model/pass.h"
#include "model/train.h"

namespace rlsd::model {
namespace {

constexpr int kTokens = 0, kSequences = 1, kLoss = 2, kMean = 3, kNonFinite = 4,
              kClamped = 5; /* of the statistics */

class Distillation {
 public:
  Distillation(Model* student, Model* teacher, const uint8_t* mask,
               const rlsd_distill_args& options, float* token_losses, double* stats)
      : m_(student),
        teacher_(teacher),
        device_(student->device),
        mask_(mask),
        options_(options),
        token_losses_(token_losses),
        stats_(stats),
        staging_(&student->device, &student->scores) {}

  rlsd_status run(const Sequences& student, const Sequences& teacher) {
    if (device_.table().distill_loss == nullptr ||
        device_.table().distill_loss_workspace == nullptr) {
      return device_.fail(RLSD_UNSUPPORTED, "The backend \"%s\" has no distill_loss.",
                          device_.table().name);
    }
    RLSD_CHECK(m_->need_gradient());
    std::fill(stats_, stats_ + RLSD_DISTILL_STATS, 0.0);
    set_normalizer(student);
    for (const MicroBatch& m : split(student, m_->batch_tokens, &teacher)) {
      RLSD_CHECK(micro_batch(m, gather(teacher, m.first_sequence, m.sequences(), m.first_target)));
    }
    const double read = stats_[kTokens] - stats_[kNonFinite];
    for (int mean : {kMean, kClamped}) stats_[mean] = read > 0.0 ? stats_[mean] / read : 0.0;
    return bad_.report(&device_, student, "finite logits and a finite divergence");
  }

 private:
  /* The reduction's own divisor, of the whole batch. */
  void set_normalizer(const Sequences& s) {
    if (options_.normalizer != 0.0) return;
    int64_t tokens = s.completions();
    if (mask_ != nullptr) tokens = std::count(mask_, mask_ + tokens, uint8_t{1});
    const int64_t divisor = options_.reduction == RLSD_TOKEN_MEAN  ? tokens
                            : options_.reduction == RLSD_TOKEN_SUM ? 1
                                                                   : s.count;
    options_.normalizer = static_cast<double>(std::max<int64_t>(divisor, 1));
  }

  rlsd_status micro_batch(const MicroBatch& m, const MicroBatch& taught) {
    const int64_t n = m.target_count();
    stats_[kSequences] += static_cast<double>(m.sequences());
    if (n == 0) return RLSD_OK;
    rlsd_distill_args args = options_;
    RLSD_CHECK(stage(m, &args));
    Pass teacher(teacher_), student(m_);
    RLSD_CHECK(teacher.forward(taught, false));
    args.teacher = teacher.scores();
    if (teacher_ == m_) RLSD_CHECK(set_aside(&args.teacher, n));
    RLSD_CHECK(student.forward(m, true));
    args.student = student.scores();
    args.gradient_hidden = student.hidden_gradient();
    args.gradient_head = m_->head_gradient();
    uint64_t bytes = 0;
    RLSD_CHECK(device_.table().distill_loss_workspace(device_.context(), &args, &bytes));
    RLSD_CHECK(device_.workspace(bytes));
    const rlsd_status status = device_.table().distill_loss(device_.context(), &args);
    if (status == RLSD_NON_FINITE) {
      const rlsd_context& said = *device_.context();
      bad_.add(m.first_target + said.error_index, said.error_count);
    } else if (status != RLSD_OK) {
      return status;
    }
    RLSD_CHECK(collect(args, m));
    return bad_.count > 0 ? RLSD_OK : student.backward(); /* the call will fail: no gradient */
  }

  /* A model that teaches itself has one memory for both passes: (n, H) of the first outlive it. */
  rlsd_status set_aside(rlsd_scores* said, int64_t n) {
    const int64_t width = m_->config.hidden;
    const uint64_t bytes = static_cast<uint64_t>(n * width) * sizeof(float);
    RLSD_CHECK(device_.reserve(&m_->said, bytes, "The teacher's hidden states"));
    const rlsd_tensor own = matrix(m_->said.floats(), n, width);
    if (said->rows != nullptr) {
      RLSD_CHECK(device_.gather(own, said->hidden, said->rows));
    } else {
      RLSD_CHECK(
          device_.copy(m_->said.floats(), static_cast<const float*>(said->hidden.data), n * width));
    }
    said->hidden = own;
    said->rows = nullptr;
    return RLSD_OK;
  }

  rlsd_status stage(const MicroBatch& m, rlsd_distill_args* args) {
    const int64_t n = m.target_count(), b = m.sequences();
    staging_ = Staging(&device_, &m_->scores);
    const uint64_t array = Staging::padded(static_cast<uint64_t>(std::max(n, b) + 1) * 4);
    RLSD_CHECK(staging_.reserve(3 * array + Staging::padded(RLSD_DISTILL_STATS * sizeof(double))));
    args->tokens = n;
    args->sequences = b;
    RLSD_CHECK(staging_.put(m.cu_targets.data(), b + 1, &args->cu_seqlens));
    const uint8_t* mask = mask_ != nullptr ? mask_ + m.first_target : nullptr;
    RLSD_CHECK(staging_.put(mask, n, &args->completion_mask));
    args->token_losses = staging_.take<float>(n);
    args->stats = staging_.take<double>(RLSD_DISTILL_STATS);
    args->accumulate = 1;
    args->clear_other_rows = 1;
    return RLSD_OK;
  }

  rlsd_status collect(const rlsd_distill_args& args, const MicroBatch& m) {
    double part[RLSD_DISTILL_STATS];
    RLSD_CHECK(device_.download(part, args.stats, sizeof(part)));
    for (int i : {kTokens, kLoss, kNonFinite}) stats_[i] += part[i];
    const double read = part[kTokens] - part[kNonFinite];
    for (int i : {kMean, kClamped}) stats_[i] += read > 0.0 ? part[i] * read : 0.0;
    return device_.download(token_losses_ + m.first_target, args.token_losses,
                            static_cast<uint64_t>(args.tokens) * sizeof(float));
  }

  Model *m_, *teacher_;
  Device& device_;
  const uint8_t* mask_;
  rlsd_distill_args options_;
  float* token_losses_;
  double* stats_;
  NonFinite bad_;
  Staging staging_;
};

}  // namespace

rlsd_status accumulate_distillation(Model* model, Model* teacher,
                                    const Sequences& student_sequences,
                                    const Sequences& teacher_sequences,
                                    const uint8_t* completion_mask,
                                    const rlsd_distill_args& options, float* token_losses,
                                    double* stats) {
  const rlsd_status status =
      Distillation(model, teacher, completion_mask, options, token_losses, stats)
          .run(student_sequences, teacher_sequences);
  if (status == RLSD_OK) return status;
  /* The job reads the student's words, and an optimizer must not see half a gradient. */
  if (model->device.context()->error[0] == '\0') {
    std::memcpy(model->device.context()->error, teacher->device.context()->error, RLSD_ERROR_BYTES);
  }
  model->clear_gradient();
  return status;
}

}  // namespace rlsd::model
