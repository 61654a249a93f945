/* Sequences whose last tokens are scored, cut into passes that fit the activation memory; and
 * memory for their arrays. */
#ifndef RLSD_MODEL_BATCH_H_
#define RLSD_MODEL_BATCH_H_

#include <cstdint>
#include <vector>

#include "model/model.h"

namespace rlsd::model {

/* Host memory. Sequence b is ids[cu_seqlens[b] .. cu_seqlens[b + 1]): a prompt of prompt_lengths[b]
 * >= 1 tokens and its completion. N counts the completions' tokens. */
struct Sequences {
  const int32_t* ids;
  const int32_t* cu_seqlens;
  const int32_t* prompt_lengths;
  int64_t count;

  int64_t completion(int64_t b) const {
    return cu_seqlens[b + 1] - cu_seqlens[b] - prompt_lengths[b];
  }
  /* Rows that predict something, and those before them. */
  /* N */
  int64_t completions() const {
    int64_t n = 0;
    for (int64_t b = 0; b < count; ++b) n += completion(b);
    return n;
  }
  int64_t input_rows(int64_t b) const {
    return completion(b) > 0 ? prompt_lengths[b] + completion(b) - 1 : 0;
  }
};

/* Keys and values that a pass may hold for each row that it computes: those of shared rows lie
 * there once for every sequence. */
constexpr int64_t kKeysPerRow = 8;

/* Some neighbouring sequences. The last token of a sequence predicts nothing and is left out of the
 * input. */
struct MicroBatch {
  std::vector<int32_t> ids, cu_seqlens; /* input rows */
  std::vector<int32_t> rows, targets;   /* (n): the row that predicts each target */
  std::vector<int32_t> cu_targets;      /* (sequences + 1), from 0 */
  std::vector<int32_t> common; /* (sequences): first input rows that are those of the one before */
  int64_t first_sequence = 0, first_target = 0;

  int64_t sequences() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
  int64_t target_count() const { return static_cast<int64_t>(targets.size()); }
};

/* Micro-batches of at most `batch_tokens` input rows, or of one sequence; rows that a sequence has
 * in common with the one before it count once. With `beside`, which has as many sequences, of at
 * most as many rows of those too. */
std::vector<MicroBatch> split(const Sequences& sequences, int64_t batch_tokens,
                              const Sequences* beside = nullptr);

/* The sequences [first, first + count) as one micro-batch, targets counted from `first_target`. */
MicroBatch gather(const Sequences& sequences, int64_t first, int64_t count, int64_t first_target);

/* Parts of one device buffer, handed out in order. */
class Staging {
 public:
  Staging(Device* device, Buffer* buffer) : device_(device), buffer_(buffer) {}

  static uint64_t padded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

  rlsd_status reserve(uint64_t bytes) {
    return device_->reserve(buffer_, bytes, "Arrays of the batch");
  }

  template <class T>
  T* take(int64_t count) {
    auto* at = reinterpret_cast<T*>(reinterpret_cast<uint8_t*>(buffer_->floats()) + used_);
    used_ += padded(static_cast<uint64_t>(count) * sizeof(T));
    return at;
  }

  /* Copies host memory; NULL stays NULL. */
  template <class T>
  rlsd_status put(const T* host, int64_t count, const T** out) {
    *out = nullptr;
    if (host == nullptr) return RLSD_OK;
    T* const at = take<T>(count);
    *out = at;
    return device_->upload(at, host, static_cast<uint64_t>(count) * sizeof(T));
  }

 private:
  Device* device_;
  Buffer* buffer_;
  uint64_t used_ = 0;
};

}  // namespace rlsd::model

#endif
