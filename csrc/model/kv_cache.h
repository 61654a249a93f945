/* Keys and values of running sequences, in blocks of RLSD_KEY_BLOCK tokens that hold every layer's,
 * as rlsd_attention_decode_args has them. */
#ifndef RLSD_MODEL_KV_CACHE_H_
#define RLSD_MODEL_KV_CACHE_H_

#include <memory>
#include <vector>

#include "model/model.h"

namespace rlsd::model {

/* Goes back to its cache with the last sequence that has it. */
using CacheBlock = std::shared_ptr<Buffer>;

class KeyValueCache {
 public:
  explicit KeyValueCache(Model* model) : m_(model) {}

  static int64_t blocks_of(int64_t tokens) {
    return (tokens + RLSD_KEY_BLOCK - 1) / RLSD_KEY_BLOCK;
  }

  /* Blocks that can be taken now. */
  int64_t room() const;
  /* A block that nobody has. The cache has to outlive it. */
  rlsd_status take(CacheBlock* block);
  rlsd_status copy(const CacheBlock& to, const CacheBlock& from);
  /* Gives back the memory of blocks that nobody has; false: there was none. */
  bool trim();

  /* Floats from a block's beginning to the layer's keys and values. */
  int64_t keys_at(int64_t layer) const { return 2 * layer * layer_floats(); }
  int64_t values_at(int64_t layer) const { return (2 * layer + 1) * layer_floats(); }

  /* Row i of k and v (rows, kv_heads, D) goes to blocks[i] at positions[i] % RLSD_KEY_BLOCK;
   * blocks[i] NULL: nowhere. Device memory. */
  rlsd_status append(int64_t layer, const float* k, const float* v, int64_t rows,
                     float* const* blocks, const int32_t* positions);

 private:
  int64_t layer_floats() const { return RLSD_KEY_BLOCK * m_->config.kv_width(); }
  uint64_t block_bytes() const {
    return static_cast<uint64_t>(keys_at(m_->config.layers)) * sizeof(float);
  }

  Model* m_;
  std::vector<Buffer> free_;
};

/* Stores the keys and values of packed rows. Device memory. */
class PrefillSink final : public KeyValueSink {
 public:
  PrefillSink(KeyValueCache* cache, float* const* blocks, const int32_t* positions, int64_t rows)
      : cache_(cache), blocks_(blocks), positions_(positions), rows_(rows) {}

  rlsd_status store(int64_t layer, const float* k, const float* v) override {
    return cache_->append(layer, k, v, rows_, blocks_, positions_);
  }

 private:
  KeyValueCache* cache_;
  float* const* blocks_;
  const int32_t* positions_;
  int64_t rows_;
};

}  // namespace rlsd::model

#endif
