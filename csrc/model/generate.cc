#include "model/generate.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/cancel.h"
#include "core/philox.h"

namespace rlsd::model {
namespace {

constexpr uint64_t kLogitBytes = uint64_t{64} << 20; /* logits of at most this size exist at once */
constexpr int32_t kPackedSteps = 8;                  /* fewer do not pay for packing */

}  // namespace

Generation::Generation(Model* model, std::vector<int32_t> ids, std::vector<int32_t> cu_prompts,
                       const GenerateOptions& options)
    : m_(model),
      ids_(std::move(ids)),
      cu_prompts_(std::move(cu_prompts)),
      o_(options),
      total_((static_cast<int64_t>(cu_prompts_.size()) - 1) * options.count),
      cache_(model->cache),
      prefixes_(model->prefixes) {}

void Generation::release() {
  for (const Sequence& s : active_) keep(s);
  active_.clear();
  put_back_.clear();
  prompt_ = {};
  cache_.trim();
  for (Buffer* buffer : {&arrays_, &logits_, &rows_, &ends_, &activations_.memory}) buffer->reset();
  next_ = total_;
}

/* Packing reads and writes every weight, as some steps do. */
rlsd_status Generation::pack_weights() {
  const int32_t longest =
      o_.max_tokens.empty() ? 0 : *std::max_element(o_.max_tokens.begin(), o_.max_tokens.end());
  if (std::exchange(began_, true) || longest < kPackedSteps) return RLSD_OK;
  return m_->packed.make(m_, std::min(total_, o_.max_slots));
}

rlsd_status Generation::run(int64_t steps, std::vector<Draw>* draws) {
  RLSD_CHECK(pack_weights());
  for (int64_t i = 0; i < steps && !done(); ++i) {
    if (is_raised(m_->device.context()->cancel)) return RLSD_CANCELLED;
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
  for (const Sequence& s : active_) {
    if (s.ended) keep(s);
  }
  for (std::vector<Sequence>* all : {&active_, &put_back_}) {
    all->erase(std::remove_if(all->begin(), all->end(), ended), all->end());
  }
  if (next_ == total_) prompt_ = {};
}

void Generation::keep(const Sequence& s) {
  if (!prefixes_.enabled()) return;
  const int64_t prompt = prompt_of(s);
  std::vector<int32_t> ids(prompt_ids(prompt), prompt_ids(prompt) + prompt_length(prompt));
  ids.insert(ids.end(), s.drawn.begin(), s.drawn.end() - 1);
  prefixes_.put(std::move(ids), s.blocks);
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
  put_back_.back().blocks = {};
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
  for (Buffer* buffer : {&arrays_, &logits_, &rows_, &ends_, &activations_.memory}) buffer->reset();
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
  std::vector<NewTokens> tokens;
  for (Sequence& s : active_) {
    const int64_t position = cached(s);
    cache_.drop_unseen(&s.blocks, position);
    RLSD_CHECK(cache_.extend(&s.blocks, position + 1));
    tokens.push_back({&s.drawn.back(), 1, position, &s.blocks, 0});
  }
  RLSD_CHECK(CachedPass(m_, &rows_).forward(tokens, {}, &activations_));
  return sample(0, activations_.hidden, draws);
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
    const auto most = static_cast<size_t>(o_.max_tokens[static_cast<size_t>(prompt_of(s))]);
    const bool last = s.drawn.size() >= most;
    const bool stops =
        std::find(o_.stop_ids.begin(), o_.stop_ids.end(), token) != o_.stop_ids.end();
    const int32_t finish = stops ? kStopped : last ? kLength : kRunning;
    draws->push_back({static_cast<int32_t>(s.index), token, finish, log_probs_[i]});
    s.ended = finish != kRunning;
  }
  return RLSD_OK;
}

uint64_t Generation::stream_of(const Sequence& s) const {
  if (o_.seeds.size() == 1) return stream_key(o_.seeds[0], static_cast<uint64_t>(s.index));
  return stream_key(o_.seeds[static_cast<size_t>(prompt_of(s))],
                    static_cast<uint64_t>(s.index % o_.count));
}

/* Tokens by the sampler; their log-probs by the entry that scores completions, so that the two
 * agree in every bit. */
rlsd_status Generation::sample_chunk(size_t first, int64_t count, const float* hidden) {
  Device& device = m_->device;
  const Config& c = m_->config;
  RLSD_CHECK(
      device.reserve(&logits_, static_cast<uint64_t>(count * c.vocab) * sizeof(float), "Logits"));
  const rlsd_tensor logits = matrix(logits_.floats(), count, c.vocab);
  RLSD_CHECK(
      multiply_weight(m_, logits, matrix(hidden, count, c.hidden), m_->layout.head, 0.0, nullptr));
  Staging staging(&device, &arrays_);
  RLSD_CHECK(staging.reserve(2 * Staging::padded(static_cast<uint64_t>(count) * 4)));
  auto* const token_ids = staging.take<int32_t>(count);
  auto* const log_probs = staging.take<float>(count);
  RLSD_CHECK(named(draw(first, logits, token_ids, log_probs), first));
  RLSD_CHECK(named(score_drawn(logits, token_ids, log_probs), first));
  const uint64_t size = static_cast<uint64_t>(count) * 4;
  RLSD_CHECK(device.download(tokens_.data() + first, token_ids, size));
  return device.download(log_probs_.data() + first, log_probs, size);
}

rlsd_status Generation::draw(size_t first, rlsd_tensor logits, int32_t* token_ids,
                             float* log_probs) {
  Device& device = m_->device;
  std::vector<uint64_t> seeds, counters;
  for (int64_t i = 0; i < logits.shape[0]; ++i) {
    const Sequence& s = active_[first + static_cast<size_t>(i)];
    seeds.push_back(stream_of(s));
    counters.push_back(static_cast<uint64_t>(s.drawn.size()));
  }
  rlsd_sample_args args;
  std::memset(&args, 0, sizeof(args));
  args.logits = logits;
  args.seed = seeds.data();
  args.counter = counters.data();
  args.temperature = o_.temperature;
  args.top_k = o_.top_k;
  args.top_p = o_.top_p;
  args.min_p = o_.min_p;
  args.vocab_size = m_->config.vocab;
  args.token_ids = token_ids;
  args.log_probs = log_probs;
  uint64_t bytes = 0;
  RLSD_CHECK(device.table().sample_workspace(device.context(), &args, &bytes));
  RLSD_CHECK(device.workspace(bytes));
  return device.table().sample(device.context(), &args);
}

rlsd_status Generation::score_drawn(rlsd_tensor logits, const int32_t* token_ids,
                                    float* log_probs) {
  Device& device = m_->device;
  rlsd_token_log_probs_args args;
  std::memset(&args, 0, sizeof(args));
  args.tokens = logits.shape[0];
  args.scores.level = RLSD_LOGITS;
  args.scores.logits = logits;
  args.scores.vocab_size = m_->config.vocab;
  args.token_ids = token_ids;
  args.temperature = o_.temperature > 0.0 ? o_.temperature : 1.0;
  args.log_probs = log_probs;
  uint64_t bytes = 0;
  RLSD_CHECK(device.table().token_log_probs_workspace(device.context(), &args, &bytes));
  RLSD_CHECK(device.workspace(bytes));
  return device.table().token_log_probs(device.context(), &args);
}

/* A row that is not finite becomes the completion that it is of. */
rlsd_status Generation::named(rlsd_status status, size_t first) {
  if (status != RLSD_NON_FINITE) return status;
  rlsd_context& c = *m_->device.context();
  const Sequence& s = active_[first + static_cast<size_t>(c.error_index)];
  c.error_index = s.index;
  return m_->device.fail(status,
                         "Expected finite logits for every completion but completion %lld of "
                         "prompt %lld has none at its token %lld.",
                         static_cast<long long>(s.index % o_.count),
                         static_cast<long long>(prompt_of(s)),
                         static_cast<long long>(s.drawn.size()));
}

}  // namespace rlsd::model
