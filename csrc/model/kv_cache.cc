#include "model/kv_cache.h"

#include <algorithm>
#include <utility>

namespace rlsd::model {

KeyValueCache::KeyValueCache(Device* device, const Config& config)
    : device_(device), config_(config) {
  for (int64_t i = 0; i < config.layers; ++i) place_.push_back(layers_[kind_of(i)]++);
}

uint64_t KeyValueCache::room() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  uint64_t bytes = device_->available();
  for (const LayerKind kind : kEachKind) bytes += free_[kind].size() * bytes_of(kind);
  return bytes;
}

rlsd_status KeyValueCache::take(LayerKind kind, CacheBlock* block) {
  Buffer memory;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_[kind].empty()) {
      memory = std::move(free_[kind].back());
      free_[kind].pop_back();
    }
  }
  if (memory.empty()) {
    const auto allocate = [&] {
      return device_->allocate(&memory, bytes_of(kind), "Cached keys and values");
    };
    rlsd_status status = allocate();
    if (status == RLSD_OUT_OF_MEMORY && trim()) status = allocate(); /* there were others */
    RLSD_CHECK(status);
  }
  *block = CacheBlock(new Buffer(std::move(memory)),
                      [this, kind](Buffer* last) { give_back(kind, last); });
  return RLSD_OK;
}

void KeyValueCache::give_back(LayerKind kind, Buffer* block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_[kind].push_back(std::move(*block));
  delete block;
}

rlsd_status KeyValueCache::extend(CachedTokens* blocks, int64_t tokens) {
  const auto count = static_cast<size_t>(blocks_of(tokens));
  for (const LayerKind kind : kEachKind) {
    std::vector<CacheBlock>& all = blocks->of[kind];
    while (has(kind) && all.size() < count) {
      CacheBlock block;
      RLSD_CHECK(take(kind, &block));
      all.push_back(std::move(block));
    }
  }
  return RLSD_OK;
}

int64_t KeyValueCache::first_block(LayerKind kind, int64_t position) const {
  if (kind == kWhole) return 0;
  return std::max<int64_t>(0, position + 1 - config_.window) / RLSD_KEY_BLOCK;
}

bool KeyValueCache::serves(const CachedTokens& from, int64_t tokens, int64_t position) const {
  for (const LayerKind kind : kEachKind) {
    if (!has(kind)) continue;
    const std::vector<CacheBlock>& all = from.of[kind];
    const int64_t end = blocks_of(tokens);
    if (static_cast<int64_t>(all.size()) < end) return false;
    for (int64_t j = first_block(kind, position); j < end; ++j) {
      if (all[static_cast<size_t>(j)] == nullptr) return false;
    }
  }
  return true;
}

CachedTokens KeyValueCache::filled(const CachedTokens& from, int64_t tokens,
                                   int64_t position) const {
  CachedTokens out;
  for (const LayerKind kind : kEachKind) {
    if (!has(kind)) continue;
    const auto begin = from.of[kind].begin();
    out.of[kind].assign(begin, begin + tokens / RLSD_KEY_BLOCK);
  }
  drop_unseen(&out, position);
  return out;
}

rlsd_status KeyValueCache::own_last(CachedTokens* blocks, std::vector<BlockCopy>* copies) {
  for (const LayerKind kind : kEachKind) {
    if (!has(kind)) continue;
    CacheBlock block;
    RLSD_CHECK(take(kind, &block));
    copies->push_back({block, std::exchange(blocks->of[kind].back(), block)});
  }
  return RLSD_OK;
}

void KeyValueCache::drop_unseen(CachedTokens* blocks, int64_t position) const {
  std::vector<CacheBlock>& all = blocks->of[kSliding];
  const int64_t first = std::min<int64_t>(first_block(kSliding, position), all.size());
  /* Those before one that is gone are gone. */
  for (int64_t j = first; j-- > 0 && all[static_cast<size_t>(j)] != nullptr;) {
    all[static_cast<size_t>(j)].reset();
  }
}

rlsd_status KeyValueCache::copy(const BlockCopy& c) {
  const auto floats = static_cast<int64_t>(c.to->bytes() / sizeof(float));
  return device_->copy(c.to->floats(), c.from->floats(), floats);
}

bool KeyValueCache::trim() {
  const std::lock_guard<std::mutex> lock(mutex_);
  bool any = false;
  for (std::vector<Buffer>& blocks : free_) {
    any = any || !blocks.empty();
    blocks.clear();
  }
  return any;
}

rlsd_status KeyValueCache::append(int64_t layer, const float* k, const float* v, int64_t rows,
                                  float* const* blocks, const int32_t* positions) {
  const Config& c = config_;
  return device_->table().cache_append(device_->context(), cube(k, rows, c.kv_heads, c.head_dim),
                                       cube(v, rows, c.kv_heads, c.head_dim), blocks, positions,
                                       keys_at(layer), values_at(layer));
}

}  // namespace rlsd::model
