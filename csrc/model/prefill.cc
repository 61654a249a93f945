#include "model/prefill.h"

#include <algorithm>
#include <utility>

namespace rlsd::model {
namespace {

/* Its first `tokens` come from blocks that are there, or will be. */
void take(const KeyValueCache& cache, const CachedTokens& from, int64_t tokens, bool partly,
          Prefill::Text* text) {
  text->blocks = cache.filled(from, tokens, text->from);
  text->there = tokens / RLSD_KEY_BLOCK * RLSD_KEY_BLOCK;
  if (tokens == text->there || !partly) return;
  for (const LayerKind kind : kEachKind) {
    if (cache.has(kind)) {
      text->partial[kind] = from.of[kind][static_cast<size_t>(tokens / RLSD_KEY_BLOCK)];
    }
  }
}

}  // namespace

Prefill::Text Prefill::begin(const KeyValueCache& cache, std::vector<int32_t> ids,
                             const Beginning& there) const {
  Text text;
  text.ids = std::move(ids);
  const int64_t last = text.length() - 1;
  if (!texts_.empty()) {
    const Text& before = texts_.back();
    const int64_t common =
        common_tokens(text.ids.data(), text.length(), before.ids.data(), before.length());
    const bool same = common == text.length() && common == before.length();
    text.from = same ? common : std::min(common, last); /* else its last row is wanted */
    if (common > 0 && common >= there.tokens && cache.serves(before.blocks, common, text.from)) {
      const auto first = static_cast<size_t>(common / RLSD_KEY_BLOCK * RLSD_KEY_BLOCK);
      text.alike = common;
      const bool partly = first < before.row_of.size() && before.row_of[first] < 0;
      take(cache, before.blocks, common, partly, &text);
      return text;
    }
  }
  text.from = std::min(there.tokens, last);
  if (there.tokens > 0) take(cache, *there.blocks, there.tokens, true, &text);
  return text;
}

rlsd_status Prefill::add(KeyValueCache* cache, Text text) {
  const Text* const before = texts_.empty() ? nullptr : &texts_.back();
  RLSD_CHECK(cache->extend(&text.blocks, text.length()));
  for (const LayerKind kind : kEachKind) {
    if (text.partial[kind] == nullptr) continue;
    const auto at = static_cast<size_t>(text.there / RLSD_KEY_BLOCK);
    copies_.push_back({text.blocks.of[kind][at], std::exchange(text.partial[kind], nullptr)});
  }
  for (int64_t t = 0; t < text.length(); ++t) {
    const int64_t shared = t < text.alike ? before->row_of[static_cast<size_t>(t)] : -1;
    text.row_of.push_back(t < text.from ? shared : rows_ + t - text.from);
  }
  rows_ += text.rows();
  texts_.push_back(std::move(text));
  const Text& added = texts_.back();
  for (int64_t t = added.there; t < std::min(added.alike, added.from); ++t) {
    const int64_t row = added.row_of[static_cast<size_t>(t)];
    if (row >= 0) also_.push_back({row, t, &added.blocks});
  }
  return RLSD_OK;
}

rlsd_status Prefill::run(Model* m, Buffer* arrays, Buffer* ends) const {
  const auto count = static_cast<uint64_t>(texts_.size());
  RLSD_CHECK(m->device.reserve(
      ends, count * static_cast<uint64_t>(m->config.hidden) * sizeof(float), "Hidden states"));
  for (const BlockCopy& copy : copies_) RLSD_CHECK(m->cache.copy(copy));
  for (int64_t begin = 0; begin < rows_; begin += m->batch_tokens) {
    const int64_t end = std::min(rows_, begin + m->batch_tokens);
    RLSD_CHECK(run_rows(m, arrays, begin, end, ends->floats()));
  }
  return RLSD_OK;
}

/* The rows [begin, end): the last of some text, all of others, the first of one more. */
rlsd_status Prefill::run_rows(Model* m, Buffer* arrays, int64_t begin, int64_t end,
                              float* ends) const {
  std::vector<NewTokens> tokens;
  int64_t first = 0;
  for (const Text& text : texts_) {
    const int64_t from = std::max(begin, first), to = std::min(end, first + text.rows());
    const int64_t position = text.from + from - first;
    if (from < to) {
      tokens.push_back({text.ids.data() + position, to - from, position, &text.blocks, text.there});
    }
    first += text.rows();
  }
  std::vector<AlsoStored> also;
  for (const AlsoStored& s : also_) {
    if (s.row >= begin && s.row < end) also.push_back({s.row - begin, s.position, s.blocks});
  }
  RLSD_CHECK(CachedPass(m, arrays).forward(tokens, also, &m->activations));
  return put_ends(m, arrays, begin, end, ends);
}

/* Texts end in the order of their rows. */
rlsd_status Prefill::put_ends(Model* m, Buffer* arrays, int64_t begin, int64_t end,
                              float* ends) const {
  std::vector<int32_t> rows;
  int64_t before = 0;
  for (const Text& text : texts_) {
    const int64_t row = text.row_of.back();
    before += row < begin;
    if (row >= begin && row < end) rows.push_back(static_cast<int32_t>(row - begin));
  }
  if (rows.empty()) return RLSD_OK;
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t width = m->config.hidden;
  Staging staging(&m->device, arrays);
  RLSD_CHECK(staging.reserve(Staging::padded(rows.size() * sizeof(int32_t))));
  const int32_t* device_rows;
  RLSD_CHECK(staging.put(rows.data(), count, &device_rows));
  return m->device.gather(matrix(ends + before * width, count, width),
                          matrix(m->activations.hidden, end - begin, width), device_rows);
}

}  // namespace rlsd::model
