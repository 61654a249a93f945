/* Keys and values of running sequences, as rlsd_attention_decode_args has them for each layer. */
#ifndef RLSD_MODEL_KV_CACHE_H_
#define RLSD_MODEL_KV_CACHE_H_

#include "model/model.h"

namespace rlsd::model {

class KeyValueCache {
 public:
  explicit KeyValueCache(Model* model) : m_(model) {}

  bool empty() const { return k_.empty(); }
  int64_t slots() const { return slots_; }

  /* Bytes that one slot of `length` tokens takes. */
  static uint64_t slot_bytes(const Config& config, int64_t length);

  rlsd_status allocate(int64_t slots, int64_t length);
  void release();

  rlsd_tensor keys(int64_t layer) const;
  rlsd_tensor values(int64_t layer) const;

  /* Row i of k and v (rows, kv_heads, D) goes to slots[i] at positions[i]; slots[i] < 0: nowhere.
   */
  rlsd_status append(int64_t layer, const float* k, const float* v, int64_t rows,
                     const int32_t* slots, const int32_t* positions);

 private:
  Model* m_;
  int64_t slots_ = 0, length_ = 0;
  Buffer k_, v_;
};

/* Stores the keys and values of a packed prefill for every completion of its prompts: copy c of row
 * i goes to slots[c * rows + i]. */
class PrefillSink final : public KeyValueSink {
 public:
  PrefillSink(KeyValueCache* cache, const int32_t* slots, const int32_t* positions, int64_t rows,
              int64_t copies)
      : cache_(cache), slots_(slots), positions_(positions), rows_(rows), copies_(copies) {}

  rlsd_status store(int64_t layer, const float* k, const float* v) override {
    for (int64_t c = 0; c < copies_; ++c) {
      RLSD_CHECK(cache_->append(layer, k, v, rows_, slots_ + c * rows_, positions_));
    }
    return RLSD_OK;
  }

 private:
  KeyValueCache* cache_;
  const int32_t *slots_, *positions_;
  int64_t rows_, copies_;
};

}  // namespace rlsd::model

#endif
