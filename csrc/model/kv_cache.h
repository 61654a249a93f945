/* Keys and values of cached tokens, in blocks of RLSD_KEY_BLOCK tokens as
 * rlsd_attention_decode_args has them. Layers that slide have blocks of their own, which go once no
 * later token can see them; a block holds the keys and values of all its layers. */
#ifndef RLSD_MODEL_KV_CACHE_H_
#define RLSD_MODEL_KV_CACHE_H_

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "model/device.h"
#include "model/layout.h"

namespace rlsd::model {

/* Layers that see all tokens, and those that slide. */
enum LayerKind { kWhole, kSliding, kLayerKinds };
constexpr LayerKind kEachKind[] = {kWhole, kSliding};

/* Goes back to its cache with the last that has it. */
using CacheBlock = std::shared_ptr<Buffer>;

/* Blocks of a sequence's first tokens, by kind of layer: in order, NULL where no later token sees
 * any; a kind without layers has none. */
struct CachedTokens {
  std::array<std::vector<CacheBlock>, kLayerKinds> of;
};

/* What is copied once both are there. */
struct BlockCopy {
  CacheBlock to, from;
};

class KeyValueCache {
 public:
  KeyValueCache(Device* device, const Config& config);

  static int64_t blocks_of(int64_t tokens) {
    return (tokens + RLSD_KEY_BLOCK - 1) / RLSD_KEY_BLOCK;
  }
  LayerKind kind_of(int64_t layer) const { return config_.slides(layer) ? kSliding : kWhole; }
  bool has(LayerKind kind) const { return layers_[kind] > 0; }

  /* Bytes that blocks can be made of now, and of a block of each kind. */
  uint64_t room() const;
  uint64_t block_bytes() const { return bytes_of(kWhole) + bytes_of(kSliding); }
  uint64_t bytes_of(LayerKind kind) const {
    return static_cast<uint64_t>(2 * layers_[kind] * layer_floats()) * sizeof(float);
  }

  /* Blocks up to `tokens`. They must not outlive the cache. */
  rlsd_status extend(CachedTokens* blocks, int64_t tokens);
  /* Whether `from` has what a token at `position` and later ones see of its first `tokens`. */
  bool serves(const CachedTokens& from, int64_t tokens, int64_t position) const;
  /* The blocks of `from` that its first `tokens` fill and a token at `position` sees. */
  CachedTokens filled(const CachedTokens& from, int64_t tokens, int64_t position) const;
  /* New blocks in the place of the last ones, of which they become copies. */
  rlsd_status own_last(CachedTokens* blocks, std::vector<BlockCopy>* copies);
  /* Gives up the blocks that no token from `position` on sees. */
  void drop_unseen(CachedTokens* blocks, int64_t position) const;
  rlsd_status copy(const BlockCopy& c);
  /* Gives back the memory of blocks that nobody has; false: there was none. */
  bool trim();

  /* Floats from a block's beginning to the layer's keys and values. */
  int64_t keys_at(int64_t layer) const {
    return 2 * place_[static_cast<size_t>(layer)] * layer_floats();
  }
  int64_t values_at(int64_t layer) const { return keys_at(layer) + layer_floats(); }

  /* Row i of k and v (rows, kv_heads, D) goes to blocks[i] at positions[i] % RLSD_KEY_BLOCK;
   * blocks[i] NULL: nowhere. Device memory. */
  rlsd_status append(int64_t layer, const float* k, const float* v, int64_t rows,
                     float* const* blocks, const int32_t* positions);

 private:
  int64_t layer_floats() const { return RLSD_KEY_BLOCK * config_.kv_width(); }
  /* The first block that a token at `position` sees. */
  int64_t first_block(LayerKind kind, int64_t position) const;
  rlsd_status take(LayerKind kind, CacheBlock* block);
  void give_back(LayerKind kind, Buffer* block);

  Device* device_;
  const Config& config_;
  std::array<int64_t, kLayerKinds> layers_ = {};
  std::vector<int64_t> place_; /* by layer: which of its kind */
  mutable std::mutex mutex_; /* a collected generation may give its blocks back on another thread */
  std::array<std::vector<Buffer>, kLayerKinds> free_;
};

}  // namespace rlsd::model

#endif
