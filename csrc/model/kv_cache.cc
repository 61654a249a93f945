#include "model/kv_cache.h"

namespace rlsd::model {

namespace {

int64_t blocks_of(int64_t length) { return (length + RLSD_KEY_BLOCK - 1) / RLSD_KEY_BLOCK; }

uint64_t bytes_of(const Config& c, int64_t tokens) {
  return static_cast<uint64_t>(c.layers * tokens * c.kv_width()) * sizeof(float);
}

}  // namespace

uint64_t KeyValueCache::slot_bytes(const Config& c, int64_t length) {
  return bytes_of(c, blocks_of(length) * RLSD_KEY_BLOCK) + bytes_of(c, length);
}

rlsd_status KeyValueCache::allocate(int64_t slots, int64_t length) {
  const Config& c = m_->config;
  const uint64_t keys = bytes_of(c, slots * blocks_of(length) * RLSD_KEY_BLOCK);
  RLSD_CHECK(m_->device.allocate(&k_, keys, "Cached keys"));
  RLSD_CHECK(m_->device.allocate(&v_, bytes_of(c, slots * length), "Cached values"));
  slots_ = slots;
  length_ = length;
  return RLSD_OK;
}

void KeyValueCache::release() {
  k_.reset();
  v_.reset();
}

rlsd_tensor KeyValueCache::keys(int64_t layer) const {
  const Config& c = m_->config;
  const int64_t blocks = blocks_of(length_), width = c.head_dim * RLSD_KEY_BLOCK;
  const int64_t shape[] = {slots_, c.kv_heads, blocks, width};
  return contiguous(k_.floats() + layer * slots_ * c.kv_heads * blocks * width, 4, shape);
}

rlsd_tensor KeyValueCache::values(int64_t layer) const {
  const Config& c = m_->config;
  const int64_t shape[] = {slots_, length_, c.kv_heads, c.head_dim};
  return contiguous(v_.floats() + layer * slots_ * length_ * c.kv_width(), 4, shape);
}

rlsd_status KeyValueCache::append(int64_t layer, const float* k, const float* v, int64_t rows,
                                  const int32_t* slots, const int32_t* positions) {
  const Config& c = m_->config;
  return m_->device.table().cache_append(m_->device.context(), keys(layer), values(layer),
                                         cube(k, rows, c.kv_heads, c.head_dim),
                                         cube(v, rows, c.kv_heads, c.head_dim), slots, positions);
}

}  // namespace rlsd::model
