#include "model/generate.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/philox.h"

namespace rlsd::model {
namespace {

constexpr uint64_t kLogitBytes = uint64_t{64} << 20; /* logits of at most this size exist at once */

}  // namespace

Generation::Generation(Model* model, std::vector<int32_t> ids, std::vector<int32_t> cu_prompts,
                       const GenerateOptions& options)
    : m_(model),
      ids_(std::move(ids)),
      cu_prompts_(std::move(cu_prompts)),
      o_(options),
      total_((static_cast<int64_t>(cu_prompts_.size()) - 1) * options.count),
      cache_(model) {}

void Generation::release() {
  cache_.release();
  for (Buffer* buffer : {&arrays_, &logits_, &rows_, &activations_.memory}) buffer->reset();
  active_.clear();
  next_ = total_;
}

rlsd_status Generation::make_cache() {
  int64_t length = 0;
  for (size_t p = 0; p + 1 < cu_prompts_.size(); ++p) {
    length = std::max(length, prompt_length(static_cast<int64_t>(p)));
  }
  length += o_.max_tokens - 1; /* the last token is never read */
  const uint64_t slot_bytes = std::max<uint64_t>(KeyValueCache::slot_bytes(m_->config, length), 1);
  const auto affordable = static_cast<int64_t>(m_->device.available() / 2 / slot_bytes);
  RLSD_CHECK(
      cache_.allocate(std::max<int64_t>(1, std::min({total_, o_.max_slots, affordable})), length));
  for (int64_t s = cache_.slots() - 1; s >= 0; --s) free_slots_.push_back(static_cast<int32_t>(s));
  return RLSD_OK;
}

rlsd_status Generation::run(int64_t steps, std::vector<Draw>* draws) {
  for (int64_t i = 0; i < steps && !done(); ++i) {
    if (m_->device.context()->cancel != nullptr && *m_->device.context()->cancel != 0)
      return RLSD_CANCELLED;
    if (cache_.empty()) RLSD_CHECK(make_cache());
    const size_t running = active_.size();
    if (running > 0) RLSD_CHECK(decode(draws));
    if (next_ < total_ && 2 * static_cast<int64_t>(free_slots_.size()) >= cache_.slots())
      RLSD_CHECK(admit(draws));
    retire();
  }
  return RLSD_OK;
}

void Generation::stop(int64_t sequence) {
  for (Active& a : active_) {
    if (a.sequence == sequence) a.last = -1;
  }
  retire();
}

void Generation::retire() {
  for (const Active& a : active_) {
    if (a.last < 0) free_slots_.push_back(a.slot);
  }
  active_.erase(
      std::remove_if(active_.begin(), active_.end(), [](const Active& a) { return a.last < 0; }),
      active_.end());
}

/* As many sequences as there are slots, their prompts computed in passes of at most batch_tokens
 * rows. */
rlsd_status Generation::admit(std::vector<Draw>* draws) {
  size_t first = active_.size();
  int64_t rows = 0, last_prompt = -1;
  while (next_ < total_ && !free_slots_.empty()) {
    const int64_t prompt = next_ / o_.count;
    if (prompt != last_prompt && rows > 0 && rows + prompt_length(prompt) > m_->batch_tokens) {
      RLSD_CHECK(prefill(first, active_.size(), draws));
      first = active_.size();
      rows = 0;
    }
    if (prompt != last_prompt) rows += prompt_length(prompt);
    last_prompt = prompt;
    active_.push_back(
        {next_++, free_slots_.back(), static_cast<int32_t>(prompt_length(prompt)), 0, 0});
    free_slots_.pop_back();
  }
  return prefill(first, active_.size(), draws);
}

rlsd_status Generation::prefill(size_t first, size_t last, std::vector<Draw>* draws) {
  /* Distinct prompts in a row, and which copy of its prompt each sequence takes. */
  std::vector<int32_t> ids, cu = {0}, last_rows;
  std::vector<std::vector<int32_t>> slot_rows;
  int64_t previous = -1;
  size_t copy = 0;
  for (size_t i = first; i < last; ++i) {
    const int64_t prompt = active_[i].sequence / o_.count;
    copy = prompt == previous ? copy + 1 : 0;
    if (prompt != previous) {
      const auto* at = ids_.data() + cu_prompts_[static_cast<size_t>(prompt)];
      ids.insert(ids.end(), at, at + prompt_length(prompt));
      cu.push_back(static_cast<int32_t>(ids.size()));
    }
    previous = prompt;
    if (copy == slot_rows.size()) slot_rows.emplace_back();
    slot_rows[copy].resize(static_cast<size_t>(cu[cu.size() - 2]), -1);
    slot_rows[copy].resize(static_cast<size_t>(cu.back()), active_[i].slot);
    last_rows.push_back(cu.back() - 1);
  }
  std::vector<int32_t> flat;
  for (std::vector<int32_t>& row : slot_rows) {
    row.resize(ids.size(), -1);
    flat.insert(flat.end(), row.begin(), row.end());
  }
  DeviceRows rows;
  RLSD_CHECK(
      upload_rows(m_, {ids.data(), cu.data(), static_cast<int64_t>(cu.size()) - 1}, &rows_, &rows));
  Staging staging(&m_->device, &arrays_);
  RLSD_CHECK(
      staging.reserve(Staging::padded(flat.size() * 4) + Staging::padded(last_rows.size() * 4)));
  const int32_t *device_slots, *device_last;
  RLSD_CHECK(staging.put(flat.data(), static_cast<int64_t>(flat.size()), &device_slots));
  RLSD_CHECK(staging.put(last_rows.data(), static_cast<int64_t>(last_rows.size()), &device_last));
  PrefillSink sink(&cache_, device_slots, rows.positions, rows.rows,
                   static_cast<int64_t>(slot_rows.size()));
  Activations* a = &m_->activations;
  RLSD_CHECK(prepare(&m_->device, m_->config, rows.rows, Keep::kNothing, a));
  RLSD_CHECK(forward_with_sink(m_, rows, a, &sink));
  /* The last row of its prompt, once for each sequence. */
  const auto count = static_cast<int64_t>(last - first);
  RLSD_CHECK(prepare(&m_->device, m_->config, std::max(count, cache_.slots()), Keep::kNothing,
                     &activations_));
  const int64_t width = m_->config.hidden;
  RLSD_CHECK(m_->device.gather(matrix(activations_.hidden, count, width),
                               matrix(a->hidden, rows.rows, width), device_last));
  return sample(first, activations_.hidden, draws);
}

rlsd_status Generation::decode(std::vector<Draw>* draws) {
  const Config& c = m_->config;
  Device& device = m_->device;
  const auto n = static_cast<int64_t>(active_.size());
  std::vector<int32_t> host(static_cast<size_t>(4 * n)); /* ids, positions, slots, lengths */
  for (int64_t i = 0; i < n; ++i) {
    Active& a = active_[static_cast<size_t>(i)];
    host[static_cast<size_t>(i)] = a.last;
    host[static_cast<size_t>(n + i)] = a.length;
    host[static_cast<size_t>(2 * n + i)] = a.slot;
    host[static_cast<size_t>(3 * n + i)] = ++a.length;
  }
  RLSD_CHECK(device.reserve(&rows_, host.size() * sizeof(int32_t), "Token ids"));
  RLSD_CHECK(device.upload(rows_.ints(), host.data(), host.size() * sizeof(int32_t)));
  const int32_t* const ids = rows_.ints();
  const int32_t *positions = ids + n, *slots = ids + 2 * n, *lengths = ids + 3 * n;
  Activations* a = &activations_;
  RLSD_CHECK(prepare(&device, c, std::max(n, cache_.slots()), Keep::kNothing, a));
  RLSD_CHECK(embed(m_, ids, n, a->layers[0].x));
  for (int64_t i = 0; i < c.layers; ++i) {
    const LayerActivations& l = a->layers[static_cast<size_t>(i)];
    RLSD_CHECK(project(m_, i, n, positions, a));
    RLSD_CHECK(cache_.append(i, l.k, l.v, n, slots, positions));
    rlsd_attention_decode_args args = {cube(l.q, n, c.heads, c.head_dim),
                                       cube(l.out, n, c.heads, c.head_dim),
                                       cache_.keys(i),
                                       cache_.values(i),
                                       slots,
                                       lengths,
                                       attention_scale(c),
                                       c.window_of(i)};
    RLSD_CHECK(device.table().attention_decode(device.context(), &args));
    RLSD_CHECK(finish_layer(m_, i, n, l.x, a));
  }
  RLSD_CHECK(final_norm(m_, n, a));
  return sample(0, a->hidden, draws);
}

rlsd_status Generation::sample(size_t first, const float* hidden, std::vector<Draw>* draws) {
  const auto count = static_cast<int64_t>(active_.size() - first);
  const auto row_bytes = static_cast<uint64_t>(m_->config.vocab) * sizeof(float);
  const auto at_once = std::max<int64_t>(1, static_cast<int64_t>(kLogitBytes / row_bytes));
  tokens_.resize(active_.size());
  log_probs_.resize(active_.size());
  for (int64_t i = 0; i < count; i += at_once) {
    RLSD_CHECK(sample_chunk(first + static_cast<size_t>(i), std::min(at_once, count - i),
                            hidden + i * m_->config.hidden));
  }
  for (size_t i = first; i < active_.size(); ++i) {
    Active& a = active_[i];
    const int32_t token = tokens_[i];
    int32_t finish = ++a.drawn >= o_.max_tokens ? kLength : kRunning;
    if (std::find(o_.stop_ids.begin(), o_.stop_ids.end(), token) != o_.stop_ids.end())
      finish = kStopped;
    draws->push_back({static_cast<int32_t>(a.sequence), token, finish, log_probs_[i]});
    a.last = finish == kRunning ? token : -1;
  }
  return RLSD_OK;
}

/* Tokens by the sampler; their log-probs by the entry that scores completions, so that the two
 * agree in every bit. */
rlsd_status Generation::sample_chunk(size_t first, int64_t count, const float* hidden) {
  Device& device = m_->device;
  const Config& c = m_->config;
  RLSD_CHECK(
      device.reserve(&logits_, static_cast<uint64_t>(count * c.vocab) * sizeof(float), "Logits"));
  const rlsd_tensor logits = matrix(logits_.floats(), count, c.vocab);
  RLSD_CHECK(device.matmul(logits, matrix(hidden, count, c.hidden), m_->head(), false, true, 0.0));
  std::vector<uint64_t> seeds, counters;
  for (int64_t i = 0; i < count; ++i) {
    const Active& a = active_[first + static_cast<size_t>(i)];
    seeds.push_back(stream_key(o_.seed, static_cast<uint64_t>(a.sequence)));
    counters.push_back(static_cast<uint64_t>(a.drawn));
  }
  Staging staging(&device, &arrays_);
  RLSD_CHECK(staging.reserve(2 * Staging::padded(static_cast<uint64_t>(count) * 4)));
  rlsd_sample_args args;
  std::memset(&args, 0, sizeof(args));
  args.logits = logits;
  args.seed = seeds.data();
  args.counter = counters.data();
  args.temperature = o_.temperature;
  args.top_k = o_.top_k;
  args.top_p = o_.top_p;
  args.min_p = o_.min_p;
  args.vocab_size = c.vocab;
  args.token_ids = staging.take<int32_t>(count);
  args.log_probs = staging.take<float>(count);
  uint64_t bytes = 0;
  RLSD_CHECK(device.table().sample_workspace(device.context(), &args, &bytes));
  RLSD_CHECK(device.workspace(bytes));
  RLSD_CHECK(device.table().sample(device.context(), &args));
  rlsd_token_log_probs_args scored;
  std::memset(&scored, 0, sizeof(scored));
  scored.tokens = count;
  scored.scores.level = RLSD_LOGITS;
  scored.scores.logits = logits;
  scored.scores.vocab_size = c.vocab;
  scored.token_ids = args.token_ids;
  scored.temperature = o_.temperature > 0.0 ? o_.temperature : 1.0;
  scored.log_probs = args.log_probs;
  RLSD_CHECK(device.table().token_log_probs_workspace(device.context(), &scored, &bytes));
  RLSD_CHECK(device.workspace(bytes));
  RLSD_CHECK(device.table().token_log_probs(device.context(), &scored));
  const uint64_t size = static_cast<uint64_t>(count) * 4;
  RLSD_CHECK(device.download(tokens_.data() + first, args.token_ids, size));
  return device.download(log_probs_.data() + first, args.log_probs, size);
}

}  // namespace rlsd::model
