#include "model/prefixes.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace rlsd::model {

int64_t common_tokens(const int32_t* a, int64_t a_length, const int32_t* b, int64_t b_length) {
  return std::mismatch(a, a + std::min(a_length, b_length), b).first - a;
}

void Prefixes::limit(uint64_t bytes) {
  limit_ = bytes;
  while (this->bytes() > limit_) drop_oldest();
}

void Prefixes::put(std::vector<int32_t> ids, CachedTokens blocks) {
  const auto length = static_cast<int64_t>(ids.size());
  /* Where layers slide, a shorter text has blocks that a longer one has given up. */
  const auto covered = [&](const Entry& e) {
    const auto own = static_cast<int64_t>(e.ids.size());
    const bool comparable = cache_->has(kSliding) ? own == length : own <= length;
    return comparable && common_tokens(e.ids.data(), own, ids.data(), length) == own;
  };
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(), covered), entries_.end());
  entries_.push_back({std::move(ids), std::move(blocks)});
  limit(limit_);
}

Beginning Prefixes::find(const int32_t* ids, int64_t length) {
  Beginning best;
  size_t of = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& e = entries_[i];
    const int64_t common =
        common_tokens(ids, length, e.ids.data(), static_cast<int64_t>(e.ids.size()));
    const int64_t from = std::min(common, length - 1);
    if (common <= best.tokens || !cache_->serves(e.blocks, common, from)) continue;
    best.tokens = common;
    of = i;
  }
  if (best.tokens == 0) return best;
  std::rotate(entries_.begin() + static_cast<ptrdiff_t>(of),
              entries_.begin() + static_cast<ptrdiff_t>(of) + 1, entries_.end());
  best.blocks = &entries_.back().blocks;
  best.kept = true;
  return best;
}

bool Prefixes::drop_oldest() {
  if (entries_.empty()) return false;
  entries_.erase(entries_.begin());
  return true;
}

uint64_t Prefixes::bytes() const {
  std::unordered_set<const Buffer*> counted;
  uint64_t bytes = 0;
  for (const Entry& e : entries_) {
    for (const LayerKind kind : kEachKind) {
      for (const CacheBlock& block : e.blocks.of[kind]) {
        if (block != nullptr && counted.insert(block.get()).second) bytes += block->bytes();
      }
    }
  }
  return bytes;
}

}  // namespace rlsd::model
