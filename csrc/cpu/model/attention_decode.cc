/* Attention of new tokens against a cache of blocks. Queries that see a block as a whole read it
 * together: those of one sequence, and those of neighbours that have the block in common, as
 * completions of one prompt do. Every query of a task goes over a block before the next one is
 * touched. Each query meets its blocks in their order, with the arithmetic of packed sequences. */
#include "cpu/model/attention_block.h"
#include "cpu/model/attention_heads.h"
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kTogether = 8; /* sequences of one task */
constexpr int64_t kQueries = 32; /* of one task */
constexpr int64_t kTasks = 256; /* that are listed at once: as many as the engine draws sequences */

/* A row of q: its sequence, and its place there. */
struct Query {
  int64_t sequence, position;
};

int64_t queries_of(const rlsd_attention_decode_args& a, int64_t sequence) {
  return a.cu_queries[sequence + 1] - a.cu_queries[sequence];
}

Query query_at(const rlsd_attention_decode_args& a, int64_t row) {
  const int32_t* const cu = a.cu_queries;
  const int64_t sequence = std::upper_bound(cu, cu + a.sequences + 1, row) - cu - 1;
  return {sequence, a.lengths[sequence] - (cu[sequence + 1] - row)};
}

/* Whether the first block that both see is one and the same; of sequences with one query each. */
bool begin_alike(const rlsd_attention_decode_args& a, int64_t x, int64_t y) {
  if (queries_of(a, x) != 1 || queries_of(a, y) != 1) return false;
  const int64_t j = Window{a.window}.first_key(std::max(a.lengths[x], a.lengths[y]) - 1) / kKeys;
  return j * kKeys < std::min(a.lengths[x], a.lengths[y]) &&
         a.blocks[x * a.most_blocks + j] == a.blocks[y * a.most_blocks + j];
}

/* The end of the task that begins with a row: others of its sequence, or neighbours that begin
 * alike. */
int64_t end_of_task(const rlsd_attention_decode_args& a, int64_t row) {
  const int64_t sequence = query_at(a, row).sequence;
  if (queries_of(a, sequence) > 1) {
    return std::min<int64_t>(row + kQueries, a.cu_queries[sequence + 1]);
  }
  int64_t end = sequence + 1;
  while (end < std::min(a.sequences, sequence + kTogether) && begin_alike(a, end - 1, end)) ++end;
  return row + end - sequence;
}

/* Tasks from row starts[0] on: the first row of each, and the end of the last. How many. */
int64_t list_tasks(const rlsd_attention_decode_args& a, int64_t rows, int64_t* starts) {
  int64_t tasks = 0;
  for (; tasks < kTasks && starts[tasks] < rows; ++tasks) {
    starts[tasks + 1] = end_of_task(a, starts[tasks]);
  }
  return tasks;
}

/* The queries [begin, end) of one kv head. */
class DecodeTask {
 public:
  DecodeTask(const rlsd_attention_decode_args& a, const Heads& h, int64_t kv_head, int64_t begin,
             int64_t end, const volatile int32_t* cancel)
      : a_(a), h_(h), kv_head_(kv_head), begin_(begin), end_(end), cancel_(cancel) {
    for (int64_t i = begin; i < end; ++i) queries_[i - begin] = query_at(a, i);
  }

  void run() {
    int64_t first = INT64_MAX, last = 0;
    for (int64_t i = begin_; i < end_; ++i) {
      std::memset(out(i, 0), 0, static_cast<size_t>(h_.group * h_.dim) * sizeof(float));
      for (int64_t g = 0; g < h_.group; ++g) state(i, g) = {-HUGE_VALF, 0.0f};
      first = std::min(first, Window{a_.window}.first_key(query(i).position));
      last = std::max(last, query(i).position);
    }
    for (int64_t j = first / kKeys; j * kKeys <= last && !is_raised(cancel_); ++j) visit(j);
    for (int64_t i = begin_; i < end_; ++i) {
      for (int64_t g = 0; g < h_.group; ++g) finish_row(out(i, g), state(i, g), h_.dim);
    }
  }

 private:
  const Query& query(int64_t i) const { return queries_[i - begin_]; }
  const float* q(int64_t i, int64_t g) const {
    return f32(a_.q) + i * a_.q.stride[0] + (kv_head_ * h_.group + g) * h_.dim;
  }
  float* out(int64_t i, int64_t g) const {
    return f32(a_.out) + i * a_.out.stride[0] + (kv_head_ * h_.group + g) * h_.dim;
  }
  SoftmaxState& state(int64_t i, int64_t g) { return states_[(i - begin_) * h_.group + g]; }
  const float* block(int64_t i, int64_t j) const {
    return a_.blocks[query(i).sequence * a_.most_blocks + j];
  }
  /* Of block j; empty where query i sees nothing of it. */
  KeyRange seen(int64_t i, int64_t j) const {
    const int64_t position = query(i).position;
    const KeyRange range = Window{a_.window}.in_block(j * kKeys, position);
    return position < j * kKeys || range.first >= kKeys ? KeyRange{0, 0} : range;
  }
  bool sees_all(int64_t i, int64_t j) const { return seen(i, j).whole(); }

  /* Block j of every query that sees some of it. */
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

  /* Queries [i, next) over the block j that they have in common. */
  void attend(int64_t i, int64_t next, int64_t j) {
    const float* const at = block(i, j) + kv_head_ * h_.dim * kKeys;
    const float *const k = at + a_.k_offset, *const v = at + a_.v_offset;
    const auto scale = static_cast<float>(a_.scale);
    const auto row = [this](int64_t of, int64_t g) {
      return BlockRow{q(of, g), &state(of, g), out(of, g)};
    };
    for_tiles<BlockRow>(i, next, h_.group, row, [&](const BlockRow* tile, int64_t count) {
      attend_block(tile, count, {k, v, h_.dim}, seen(i, j), h_.dim, scale);
    });
  }

  const rlsd_attention_decode_args& a_;
  const Heads& h_;
  const int64_t kv_head_, begin_, end_;
  const volatile int32_t* const cancel_; /* looked at before each block of keys */
  Query queries_[kQueries];
  SoftmaxState states_[kQueries * kMaxGroup];
};

}  // namespace

rlsd_status attention_decode(rlsd_context* context, const rlsd_attention_decode_args* a) {
  Heads h;
  rlsd_status status = read_heads(context, a->q, a->kv_heads, &h);
  if (status != RLSD_OK) return status;
  int64_t length = 0;
  for (int64_t b = 0; b < a->sequences; ++b) length = std::max<int64_t>(length, a->lengths[b]);
  const int64_t cost = (h.group + 1) * (Window{a->window}.most(length) + kKeys) * (2 * h.dim + 16);
  const int64_t rows = a->q.shape[0];
  int64_t starts[kTasks + 1] = {0};
  while (status == RLSD_OK && starts[0] < rows) {
    const int64_t tasks = list_tasks(*a, rows, starts);
    const int64_t task_cost = cost * ((starts[tasks] - starts[0]) / tasks);
    status = parallel_rows(context, tasks * h.kv_heads, task_cost, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t task = i / h.kv_heads;
        DecodeTask(*a, h, i % h.kv_heads, starts[task], starts[task + 1], context->cancel).run();
      }
    });
    starts[0] = starts[tasks];
  }
  return cut_short(context, status);
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
