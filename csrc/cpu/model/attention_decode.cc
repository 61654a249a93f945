/* Attention of one new token a sequence against a cache of blocks. Neighbouring sequences that have
 * a block in common, completions of one prompt, read it together: every row of a few sequences goes
 * over it before the next block is touched. Each row meets its blocks in their order, with the
 * arithmetic of packed sequences. */
#include "cpu/model/attention_block.h"
#include "cpu/model/attention_heads.h"
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kTogether = 8; /* sequences of one task */

bool begin_alike(const rlsd_attention_decode_args& a, int64_t i, int64_t j) {
  return a.blocks[i * a.most_blocks] == a.blocks[j * a.most_blocks];
}

/* The end of the task that begins with sequence i, its neighbours that have its first block; i
 * itself where another task has sequence i. */
int64_t end_of_task(const rlsd_attention_decode_args& a, int64_t i) {
  int64_t first = i, end = i;
  while (first > 0 && begin_alike(a, first - 1, i)) --first;
  if ((i - first) % kTogether != 0) return i;
  while (end < std::min(a.q.shape[0], i + kTogether) && begin_alike(a, end, i)) ++end;
  return end;
}

/* The sequences [begin, end) of one kv head. */
class DecodeTask {
 public:
  DecodeTask(const rlsd_attention_decode_args& a, const Heads& h, int64_t kv_head, int64_t begin,
             int64_t end)
      : a_(a), h_(h), kv_head_(kv_head), begin_(begin), end_(end) {}

  void run() {
    for (int64_t i = begin_; i < end_; ++i) {
      std::memset(out(i, 0), 0, static_cast<size_t>(h_.group * h_.dim) * sizeof(float));
      for (int64_t g = 0; g < h_.group; ++g) state(i, g) = {-HUGE_VALF, 0.0f};
    }
    const int64_t longest = *std::max_element(a_.lengths + begin_, a_.lengths + end_);
    const int64_t shortest = *std::min_element(a_.lengths + begin_, a_.lengths + end_);
    for (int64_t j = Window{a_.window}.first_key(shortest - 1) / kKeys; j * kKeys < longest; ++j)
      visit(j);
    for (int64_t i = begin_; i < end_; ++i) {
      for (int64_t g = 0; g < h_.group; ++g) finish_row(out(i, g), state(i, g), h_.dim);
    }
  }

 private:
  const float* q(int64_t i, int64_t g) const {
    return f32(a_.q) + i * a_.q.stride[0] + (kv_head_ * h_.group + g) * h_.dim;
  }
  float* out(int64_t i, int64_t g) const {
    return f32(a_.out) + i * a_.out.stride[0] + (kv_head_ * h_.group + g) * h_.dim;
  }
  SoftmaxState& state(int64_t i, int64_t g) { return states_[(i - begin_) * h_.group + g]; }
  const float* block(int64_t i, int64_t j) const { return a_.blocks[i * a_.most_blocks + j]; }
  /* Of block j; empty where sequence i sees nothing of it. */
  KeyRange seen(int64_t i, int64_t j) const {
    const int64_t position = a_.lengths[i] - 1;
    const KeyRange range = Window{a_.window}.in_block(j * kKeys, position);
    return position < j * kKeys || range.first >= kKeys ? KeyRange{0, 0} : range;
  }
  bool sees_all(int64_t i, int64_t j) const {
    const KeyRange range = seen(i, j);
    return range.first == 0 && range.end == kKeys;
  }

  /* Block j of every sequence that sees some of it. */
  void visit(int64_t j) {
    for (int64_t i = begin_, next; i < end_; i = next) {
      next = i + 1;
      if (seen(i, j).end == 0) continue;
      if (sees_all(i, j)) {
        while (next < end_ && sees_all(next, j) && block(next, j) == block(i, j)) ++next;
      }
      attend(i, next, j);
    }
  }

  /* Sequences [i, next) over the block j that they have in common. */
  void attend(int64_t i, int64_t next, int64_t j) {
    const float* const at = block(i, j) + kv_head_ * h_.dim * kKeys;
    const float *const k = at + a_.k_offset, *const v = at + a_.v_offset;
    const auto scale = static_cast<float>(a_.scale);
    const int64_t rows = (next - i) * h_.group;
    for (int64_t first = 0; first < rows; first += kRowTile) {
      const int64_t count = std::min<int64_t>(kRowTile, rows - first);
      BlockRow tile[kRowTile];
      for (int64_t r = 0; r < count; ++r) {
        const int64_t s = i + (first + r) / h_.group, g = (first + r) % h_.group;
        tile[r] = {q(s, g), &state(s, g), out(s, g)};
      }
      attend_block(tile, count, k, v, h_.dim, seen(i, j), h_.dim, scale);
    }
  }

  const rlsd_attention_decode_args& a_;
  const Heads& h_;
  const int64_t kv_head_, begin_, end_;
  SoftmaxState states_[kTogether * kMaxGroup];
};

}  // namespace

rlsd_status attention_decode(rlsd_context* context, const rlsd_attention_decode_args* a) {
  Heads h;
  const rlsd_status status = read_heads(context, a->q, a->kv_heads, &h);
  if (status != RLSD_OK) return status;
  const int64_t sequences = a->q.shape[0];
  int64_t length = 0;
  for (int64_t i = 0; i < sequences; ++i) length = std::max<int64_t>(length, a->lengths[i]);
  const int64_t cost = (h.group + 1) * (Window{a->window}.most(length) + kKeys) * (2 * h.dim + 16);
  return parallel_rows(context, sequences * h.kv_heads, cost, [&](int64_t from, int64_t to) {
    for (int64_t task = from; task < to; ++task) {
      const int64_t begin = task / h.kv_heads, end = end_of_task(*a, begin);
      if (end > begin) DecodeTask(*a, h, task % h.kv_heads, begin, end).run();
    }
  });
}

rlsd_status cache_append(rlsd_context* context, rlsd_tensor k, rlsd_tensor v, float* const* blocks,
                         const int32_t* positions, int64_t k_offset, int64_t v_offset) {
  const int64_t heads = k.shape[1], dim = k.shape[2];
  if (!is_f32(k, 3) || !is_f32(v, 3)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "cache_append: expected f32 (R, kv_heads, D).");
  }
  return parallel_rows(context, k.shape[0], 2 * heads * dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (blocks[i] == nullptr) continue;
      const int64_t place = positions[i] % kKeys;
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t from = i * k.stride[0] + head * dim;
        float* const keys = blocks[i] + k_offset + head * dim * kKeys + place;
        float* const values = blocks[i] + v_offset + (head * kKeys + place) * dim;
        for (int64_t d = 0; d < dim; ++d) keys[d * kKeys] = f32(k)[from + d];
        std::memcpy(values, f32(v) + i * v.stride[0] + head * dim,
                    static_cast<size_t>(dim) * sizeof(float));
      }
    }
  });
}

}  // namespace rlsd::cpu
