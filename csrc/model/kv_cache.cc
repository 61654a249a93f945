#include "model/kv_cache.h"

#include <algorithm>
#include <utility>

namespace rlsd::model {

int64_t KeyValueCache::room() const {
  const uint64_t more = m_->device.available() / std::max<uint64_t>(block_bytes(), 1);
  return static_cast<int64_t>(free_.size() + more);
}

rlsd_status KeyValueCache::take(CacheBlock* block) {
  Buffer memory;
  if (free_.empty()) {
    RLSD_CHECK(m_->device.allocate(&memory, block_bytes(), "Cached keys and values"));
  } else {
    memory = std::move(free_.back());
    free_.pop_back();
  }
  *block = CacheBlock(new Buffer(std::move(memory)), [this](Buffer* last) {
    free_.push_back(std::move(*last));
    delete last;
  });
  return RLSD_OK;
}

rlsd_status KeyValueCache::copy(const CacheBlock& to, const CacheBlock& from) {
  return m_->device.copy(to->floats(), from->floats(), keys_at(m_->config.layers));
}

bool KeyValueCache::trim() {
  const bool any = !free_.empty();
  free_.clear();
  return any;
}

rlsd_status KeyValueCache::append(int64_t layer, const float* k, const float* v, int64_t rows,
                                  float* const* blocks, const int32_t* positions) {
  const Config& c = m_->config;
  return m_->device.table().cache_append(
      m_->device.context(), cube(k, rows, c.kv_heads, c.head_dim),
      cube(v, rows, c.kv_heads, c.head_dim), blocks, positions, keys_at(layer), values_at(layer));
}

}  // namespace rlsd::model
