/* How waiting sequences enter: in passes of what has to be computed for them, or of completions
 * whose prompt is computed already. A pass for which there is no memory is undone and made
 * smaller. */
#include <algorithm>
#include <utility>

#include "model/generate.h"

namespace rlsd::model {

rlsd_status Generation::admit(std::vector<Draw>* draws) {
  int64_t most = o_.max_slots;
  bool last_try = false;
  while (waiting()) {
    Entering e = {};
    e.first = active_.size();
    e.alone = last_try;
    rlsd_status status = gather(most, &e);
    const auto entered = static_cast<int64_t>(active_.size() - e.first);
    if (status == RLSD_OK && entered == 0) break;
    if (status == RLSD_OK) {
      status = compute(e, draws);
      if (status == RLSD_OUT_OF_MEMORY && cache_.trim()) status = compute(e, draws);
    }
    if (status == RLSD_OK) continue;
    undo(e);
    if (status != RLSD_OUT_OF_MEMORY) return status;
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

/* Beside those that run, each of which may need another block of each kind soon. Packed weights
 * give way, and what is kept of earlier calls. */
bool Generation::has_room(uint64_t bytes) {
  if (active_.empty()) return true;
  const uint64_t needed = bytes + (active_.size() + 1) * cache_.block_bytes();
  while (needed > cache_.room()) {
    if (!m_->packed.drop() && !prefixes_.drop_oldest()) return false;
  }
  return true;
}

/* The longest beginning of a text that is in the cache. */
Beginning Generation::beginning_of(const std::vector<int32_t>& ids, const Entering& e) {
  const auto length = static_cast<int64_t>(ids.size());
  Beginning best = prefixes_.find(ids.data(), length);
  const auto offer = [&](int64_t common, const CachedTokens& blocks) {
    if (common > best.tokens && cache_.serves(blocks, common, std::min(common, length - 1))) {
      best = {common, &blocks};
    }
  };
  for (size_t i = 0; i < e.first; ++i) {
    const Sequence& s = active_[i];
    const int64_t prompt = prompt_of(s), first = prompt_length(prompt);
    int64_t common = common_tokens(ids.data(), length, prompt_ids(prompt), first);
    if (common == first) {
      common +=
          common_tokens(ids.data() + first, length - first, s.drawn.data(), cached(s) - first);
    }
    offer(common, s.blocks);
  }
  if (prompt_.index >= 0 && prompt_.computed < 0) {
    offer(common_tokens(ids.data(), length, prompt_ids(prompt_.index), prompt_.tokens),
          prompt_.blocks);
  }
  return best;
}

/* A text of the pass, if there is room for it and `bytes` more. */
rlsd_status Generation::add_text(std::vector<int32_t> ids, uint64_t bytes, Entering* e,
                                 bool* added) {
  const Beginning there = beginning_of(ids, *e);
  Prefill::Text text = e->prefill.begin(cache_, std::move(ids), there);
  const bool alone = e->prefill.texts().empty();
  if (!alone && e->prefill.rows() + text.rows() > m_->batch_tokens) return RLSD_OK;
  const auto blocks =
      static_cast<uint64_t>(KeyValueCache::blocks_of(text.length()) - text.there / RLSD_KEY_BLOCK);
  if (!has_room(bytes + blocks * cache_.block_bytes())) return RLSD_OK;
  if (there.kept && text.alike == 0) e->reused += text.from;
  *added = true;
  return e->prefill.add(&cache_, std::move(text));
}

/* The next completion that has never entered, with its prompt where that is not there. */
rlsd_status Generation::enter(Entering* e, bool* entered) {
  const int64_t prompt = next_ / o_.count, length = prompt_length(prompt);
  /* The last completion takes the prompt's last block, others a copy of it. */
  const bool last = e->alone || (next_ + 1) % o_.count == 0;
  const bool copies = length % RLSD_KEY_BLOCK != 0 && !last;
  const uint64_t copied = copies ? cache_.block_bytes() : 0;
  const bool computes = !e->computed.empty() && e->computed.back() >= 0;
  if (prompt == prompt_.index) {
    if ((prompt_.computed < 0 && computes) || !has_room(copied)) return RLSD_OK;
  } else {
    if (!e->computed.empty() && !computes) return RLSD_OK;
    bool added = false;
    RLSD_CHECK(add_text({prompt_ids(prompt), prompt_ids(prompt) + length}, copied, e, &added));
    if (!added) return RLSD_OK;
    prompt_ = {};
    prompt_.index = prompt;
    prompt_.blocks = e->prefill.texts().back().blocks;
    prompt_.tokens = length;
    prompt_.computed = static_cast<int64_t>(e->prefill.texts().size()) - 1;
  }
  Sequence s = {};
  s.index = next_;
  s.blocks = prompt_.blocks;
  if (copies) RLSD_CHECK(cache_.own_last(&s.blocks, &e->copies));
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
  RLSD_CHECK(add_text(std::move(ids), 0, e, entered));
  if (!*entered) return RLSD_OK;
  e->computed.push_back(static_cast<int32_t>(e->prefill.texts().size()) - 1);
  active_.push_back(std::move(put_back_.back()));
  active_.back().blocks = e->prefill.texts().back().blocks;
  put_back_.pop_back();
  return RLSD_OK;
}

rlsd_status Generation::compute(const Entering& e, std::vector<Draw>* draws) {
  const int64_t width = m_->config.hidden;
  const auto count = static_cast<int64_t>(active_.size() - e.first);
  const auto texts = static_cast<int64_t>(e.prefill.texts().size());
  std::vector<int32_t> rows = e.computed; /* of hidden, by entering sequence */
  if (texts > 0) {
    RLSD_CHECK(e.prefill.run(m_, &rows_, &ends_));
  } else {
    std::fill(rows.begin(), rows.end(), 0);
  }
  const rlsd_tensor hidden =
      texts > 0 ? matrix(ends_.floats(), texts, width) : matrix(prompt_.hidden.floats(), 1, width);
  for (const BlockCopy& copy : e.copies) RLSD_CHECK(cache_.copy(copy));
  RLSD_CHECK(prepare(&m_->device, m_->config, count, Keep::kNothing, &activations_));
  Staging staging(&m_->device, &arrays_);
  RLSD_CHECK(staging.reserve(Staging::padded(rows.size() * sizeof(int32_t))));
  const int32_t* device_rows;
  RLSD_CHECK(staging.put(rows.data(), count, &device_rows));
  RLSD_CHECK(m_->device.gather(matrix(activations_.hidden, count, width), hidden, device_rows));
  const bool all_entered = e.alone || next_ % o_.count == 0;
  if (prompt_.computed >= 0 && !all_entered) {
    RLSD_CHECK(m_->device.reserve(&prompt_.hidden, static_cast<uint64_t>(width) * sizeof(float),
                                  "Hidden states"));
    const float* const last = ends_.floats() + prompt_.computed * width;
    RLSD_CHECK(m_->device.copy(prompt_.hidden.floats(), last, width));
  }
  RLSD_CHECK(sample(e.first, activations_.hidden, draws));
  prompt_.computed = -1;
  if (prompt_.index >= 0 && all_entered) {
    prompt_.tokens -= prompt_.tokens % RLSD_KEY_BLOCK;
    prompt_.blocks = cache_.filled(prompt_.blocks, prompt_.tokens, 0);
  }
  if (e.alone) prompt_ = {};
  remember(e);
  return RLSD_OK;
}

/* Where layers slide, a text that went on has given up what others that begin alike would need: the
 * texts are kept as they are now, with what a token sees that parts from them up to a block before
 * their end, as where the next turn of a conversation ends the prompt otherwise. */
void Generation::remember(const Entering& e) {
  prefixes_.reused += e.reused;
  prefixes_.computed += e.prefill.rows();
  if (!prefixes_.enabled() || !cache_.has(kSliding)) return;
  for (const Prefill::Text& text : e.prefill.texts()) {
    CachedTokens blocks = text.blocks;
    cache_.drop_unseen(&blocks, std::max<int64_t>(0, text.length() - RLSD_KEY_BLOCK));
    prefixes_.put(text.ids, std::move(blocks));
  }
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
