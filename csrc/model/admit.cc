/* How waiting sequences enter: in passes of what has to be computed for them, or of completions
 * whose prompt is computed already. A pass for which there is no memory is undone and made
 * smaller. */
#include <algorithm>
#include <cstring>
#include <utility>

#include "model/generate.h"

namespace rlsd::model {
namespace {

/* Tokens that two texts begin with alike. */
int64_t common_tokens(const int32_t* a, int64_t a_length, const int32_t* b, int64_t b_length) {
  return std::mismatch(a, a + std::min(a_length, b_length), b).first - a;
}

/* With the last sequence of the batch. */
int64_t common_with_last(const MicroBatch& b, const std::vector<int32_t>& ids) {
  const int64_t sequences = b.sequences();
  if (sequences == 0) return 0;
  const int32_t begin = b.cu_seqlens[static_cast<size_t>(sequences) - 1];
  return common_tokens(ids.data(), static_cast<int64_t>(ids.size()), b.ids.data() + begin,
                       static_cast<int64_t>(b.ids.size()) - begin);
}

}  // namespace

rlsd_status Generation::admit(std::vector<Draw>* draws) {
  int64_t most = o_.max_slots;
  bool last_try = false;
  while (waiting()) {
    Entering e = {};
    e.first = active_.size();
    e.batch.cu_seqlens.push_back(0);
    e.alone = last_try;
    rlsd_status status = gather(most, &e);
    const auto entered = static_cast<int64_t>(active_.size() - e.first);
    if (status == RLSD_OK && entered == 0) break;
    if (status == RLSD_OK) {
      status = compute(e, draws);
      if (status == RLSD_OUT_OF_MEMORY && cache_.trim()) status = compute(e, draws);
    }
    if (status == RLSD_OK) continue;
    if (status != RLSD_OUT_OF_MEMORY) return status;
    undo(e);
    most = std::max<int64_t>(1, entered / 2);
    if (entered > 1) continue;
    if (!active_.empty()) break;
    if (last_try) return status;
    last_try = true;
    prompt_ = {};
    release_buffers();
  }
  running_ = static_cast<int64_t>(active_.size());
  return RLSD_OK;
}

rlsd_status Generation::gather(int64_t most, Entering* e) {
  bool entered = true;
  while (entered && waiting() && static_cast<int64_t>(active_.size()) < o_.max_slots &&
         static_cast<int64_t>(active_.size() - e->first) < most) {
    entered = false;
    RLSD_CHECK(put_back_.empty() ? enter(e, &entered) : enter_again(e, &entered));
  }
  return RLSD_OK;
}

/* Beside those that run, each of which may need another block soon. */
bool Generation::has_room(int64_t blocks) const {
  return active_.empty() || blocks + static_cast<int64_t>(active_.size()) < cache_.room();
}

/* The next completion that has never entered, with its prompt where that is not there. */
rlsd_status Generation::enter(Entering* e, bool* entered) {
  const int64_t prompt = next_ / o_.count, length = prompt_length(prompt);
  /* The last completion takes the prompt's last block, others a copy of it. */
  const bool last = e->alone || (next_ + 1) % o_.count == 0;
  const bool copies = length % RLSD_KEY_BLOCK != 0 && !last;
  const bool computes = !e->computed.empty() && e->computed.back() >= 0;
  if (prompt == prompt_.index) {
    if ((prompt_.computed < 0 && computes) || !has_room(copies)) return RLSD_OK;
  } else {
    if (!e->computed.empty() && !computes) return RLSD_OK;
    const std::vector<int32_t> ids(prompt_ids(prompt), prompt_ids(prompt) + length);
    if (!fits(*e, ids)) return RLSD_OK;
    Prompt fresh;
    fresh.index = prompt;
    fresh.blocks = shared_blocks(prompt);
    const auto shared = static_cast<int64_t>(fresh.blocks.size());
    const int64_t all = KeyValueCache::blocks_of(length);
    if (!has_room(all - shared + copies)) return RLSD_OK;
    RLSD_CHECK(take_up_to(all, &fresh.blocks));
    add_to_batch(ids, fresh.blocks, shared, e);
    fresh.computed = e->batch.sequences() - 1;
    prompt_ = std::move(fresh);
  }
  Sequence s = {};
  s.index = next_;
  s.blocks = prompt_.blocks;
  if (copies) {
    RLSD_CHECK(cache_.take(&s.blocks.back()));
    e->copies.emplace_back(s.blocks.back(), prompt_.blocks.back());
  }
  e->computed.push_back(static_cast<int32_t>(prompt_.computed));
  active_.push_back(std::move(s));
  ++next_;
  *entered = true;
  return RLSD_OK;
}

/* The next sequence that was put back, with what it had drawn. */
rlsd_status Generation::enter_again(Entering* e, bool* entered) {
  if (!e->computed.empty() && e->computed.back() < 0) return RLSD_OK;
  const int64_t prompt = prompt_of(put_back_.back());
  const std::vector<int32_t>& drawn = put_back_.back().drawn;
  std::vector<int32_t> ids(prompt_ids(prompt), prompt_ids(prompt) + prompt_length(prompt));
  ids.insert(ids.end(), drawn.begin(), drawn.end());
  if (!fits(*e, ids)) return RLSD_OK;
  std::vector<CacheBlock> blocks = shared_blocks(prompt);
  const auto shared = static_cast<int64_t>(blocks.size());
  const int64_t all = KeyValueCache::blocks_of(static_cast<int64_t>(ids.size()));
  if (!has_room(all - shared)) return RLSD_OK;
  RLSD_CHECK(take_up_to(all, &blocks));
  add_to_batch(ids, blocks, shared, e);
  e->computed.push_back(static_cast<int32_t>(e->batch.sequences() - 1));
  active_.push_back(std::move(put_back_.back()));
  active_.back().blocks = std::move(blocks);
  put_back_.pop_back();
  *entered = true;
  return RLSD_OK;
}

/* Whether the pass may compute these ids as well. */
bool Generation::fits(const Entering& e, const std::vector<int32_t>& ids) const {
  const MicroBatch& b = e.batch;
  if (b.sequences() == 0) return true;
  const auto keys = static_cast<int64_t>(b.ids.size() + ids.size());
  int64_t rows = keys - common_with_last(b, ids);
  for (const int32_t common : b.common) rows -= common;
  return rows <= m_->batch_tokens && keys <= kKeysPerRow * m_->batch_tokens;
}

/* The blocks that the prompt fills as one that is there already does. */
std::vector<CacheBlock> Generation::shared_blocks(int64_t prompt) const {
  const int64_t length = prompt_length(prompt);
  for (const Sequence& s : active_) {
    if (prompt_of(s) != prompt) continue;
    return {s.blocks.begin(), s.blocks.begin() + length / RLSD_KEY_BLOCK};
  }
  if (prompt_.index < 0) return {};
  const int64_t common = common_tokens(prompt_ids(prompt), length, prompt_ids(prompt_.index),
                                       prompt_length(prompt_.index));
  return {prompt_.blocks.begin(), prompt_.blocks.begin() + common / RLSD_KEY_BLOCK};
}

rlsd_status Generation::take_up_to(int64_t count, std::vector<CacheBlock>* blocks) {
  while (static_cast<int64_t>(blocks->size()) < count) {
    CacheBlock block;
    RLSD_CHECK(cache_.take(&block));
    blocks->push_back(std::move(block));
  }
  return RLSD_OK;
}

void Generation::add_to_batch(const std::vector<int32_t>& ids,
                              const std::vector<CacheBlock>& blocks, int64_t shared,
                              Entering* e) const {
  MicroBatch* b = &e->batch;
  b->common.push_back(static_cast<int32_t>(common_with_last(*b, ids)));
  b->ids.insert(b->ids.end(), ids.begin(), ids.end());
  b->cu_seqlens.push_back(static_cast<int32_t>(b->ids.size()));
  b->rows.push_back(b->cu_seqlens.back() - 1);
  b->targets.push_back(0); /* nothing is scored, the last hidden state alone is wanted */
  for (size_t t = 0; t < ids.size(); ++t) {
    const size_t block = t / RLSD_KEY_BLOCK;
    e->stored.push_back(static_cast<int64_t>(block) < shared ? nullptr : blocks[block]->floats());
  }
}

rlsd_status Generation::compute(const Entering& e, std::vector<Draw>* draws) {
  const int64_t width = m_->config.hidden;
  const auto count = static_cast<int64_t>(active_.size() - e.first);
  Pass pass(m_);
  rlsd_tensor hidden = matrix(prompt_.hidden.floats(), 1, width);
  std::vector<int32_t> rows(e.computed.size(), 0); /* of hidden, by entering sequence */
  if (e.batch.sequences() > 0) {
    RLSD_CHECK(prefill(e, &pass));
    const rlsd_scores scores = pass.scores();
    hidden = scores.hidden;
    for (size_t i = 0; i < rows.size(); ++i) {
      const int32_t b = e.computed[i];
      rows[i] = scores.rows != nullptr ? e.batch.rows[static_cast<size_t>(b)] : b;
    }
  }
  for (const auto& [to, from] : e.copies) RLSD_CHECK(cache_.copy(to, from));
  RLSD_CHECK(prepare(&m_->device, m_->config, count, Keep::kNothing, &activations_));
  Staging staging(&m_->device, &arrays_);
  RLSD_CHECK(staging.reserve(Staging::padded(rows.size() * sizeof(int32_t))));
  const int32_t* device_rows;
  RLSD_CHECK(staging.put(rows.data(), count, &device_rows));
  RLSD_CHECK(m_->device.gather(matrix(activations_.hidden, count, width), hidden, device_rows));
  const bool all_entered = e.alone || next_ % o_.count == 0;
  if (prompt_.computed >= 0 && !all_entered) {
    const auto at = std::find(e.computed.begin(), e.computed.end(), prompt_.computed);
    const float* const last = activations_.hidden + (at - e.computed.begin()) * width;
    RLSD_CHECK(m_->device.reserve(&prompt_.hidden, static_cast<uint64_t>(width) * sizeof(float),
                                  "Hidden states"));
    RLSD_CHECK(m_->device.copy(prompt_.hidden.floats(), last, width));
  }
  RLSD_CHECK(sample(e.first, activations_.hidden, draws));
  prompt_.computed = -1;
  if (prompt_.index >= 0 && all_entered) {
    prompt_.blocks.resize(static_cast<size_t>(prompt_length(prompt_.index) / RLSD_KEY_BLOCK));
  }
  if (e.alone) prompt_ = {};
  return RLSD_OK;
}

rlsd_status Generation::prefill(const Entering& e, Pass* pass) {
  const auto keys = static_cast<int64_t>(e.stored.size());
  std::vector<int32_t> positions;
  for (int64_t b = 0; b < e.batch.sequences(); ++b) {
    const int32_t begin = e.batch.cu_seqlens[static_cast<size_t>(b)];
    const int32_t end = e.batch.cu_seqlens[static_cast<size_t>(b) + 1];
    for (int32_t t = begin; t < end; ++t) positions.push_back(t - begin);
  }
  Staging staging(&m_->device, &rows_);
  RLSD_CHECK(staging.reserve(Staging::padded(e.stored.size() * sizeof(float*)) +
                             Staging::padded(positions.size() * sizeof(int32_t))));
  float* const* device_blocks;
  const int32_t* device_positions;
  RLSD_CHECK(staging.put(e.stored.data(), keys, &device_blocks));
  RLSD_CHECK(staging.put(positions.data(), keys, &device_positions));
  PrefillSink sink(&cache_, device_blocks, device_positions, keys);
  return pass->forward(e.batch, false, &sink);
}

/* As before its pass: nothing was drawn. */
void Generation::undo(const Entering& e) {
  while (active_.size() > e.first) {
    if (active_.back().drawn.empty()) {
      next_ = active_.back().index;
      active_.pop_back();
    } else {
      put_back();
    }
  }
  if (prompt_.computed >= 0) prompt_ = {};
}

}  // namespace rlsd::model
