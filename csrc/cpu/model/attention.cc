/* Causal attention with grouped queries over packed sequences (scoring, training).
 *
 *   out_i = sum over i - window < j <= i of p_ij v_j,   p_ij = exp(scale q_i . k_j - lse_i)
 * Backward, with delta_i = d_out_i . out_i and ds_ij = p_ij (d_out_i . v_j - delta_i) scale:
 *   dq_i = sum_j ds_ij k_j    dk_j = sum_i ds_ij q_i    dv_j = sum_i p_ij d_out_i
 * Scores exist only for a few rows and one block of keys at a time: those of queries that see the
 * whole block are computed together. Blocks that no query of a task sees are not visited. Without a
 * window every j <= i counts. */
#include "cpu/model/attention_block.h"
#include "cpu/model/attention_heads.h"
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"
#include "cpu/workspace.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kQueries = 32; /* rows that share one packed block of keys */

int64_t longest(const int32_t* cu_seqlens, int64_t sequences) {
  int64_t length = 0;
  for (int64_t b = 0; b < sequences; ++b)
    length = std::max<int64_t>(length, cu_seqlens[b + 1] - cu_seqlens[b]);
  return length;
}

/* Keys, values and query rows of one sequence and one kv head. Row i of `rows` query rows has the
 * sequence's position first + i. */
struct Slice {
  const float *q, *k, *v;
  float *out, *lse;
  int64_t q_stride, kv_stride, out_stride, lse_stride;
  int64_t first, rows;
  Window window;
  const volatile int32_t* cancel; /* looked at before each block of keys */
};

void attend_slice(const Slice& s, const Heads& h, float scale) {
  float packed[kMaxHeadDim * kKeys];
  SoftmaxState states[kQueries * kMaxGroup];
  for (int64_t r = 0; r < s.rows * h.group; ++r) states[r] = {-HUGE_VALF, 0.0f};
  for (int64_t i = 0; i < s.rows; ++i) {
    std::memset(s.out + i * s.out_stride, 0, static_cast<size_t>(h.group * h.dim) * sizeof(float));
  }
  const int64_t keys = s.first + s.rows;
  const int64_t first_block = s.window.first_key(s.first) / kKeys * kKeys;
  for (int64_t start = first_block; start < keys && !is_raised(s.cancel); start += kKeys) {
    pack_block(packed, s.k + start * s.kv_stride, s.kv_stride, std::min(kKeys, keys - start),
               h.dim);
    const KeyBlock block = {packed, s.v + start * s.kv_stride, s.kv_stride};
    const auto seen = [&](int64_t i) { return s.window.in_block(start, s.first + i); };
    const auto row = [&](int64_t i, int64_t g) {
      return BlockRow{s.q + i * s.q_stride + g * h.dim, &states[i * h.group + g],
                      s.out + i * s.out_stride + g * h.dim};
    };
    const int64_t first = std::max<int64_t>(0, start - s.first);
    const int64_t last = s.window.end_of_sight(start, keys) - s.first;
    for_runs(first, last, seen, [&](int64_t i, int64_t next) {
      for_tiles<BlockRow>(i, next, h.group, row, [&](const BlockRow* tile, int64_t count) {
        attend_block(tile, count, block, seen(i), h.dim, scale);
      });
    });
  }
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t g = 0; g < h.group; ++g) {
      const float lse =
          finish_row(s.out + i * s.out_stride + g * h.dim, states[i * h.group + g], h.dim);
      if (s.lse != nullptr) s.lse[i * s.lse_stride + g] = lse;
    }
  }
}

/* Where one sequence's keys and queries lie. */
struct Span {
  int64_t begin, end; /* keys */
  int64_t query;      /* the first */
  int64_t skipped;    /* positions before it */
};

Span span_of(const rlsd_attention_args& a, int64_t b) {
  const int32_t* const cu = a.cu_queries != nullptr ? a.cu_queries : a.cu_seqlens;
  const int64_t begin = a.cu_seqlens[b], end = a.cu_seqlens[b + 1];
  return {begin, end, cu[b], end - begin - (cu[b + 1] - cu[b])};
}

void clear(const rlsd_tensor& x, int64_t first, int64_t last, int64_t head, int64_t heads,
           int64_t dim) {
  for (int64_t i = first; i < last; ++i) {
    std::memset(f32(x) + i * x.stride[0] + head * dim, 0,
                static_cast<size_t>(heads * dim) * sizeof(float));
  }
}

/* delta (queries, heads): scratch. The flag is looked at before each tile, of which a block of keys
 * has as many as a long sequence has queries. */
void backward_slice(const rlsd_attention_args& a, const Heads& h, const Span& s, int64_t kv_head,
                    float* delta, const volatile int32_t* cancel) {
  const int64_t kv = a.k.stride[0], length = s.end - s.begin;
  const Window window = {a.window};
  float packed_keys[kMaxHeadDim * kKeys], packed_values[kMaxHeadDim * kKeys];
  clear(a.dk, s.begin, s.end, kv_head, 1, h.dim);
  clear(a.dv, s.begin, s.end, kv_head, 1, h.dim);
  const int64_t head = kv_head * h.group, queries = s.query + length - s.skipped;
  clear(a.dq, s.query, queries, head, h.group, h.dim);
  for (int64_t i = s.query; i < queries; ++i) {
    for (int64_t g = head; g < head + h.group; ++g) {
      const int64_t at = i * a.q.stride[0] + g * h.dim;
      delta[i * h.heads + g] = dot_row(f32(a.d_out) + at, f32(a.out) + at, h.dim);
    }
  }
  const auto row = [&](int64_t i, int64_t g) {
    const int64_t query = s.query + i - s.skipped, of = query * h.heads + head + g;
    const int64_t at = query * a.q.stride[0] + (head + g) * h.dim;
    return RowGradient{f32(a.q) + at, f32(a.d_out) + at, f32(a.dq) + at, f32(a.lse)[of], delta[of]};
  };
  const int64_t first_block = window.first_key(s.skipped) / kKeys * kKeys;
  for (int64_t start = first_block; start < length && !is_raised(cancel); start += kKeys) {
    const int64_t at = (s.begin + start) * kv + kv_head * h.dim;
    const int64_t keys = std::min(kKeys, length - start);
    pack_block(packed_keys, f32(a.k) + at, kv, keys, h.dim);
    pack_block(packed_values, f32(a.v) + at, kv, keys, h.dim);
    const BlockGradient block = {packed_keys, packed_values,  f32(a.k) + at,
                                 kv,          f32(a.dk) + at, f32(a.dv) + at};
    const auto seen = [&](int64_t i) { return window.in_block(start, i); };
    const int64_t last = window.end_of_sight(start, length);
    for_runs(std::max(start, s.skipped), last, seen, [&](int64_t i, int64_t next) {
      for_tiles<RowGradient>(i, next, h.group, row, [&](const RowGradient* tile, int64_t count) {
        if (is_raised(cancel)) return;
        attend_block_backward(tile, count, block, seen(i), h.dim, static_cast<float>(a.scale));
      });
    });
  }
}

}  // namespace

rlsd_status attention(rlsd_context* context, const rlsd_attention_args* a) {
  Heads h;
  const rlsd_status status = read_heads(context, a->q, a->k.shape[1], &h);
  if (status != RLSD_OK) return status;
  const int64_t length = longest(a->cu_seqlens, a->sequences);
  const int64_t blocks = (length + kQueries - 1) / kQueries;
  const Window window = {a->window};
  const int64_t cost = kQueries * h.group * (window.most(length) + kKeys) * (2 * h.dim + 16) / 2;
  const rlsd_status done = parallel_rows(
      context, a->sequences * h.kv_heads * blocks, cost, [&](int64_t from, int64_t to) {
        for (int64_t task = from; task < to; ++task) {
          const int64_t b = task / (h.kv_heads * blocks), kv_head = task / blocks % h.kv_heads;
          const Span s = span_of(*a, b);
          const int64_t block = task % blocks * kQueries, first = std::max(block, s.skipped);
          const int64_t rows = std::min(block + kQueries, s.end - s.begin) - first;
          if (rows <= 0) continue;
          const int64_t head = kv_head * h.group, row = s.query + first - s.skipped;
          const Slice slice = {
              f32(a->q) + row * a->q.stride[0] + head * h.dim,
              f32(a->k) + s.begin * a->k.stride[0] + kv_head * h.dim,
              f32(a->v) + s.begin * a->v.stride[0] + kv_head * h.dim,
              f32(a->out) + row * a->out.stride[0] + head * h.dim,
              a->lse.data != nullptr ? f32(a->lse) + row * h.heads + head : nullptr,
              a->q.stride[0],
              a->k.stride[0],
              a->out.stride[0],
              h.heads,
              first,
              rows,
              window,
              context->cancel};
          attend_slice(slice, h, static_cast<float>(a->scale));
        }
      });
  return cut_short(context, done);
}

rlsd_status attention_backward_workspace(rlsd_context*, const rlsd_attention_args* a,
                                         uint64_t* bytes) {
  *bytes = static_cast<uint64_t>(a->q.shape[0] * a->q.shape[1]) * sizeof(float);
  return RLSD_OK;
}

/* One task owns a sequence's kv head: its dk and dv are added in the order of the rows. */
rlsd_status attention_backward(rlsd_context* context, const rlsd_attention_args* a) {
  Heads h;
  rlsd_status status = read_heads(context, a->q, a->k.shape[1], &h);
  uint64_t needed = 0;
  if (status == RLSD_OK) status = attention_backward_workspace(context, a, &needed);
  if (status == RLSD_OK) status = check_workspace(context, needed);
  if (status != RLSD_OK) return status;
  auto* const delta = static_cast<float*>(context->workspace);
  const int64_t length = longest(a->cu_seqlens, a->sequences);
  const int64_t cost =
      h.group * length * (Window{a->window}.most(length) + kKeys) * (5 * h.dim + 16) / 2;
  status = parallel_rows(context, a->sequences * h.kv_heads, cost, [&](int64_t from, int64_t to) {
    for (int64_t task = from; task < to; ++task) {
      backward_slice(*a, h, span_of(*a, task / h.kv_heads), task % h.kv_heads, delta,
                     context->cancel);
    }
  });
  return cut_short(context, status);
}

}  // namespace rlsd::cpu
