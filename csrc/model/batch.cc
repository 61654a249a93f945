#include "model/batch.h"

#include <algorithm>
#include <cstring>

#include "model/shared_rows.h"

namespace rlsd::model {
namespace {

void append(const Sequences& s, int64_t b, MicroBatch* m) {
  const int64_t completion = s.completion(b), prompt = s.prompt_lengths[b];
  const int32_t* ids = s.ids + s.cu_seqlens[b];
  if (completion > 0) {
    const auto start = static_cast<int32_t>(m->ids.size());
    m->ids.insert(m->ids.end(), ids, ids + prompt + completion - 1);
    for (int64_t i = 0; i < completion; ++i)
      m->rows.push_back(start + static_cast<int32_t>(prompt + i - 1));
    m->targets.insert(m->targets.end(), ids + prompt, ids + prompt + completion);
  }
  m->cu_seqlens.push_back(static_cast<int32_t>(m->ids.size()));
  m->cu_targets.push_back(static_cast<int32_t>(m->targets.size()));
}

MicroBatch empty_batch(int64_t first_sequence, int64_t first_target) {
  MicroBatch m;
  m.cu_seqlens.push_back(0);
  m.cu_targets.push_back(0);
  m.first_sequence = first_sequence;
  m.first_target = first_target;
  return m;
}

}  // namespace

MicroBatch gather(const Sequences& s, int64_t first, int64_t count, int64_t first_target) {
  MicroBatch m = empty_batch(first, first_target);
  for (int64_t b = first; b < first + count; ++b) append(s, b, &m);
  return m;
}

std::vector<MicroBatch> split(const Sequences& s, int64_t batch_tokens, const Sequences* beside) {
  std::vector<MicroBatch> out;
  int64_t targets = 0, used = 0;
  for (int64_t b = 0; b < s.count; ++b) {
    const int64_t rows = std::max(s.input_rows(b), beside != nullptr ? beside->input_rows(b) : 0);
    if (out.empty() || used + rows > batch_tokens) {
      out.push_back(empty_batch(b, targets));
      used = 0;
    }
    append(s, b, &out.back());
    used += rows;
    targets += s.completion(b);
  }
  return out;
}

rlsd_scores hidden_scores(Model* model, const float* hidden, int64_t rows,
                          const int32_t* device_rows) {
  rlsd_scores scores;
  std::memset(&scores, 0, sizeof(scores));
  scores.level = RLSD_HIDDEN;
  scores.hidden = matrix(hidden, rows, model->config.hidden);
  scores.head = model->head();
  scores.rows = device_rows;
  scores.vocab_size = model->config.vocab;
  return scores;
}

namespace {

rlsd_status score_batch(Model* model, const MicroBatch& m, double temperature, float* log_probs) {
  if (m.targets.empty()) return RLSD_OK;
  const SharedRows shared = share_rows(m);
  /* Expanding costs less than the rows it saves once a tenth of them is shared. */
  const bool sharing = shared.distinct() * 10 <= shared.packed() * 9;
  const int64_t n = m.target_count();
  Staging staging(&model->device, &model->scores);
  const uint64_t scratch = sharing ? expansion_bytes(model->config, shared.packed(), n) : 0;
  RLSD_CHECK(staging.reserve(scratch + 3 * Staging::padded(static_cast<uint64_t>(n) * 4)));
  const int32_t *predictors, *targets;
  rlsd_scores scores;
  if (sharing) {
    DeviceRows rows;
    Expansion expansion;
    RLSD_CHECK(expand(model, m, shared, &staging, &rows, &expansion));
    RLSD_CHECK(forward_shared(model, rows, expansion, &model->activations));
    /* One row may predict several targets: the first tokens of all completions of a prompt. */
    std::vector<int32_t> predicting = m.rows;
    for (int32_t& row : predicting) row = shared.distinct_of[static_cast<size_t>(row)];
    RLSD_CHECK(staging.put(predicting.data(), n, &predictors));
    const int64_t width = model->config.hidden;
    auto* const hidden = staging.take<float>(n * width);
    RLSD_CHECK(model->device.table().embedding(
        model->device.context(), matrix(hidden, n, width),
        matrix(model->activations.hidden, rows.rows, width), predictors));
    scores = hidden_scores(model, hidden, n, nullptr);
  } else {
    DeviceRows rows;
    RLSD_CHECK(upload_rows(model, m.packed(), &model->integers, &rows));
    RLSD_CHECK(forward(model, rows, false, &model->activations));
    RLSD_CHECK(staging.put(m.rows.data(), n, &predictors));
    scores = hidden_scores(model, model->activations.hidden, rows.rows, predictors);
  }
  RLSD_CHECK(staging.put(m.targets.data(), n, &targets));
  rlsd_token_log_probs_args args;
  std::memset(&args, 0, sizeof(args));
  args.tokens = n;
  args.scores = scores;
  args.token_ids = targets;
  args.temperature = temperature;
  args.log_probs = staging.take<float>(n);
  uint64_t bytes = 0;
  Device& device = model->device;
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
  return RLSD_OK;
}

rlsd_status all_logits(Model* model, const int32_t* ids, int64_t count, float* logits) {
  const int32_t cu_seqlens[] = {0, static_cast<int32_t>(count)};
  DeviceRows rows;
  RLSD_CHECK(upload_rows(model, {ids, cu_seqlens, 1}, &model->integers, &rows));
  RLSD_CHECK(forward(model, rows, false, &model->activations));
  const uint64_t bytes = static_cast<uint64_t>(count * model->config.vocab) * sizeof(float);
  RLSD_CHECK(model->device.reserve(&model->scores, bytes, "Logits"));
  RLSD_CHECK(model->device.matmul(matrix(model->scores.floats(), count, model->config.vocab),
                                  matrix(model->activations.hidden, count, model->config.hidden),
                                  model->head(), false, true, 0.0));
  return model->device.download(logits, model->scores.floats(), bytes);
}

}  // namespace rlsd::model
