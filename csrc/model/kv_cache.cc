#include "model/kv_cache.h"

namespace rlsd::model {

uint64_t KeyValueCache::slot_bytes(const Config& c, int64_t length) {
  return 2 * static_cast<uint64_t>(c.layers * length * c.kv_width()) * sizeof(float);
}

rlsd_status KeyValueCache::allocate(int64_t slots, int64_t length) {
  const uint64_t bytes = static_cast<uint64_t>(slots) * slot_bytes(m_->config, length) / 2;
  RLSD_CHECK(m_->device.allocate(&k_, bytes, "Cached keys"));
  RLSD_CHECK(m_->device.allocate(&v_, bytes, "Cached values"));
  slots_ = slots;
  length_ = length;
  return RLSD_OK;
}

void KeyValueCache::release() {
  k_.reset();
  v_.reset();
}

rlsd_tensor KeyValueCache::view(const Buffer& buffer, int64_t layer) const {
  const Config& c = m_->config;
  const int64_t shape[] = {slots_, length_, c.kv_heads, c.head_dim};
  return contiguous(buffer.floats() + layer * slots_ * length_ * c.kv_width(), 4, shape);
}

rlsd_status KeyValueCache::append(int64_t layer, const float* k, const float* v, int64_t rows,
                                  const int32_t* slots, const int32_t* positions) {
  const Config& c = m_->config;
  const rlsd_backend_v1& table = m_->device.table();
  rlsd_context* context = m_->device.context();
  RLSD_CHECK(table.cache_append(context, keys(layer), cube(k, rows, c.kv_heads, c.head_dim), slots,
                                positions));
  return table.cache_append(context, values(layer), cube(v, rows, c.kv_heads, c.head_dim), slots,
                            positions);
}

}  // namespace rlsd::model
