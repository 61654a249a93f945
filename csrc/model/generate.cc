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
  active_.clear();
  put_back_.clear();
  prompt_ = {};
  cache_.trim();
  for (Buffer* buffer : {&arrays_, &logits_, &rows_, &activations_.memory}) buffer->reset();
  next_ = total_;
}

rlsd_status Generation::run(int64_t steps, std::vector<Draw>* draws) {
  for (int64_t i = 0; i < steps && !done(); ++i) {
    if (m_->device.context()->cancel != nullptr && *m_->device.context()->cancel != 0)
      return RLSD_CANCELLED;
    if (!active_.empty()) RLSD_CHECK(decode(draws));
    retire();
    if (waiting() && 2 * static_cast<int64_t>(active_.size()) <= running_) RLSD_CHECK(admit(draws));
    retire();
  }
  return RLSD_OK;
}

void Generation::stop(int64_t sequence) {
  for (std::vector<Sequence>* all : {&active_, &put_back_}) {
    for (Sequence& s : *all) s.ended = s.ended || s.index == sequence;
  }
  retire();
}

void Generation::retire() {
  const auto ended = [](const Sequence& s) { return s.ended; };
  for (std::vector<Sequence>* all : {&active_, &put_back_}) {
    all->erase(std::remove_if(all->begin(), all->end(), ended), all->end());
  }
  if (next_ == total_) prompt_ = {};
}

/* Each answer of true leaves less to give. */
bool Generation::make_room() {
  if (cache_.trim() || release_scratch()) return true;
  if (prompt_.index >= 0) {
    prompt_ = {};
    return true;
  }
  if (active_.size() == 1) return false;
  put_back();
  return true;
}

void Generation::put_back() {
  put_back_.push_back(std::move(active_.back()));
  put_back_.back().blocks.clear();
  active_.pop_back();
}

bool Generation::release_scratch() {
  const bool any = !m_->activations.memory.empty() || !m_->copies.empty() || !m_->said.empty();
  m_->activations.memory.reset();
  m_->copies.reset();
  m_->said.reset();
  return any;
}

void Generation::release_buffers() {
  release_scratch();
  m_->scores.reset();
  m_->integers.reset();
  m_->device.release();
  for (Buffer* buffer : {&arrays_, &logits_, &rows_, &activations_.memory}) buffer->reset();
}

rlsd_status Generation::decode(std::vector<Draw>* draws) {
  rlsd_status status = step(draws);
  while (status == RLSD_OUT_OF_MEMORY && make_room()) status = step(draws);
  if (status != RLSD_OUT_OF_MEMORY) return status;
  /* One sequence is left, and what it needs is perhaps smaller than what more of them needed. */
  release_buffers();
  return step(draws);
}

/* The last drawn token of each sequence, at its place. What a step that runs out of memory has
 * stored, the next one stores again. */
rlsd_status Generation::step(std::vector<Draw>* draws) {
  const auto n = static_cast<int64_t>(active_.size());
  size_t most = 0;
  for (Sequence& s : active_) {
    RLSD_CHECK(take_up_to(KeyValueCache::blocks_of(cached(s) + 1), &s.blocks));
    most = std::max(most, s.blocks.size());
  }
  std::vector<int32_t> ids, positions, lengths;
  std::vector<float*> blocks(active_.size() * most, nullptr), ends;
  for (size_t i = 0; i < active_.size(); ++i) {
    const Sequence& s = active_[i];
    const auto length = static_cast<int32_t>(cached(s));
    ids.push_back(s.drawn.back());
    positions.push_back(length);
    lengths.push_back(length + 1);
    for (size_t j = 0; j < s.blocks.size(); ++j) blocks[i * most + j] = s.blocks[j]->floats();
    ends.push_back(s.blocks.back()->floats());
  }
  Staging staging(&m_->device, &rows_);
  RLSD_CHECK(staging.reserve(Staging::padded(blocks.size() * sizeof(float*)) +
                             Staging::padded(ends.size() * sizeof(float*)) +
                             3 * Staging::padded(ids.size() * sizeof(int32_t))));
  const int32_t *device_ids, *device_positions;
  float* const* device_ends;
  rlsd_attention_decode_args args = {};
  RLSD_CHECK(staging.put(blocks.data(), n * static_cast<int64_t>(most), &args.blocks));
  RLSD_CHECK(staging.put(ends.data(), n, &device_ends));
  RLSD_CHECK(staging.put(ids.data(), n, &device_ids));
  RLSD_CHECK(staging.put(positions.data(), n, &device_positions));
  RLSD_CHECK(staging.put(lengths.data(), n, &args.lengths));
  args.most_blocks = static_cast<int64_t>(most);
  const Config& c = m_->config;
  Activations* a = &activations_;
  RLSD_CHECK(prepare(&m_->device, c, n, Keep::kNothing, a));
  RLSD_CHECK(embed(m_, device_ids, n, a->layers[0].x));
  RLSD_CHECK(layers(n, device_positions, device_ends, &args));
  return sample(0, a->hidden, draws);
}

/* `ends`: the block that takes each row's key and value. */
rlsd_status Generation::layers(int64_t rows, const int32_t* positions, float* const* ends,
                               rlsd_attention_decode_args* args) {
  const Config& c = m_->config;
  Activations* a = &activations_;
  for (int64_t i = 0; i < c.layers; ++i) {
    const LayerActivations& l = a->layers[static_cast<size_t>(i)];
    RLSD_CHECK(project(m_, i, rows, positions, a));
    RLSD_CHECK(cache_.append(i, l.k, l.v, rows, ends, positions));
    args->q = cube(l.q, rows, c.heads, c.head_dim);
    args->out = cube(l.out, rows, c.heads, c.head_dim);
    args->kv_heads = c.kv_heads;
    args->k_offset = cache_.keys_at(i);
    args->v_offset = cache_.values_at(i);
    args->scale = attention_scale(c);
    args->window = c.window_of(i);
    RLSD_CHECK(m_->device.table().attention_decode(m_->device.context(), args));
    RLSD_CHECK(finish_layer(m_, i, rows, l.x, a));
  }
  return final_norm(m_, rows, a);
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
    Sequence& s = active_[i];
    const int32_t token = tokens_[i];
    s.drawn.push_back(token);
    const bool last = static_cast<int64_t>(s.drawn.size()) >= o_.max_tokens;
    const bool stops =
        std::find(o_.stop_ids.begin(), o_.stop_ids.end(), token) != o_.stop_ids.end();
    const int32_t finish = stops ? kStopped : last ? kLength : kRunning;
    draws->push_back({static_cast<int32_t>(s.index), token, finish, log_probs_[i]});
    s.ended = finish != kRunning;
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
    const Sequence& s = active_[first + static_cast<size_t>(i)];
    seeds.push_back(stream_key(o_.seed, static_cast<uint64_t>(s.index)));
    counters.push_back(static_cast<uint64_t>(s.drawn.size()));
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
