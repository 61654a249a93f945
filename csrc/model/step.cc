#include <algorithm>
#include <cmath>

#include "model/train.h"

namespace rlsd::model {
namespace {

rlsd_status update_range(Model* m, const StepOptions& o, double decay, double gradient_scale,
                         int64_t begin, int64_t end) {
  rlsd_adamw_args args = {};
  args.weight = vector(m->trained_weights() + begin, end - begin);
  args.m = vector(m->first_moment.floats() + begin, end - begin);
  args.v = vector(m->second_moment.floats() + begin, end - begin);
  args.gradient = vector(m->gradient.floats() + begin, end - begin);
  args.learning_rate = o.learning_rate;
  args.beta1 = o.beta1;
  args.beta2 = o.beta2;
  args.eps = o.eps;
  args.weight_decay = decay;
  args.gradient_scale = gradient_scale;
  args.step = m->updates;
  return m->device.table().adamw(m->device.context(), &args);
}

}  // namespace

rlsd_status step(Model* m, const StepOptions& o, double* gradient_norm, bool* skipped) {
  RLSD_CHECK(m->need_gradient());
  RLSD_CHECK(m->need_moments());
  double squared = 0.0;
  RLSD_CHECK(m->device.table().squared_norm(
      m->device.context(), vector(m->gradient.floats(), m->trained().count), &squared));
  *gradient_norm = std::sqrt(squared);
  *skipped = !std::isfinite(*gradient_norm);
  if (!*skipped) {
    /* torch.nn.utils.clip_grad_norm_ adds the same 1e-6 */
    const double scale = std::min(1.0, o.max_gradient_norm / (*gradient_norm + 1e-6));
    m->updates += 1;
    RLSD_CHECK(update_range(m, o, o.weight_decay, scale, 0, m->trained().decaying));
    RLSD_CHECK(update_range(m, o, 0.0, scale, m->trained().decaying, m->trained().count));
  }
  m->clear_gradient();
  return RLSD_OK;
}

}  // namespace rlsd::model
