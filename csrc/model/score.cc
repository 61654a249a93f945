#include "model/score.h"

#include <cmath>
#include <cstring>

#include "model/non_finite.h"
#include "model/pass.h"

namespace rlsd::model {
namespace {

rlsd_status score_batch(Model* model, const MicroBatch& m, double temperature, float* log_probs) {
  if (m.targets.empty()) return RLSD_OK;
  const int64_t n = m.target_count();
  Device& device = model->device;
  Pass pass(model);
  RLSD_CHECK(pass.forward(m, false));
  Staging staging(&device, &model->scores);
  RLSD_CHECK(staging.reserve(2 * Staging::padded(static_cast<uint64_t>(n) * 4)));
  rlsd_token_log_probs_args args;
  std::memset(&args, 0, sizeof(args));
  RLSD_CHECK(staging.put(m.targets.data(), n, &args.token_ids));
  args.tokens = n;
  args.scores = pass.scores();
  args.temperature = temperature;
  args.non_finite_skip = 1; /* they are reported of the whole batch */
  args.log_probs = staging.take<float>(n);
  uint64_t bytes = 0;
  RLSD_CHECK(device.table().token_log_probs_workspace(device.context(), &args, &bytes));
  RLSD_CHECK(device.workspace(bytes));
  RLSD_CHECK(device.table().token_log_probs(device.context(), &args));
  return device.download(log_probs + m.first_target, args.log_probs,
                         static_cast<uint64_t>(n) * sizeof(float));
}

}  // namespace

rlsd_status score(Model* model, const Sequences& sequences, double temperature, float* log_probs) {
  for (const MicroBatch& m : split(sequences, model->batch_tokens)) {
    RLSD_CHECK(score_batch(model, m, temperature, log_probs));
  }
  NonFinite bad;
  const int64_t tokens = sequences.completions();
  for (int64_t i = 0; i < tokens; ++i) {
    if (!std::isfinite(log_probs[i])) bad.add(i, 1);
  }
  return bad.report(&model->device, sequences, "a finite log-prob");
}

rlsd_status all_logits(Model* model, const int32_t* ids, int64_t count, float* logits) {
  const int32_t cu_seqlens[] = {0, static_cast<int32_t>(count)};
  DeviceRows rows;
  RLSD_CHECK(upload_rows(model, {ids, cu_seqlens, 1}, &model->integers, &rows));
  RLSD_CHECK(forward(model, rows, false, &model->activations));
  const uint64_t bytes = static_cast<uint64_t>(count * model->config.vocab) * sizeof(float);
  RLSD_CHECK(model->device.reserve(&model->scores, bytes, "Logits"));
  RLSD_CHECK(multiply_weight(model, matrix(model->scores.floats(), count, model->config.vocab),
                             matrix(model->activations.hidden, count, model->config.hidden),
                             model->layout.head, 0.0, nullptr));
  return model->device.download(logits, model->scores.floats(), bytes);
}

}  // namespace rlsd::model
