/* Attention, whole and from a cache, with and without a window. */
#ifndef RLSD_TEST_MODEL_OPS_ATTENTION_H_
#define RLSD_TEST_MODEL_OPS_ATTENTION_H_

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "test/model_ops.h"

namespace rlsd::test {

/* Ragged sequences, one of them empty, longer than a block of keys; grouped heads of an odd width.
 * The queries are those of every position, or of the last ones alone; each sees the last `window`
 * keys up to its own, or all (0). */
struct Attention {
  const std::vector<int32_t> cu = {0, 70, 70, 71, 104};
  const std::vector<int32_t> cu_queries;
  const int64_t window;
  const int64_t n = 104, queries = cu_queries.back(), heads = 4, kv_heads = 2, dim = 6;
  const double scale = 1.7;
  const std::vector<Values> in = {noise(queries * heads * dim, 9), noise(n* kv_heads* dim, 10),
                                  noise(n* kv_heads* dim, 11)};

  explicit Attention(std::vector<int32_t> q = {0, 70, 70, 71, 104}, int64_t w = 0)
      : cu_queries(std::move(q)), window(w) {}

  bool whole() const { return queries == n; }
  std::string name() const {
    return std::string(whole() ? "attention" : "attention of the last positions") +
           (window > 0 ? ", window " + std::to_string(window) : "");
  }

  Values formula(const std::vector<Values>& v) const {
    Values out(v[0].size());
    for (size_t b = 0; b + 1 < cu.size(); ++b) {
      for (int64_t i = cu_queries[b]; i < cu_queries[b + 1]; ++i) {
        const int64_t last = cu[b + 1] - (cu_queries[b + 1] - i);
        const int64_t first = window > 0 ? std::max<int64_t>(cu[b], last - window + 1) : cu[b];
        for (int64_t h = 0; h < heads; ++h) row(v, first, last, i, h, &out);
      }
    }
    return out;
  }

  /* Query i, which stands at key `last` and sees those from `begin` on. */
  void row(const std::vector<Values>& v, int64_t begin, int64_t last, int64_t i, int64_t h,
           Values* out) const {
    const int64_t kv = h / (heads / kv_heads);
    double sum = 0.0;
    for (int64_t j = begin; j <= last; ++j) {
      double dot = 0.0;
      for (int64_t d = 0; d < dim; ++d)
        dot += v[0][(i * heads + h) * dim + d] * v[1][(j * kv_heads + kv) * dim + d];
      const double p = std::exp(scale * dot);
      sum += p;
      for (int64_t d = 0; d < dim; ++d)
        (*out)[(i * heads + h) * dim + d] += p * v[2][(j * kv_heads + kv) * dim + d];
    }
    for (int64_t d = 0; d < dim; ++d) (*out)[(i * heads + h) * dim + d] /= sum;
  }
};

inline void attention(const Attention& a) {
  const Formula formula = [&](const std::vector<Values>& v) { return a.formula(v); };
  const Values c = noise(a.in[0].size(), 12);
  std::vector<float> bits[2];
  for (int32_t threads : {1, 3}) {
    const std::vector<int64_t> of_queries = {a.queries, a.heads, a.dim};
    const std::vector<int64_t> of_keys = {a.n, a.kv_heads, a.dim};
    Array q(a.in[0], of_queries), k(a.in[1], of_keys), v(a.in[2], of_keys), d_out(c, of_queries);
    Array out(of_queries, 7.0), lse({a.queries, a.heads});
    Array dq(of_queries, 7.0), dk(of_keys, 7.0), dv(of_keys, 7.0);
    rlsd_attention_args args = {q.tensor,
                                k.tensor,
                                v.tensor,
                                out.tensor,
                                lse.tensor,
                                d_out.tensor,
                                dq.tensor,
                                dk.tensor,
                                dv.tensor,
                                a.cu.data(),
                                4,
                                a.scale,
                                a.whole() ? nullptr : a.cu_queries.data(),
                                a.window};
    uint64_t bytes = 0;
    Context context(threads);
    backend->attention(context, &args);
    backend->attention_backward_workspace(context, &args, &bytes);
    Context roomy(threads, bytes);
    backend->attention_backward(roomy, &args);
    for (const Array* array : {&out, &dq, &dk, &dv}) {
      bits[threads == 3].insert(bits[threads == 3].end(), array->data.begin(), array->data.end());
    }
    if (threads == 3) continue;
    check_value(a.name().c_str(), out, formula(a.in));
    check_gradient("attention_backward: q, overwritten", dq, formula, a.in, 0, c);
    check_gradient("attention_backward: k, overwritten", dk, formula, a.in, 1, c);
    check_gradient("attention_backward: v, overwritten", dv, formula, a.in, 2, c);
  }
  report("attention has the same bits on one thread and three", bits[0] == bits[1], 0.0);
}

/* Seconds of the attention and its gradient over one long sequence, the best of three. */
inline double attention_seconds(int64_t window) {
  const int64_t n = 3000, heads = 2, dim = 32;
  const std::vector<int32_t> cu = {0, static_cast<int32_t>(n)};
  const Values in = noise(static_cast<size_t>(n * heads * dim), 14);
  Array x(in, {n, heads, dim}), out({n, heads, dim}), lse({n, heads});
  Array dq({n, heads, dim}), dk({n, heads, dim}), dv({n, heads, dim});
  rlsd_attention_args args = {};
  args.q = args.k = args.v = args.d_out = x.tensor;
  args.out = out.tensor, args.lse = lse.tensor;
  args.dq = dq.tensor, args.dk = dk.tensor, args.dv = dv.tensor;
  args.cu_seqlens = cu.data(), args.sequences = 1, args.scale = 0.2, args.window = window;
  Context context(1, static_cast<uint64_t>(n * heads) * sizeof(float));
  double best = INFINITY;
  for (int i = 0; i < 3; ++i) {
    const auto start = std::chrono::steady_clock::now();
    backend->attention(context, &args);
    backend->attention_backward(context, &args);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::fmin(best, took.count());
  }
  return best;
}

inline void attention() {
  /* One sequence with some of its queries, one with its only one, one with none. */
  const std::vector<int32_t> some = {0, 25, 25, 26, 26};
  attention(Attention());
  attention(Attention(some));
  /* Within a block, as long as one, longer than all keys. */
  for (int64_t window : {3, 64, 200}) attention(Attention({0, 70, 70, 71, 104}, window));
  attention(Attention(some, 65));
  /* 51 blocks are seen in the place of 1128: what is outside the window is not computed. */
  const double ratio = attention_seconds(8) / attention_seconds(0);
  report("attention's cost follows its window", ratio < 0.25, ratio);
}

/* Some sequences of one length in a cache: they begin with the same rows, as completions of a
 * prompt do, and have blocks of their own after `shared` of them. */
struct Cache {
  const int64_t kv_heads, dim, blocks_each, shared;
  const int64_t layer = RLSD_KEY_BLOCK * kv_heads * dim, k_offset = 2 * layer, v_offset = 3 * layer;
  std::vector<std::vector<float>> memory;
  std::vector<float*> blocks; /* (sequences, blocks_each) */

  Cache(int64_t kv, int64_t d, int64_t each, int64_t common, int64_t sequences)
      : kv_heads(kv), dim(d), blocks_each(each), shared(common) {
    for (int64_t i = 0; i < sequences * each; ++i) {
      const bool own = i < each || i % each >= common;
      if (own) memory.emplace_back(static_cast<size_t>(4 * layer), NAN);
      blocks.push_back(own ? memory.back().data() : blocks[static_cast<size_t>(i % each)]);
    }
  }
};

/* Puts the keys and values of a sequence into its blocks, but for those that another one has put.
 */
inline void fill(const Cache& cache, int64_t s, Array& k, Array& v, Context& context) {
  std::vector<float*> of_row;
  std::vector<int32_t> positions;
  for (int64_t i = 0; i < k.tensor.shape[0]; ++i) {
    const int64_t j = i / RLSD_KEY_BLOCK;
    float* const block = cache.blocks[static_cast<size_t>(s * cache.blocks_each + j)];
    of_row.push_back(s > 0 && j < cache.shared ? nullptr : block);
    positions.push_back(static_cast<int32_t>(i));
  }
  backend->cache_append(context, k.tensor, v.tensor, of_row.data(), positions.data(),
                        cache.k_offset, cache.v_offset);
}

/* The whole blocks among the first tokens of a sequence, whose blocks begin at `first`, are not
 * there. */
inline void forget(Cache& cache, int64_t first, int64_t tokens) {
  for (int64_t j = 0; (j + 1) * RLSD_KEY_BLOCK <= tokens; ++j)
    cache.blocks[static_cast<size_t>(first + j)] = nullptr;
}

/* Whether the last rows of sequences, decoded together from the caches of several that are alike,
 * have the bits that attention gave them. Blocks that none of them sees are not there. */
inline bool decodes(int64_t heads, int64_t kv_heads, int64_t dim, int64_t window, int32_t threads) {
  const int64_t length = 200, sequences = 11, width = heads * dim;
  const Values in_q = noise(length * width, 20), in_k = noise(length * kv_heads * dim, 21);
  Array q(in_q, {length, heads, dim}), k(in_k, {length, kv_heads, dim});
  Array v(noise(length * kv_heads * dim, 22), {length, kv_heads, dim});
  Array out({length, heads, dim}), lse({length, heads});
  const std::vector<int32_t> cu = {0, static_cast<int32_t>(length)};
  rlsd_attention_args args = {};
  args.q = q.tensor, args.k = k.tensor, args.v = v.tensor, args.out = out.tensor,
  args.lse = lse.tensor;
  args.cu_seqlens = cu.data(), args.sequences = 1, args.scale = 1.7, args.window = window;
  Context context(threads);
  backend->attention(context, &args);
  const int64_t each = (length + RLSD_KEY_BLOCK - 1) / RLSD_KEY_BLOCK;
  Cache cache(kv_heads, dim, each, 2, sequences);
  std::vector<int32_t> lengths, rows, cu_queries = {0};
  for (int64_t s = 0; s < sequences; ++s) {
    fill(cache, s, k, v, context);
    lengths.push_back(static_cast<int32_t>(s < 2 ? 17 * s : length - 1 - 9 * (s % 8)) + 1);
    /* One query, several, more than a task has, or none; the tenth computes its whole sequence. */
    const int64_t queries = s == 9 ? lengths.back() : s % 4 == 3 ? 40 : s % 4 == 2 ? s - 2 : 1;
    for (int64_t i = lengths.back() - queries; i < lengths.back(); ++i)
      rows.push_back(static_cast<int32_t>(i));
    cu_queries.push_back(static_cast<int32_t>(rows.size()));
    if (window > 0) forget(cache, s * each, lengths.back() - queries + 1 - window);
  }
  const auto count = static_cast<int64_t>(rows.size());
  Array some({count, heads, dim}), decoded({count, heads, dim}, 7.0);
  const auto bytes = static_cast<size_t>(width) * sizeof(float);
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(&some.data[i * width], &q.data[rows[i] * width], bytes);
  const rlsd_attention_decode_args step = {some.tensor,
                                           decoded.tensor,
                                           cache.blocks.data(),
                                           lengths.data(),
                                           cu_queries.data(),
                                           sequences,
                                           each,
                                           kv_heads,
                                           cache.k_offset,
                                           cache.v_offset,
                                           1.7,
                                           window};
  bool same = backend->attention_decode(context, &step) == RLSD_OK;
  for (int64_t i = 0; i < count; ++i)
    same = same && std::memcmp(&decoded.data[i * width], &out.data[rows[i] * width], bytes) == 0;
  const float other_layer = cache.memory[0][0], first_key = cache.memory[0][cache.k_offset];
  return same && std::isnan(other_layer) && first_key == k.data[0];
}

/* Each row decoded from a cache has the bits that the whole sequence gave it, whatever it shares
 * with its neighbours. Widths that are and are not whole vectors, groups of heads from 1 to 9. */
inline void decoding(int64_t window) {
  const int64_t shapes[][3] = {{4, 2, 6},  {1, 1, 16}, {8, 2, 24}, {9, 1, 40},
                               {6, 2, 64}, {4, 4, 96}, {8, 4, 128}};
  bool same = true;
  for (const auto& [heads, kv_heads, dim] : shapes) {
    for (int32_t threads : {1, 3}) same = same && decodes(heads, kv_heads, dim, window, threads);
  }
  report("attention_decode gives attention's bits from shared and own blocks", same, 0.0);
}

/* Of one decoding step of so many sequences, each a single token that all of them have in common.
 */
inline double decode_seconds(int64_t sequences) {
  std::vector<float> memory(2 * RLSD_KEY_BLOCK * 2, 1.0f);
  const std::vector<float*> blocks(static_cast<size_t>(sequences), memory.data());
  const std::vector<int32_t> lengths(static_cast<size_t>(sequences), 1);
  std::vector<int32_t> cu_queries;
  for (int64_t s = 0; s <= sequences; ++s) cu_queries.push_back(static_cast<int32_t>(s));
  Array q({sequences, 1, 2}, 1.0), out({sequences, 1, 2});
  const rlsd_attention_decode_args step = {q.tensor,
                                           out.tensor,
                                           blocks.data(),
                                           lengths.data(),
                                           cu_queries.data(),
                                           sequences,
                                           1,
                                           1,
                                           0,
                                           RLSD_KEY_BLOCK * 2,
                                           1.0,
                                           0};
  Context context;
  const auto start = std::chrono::steady_clock::now();
  backend->attention_decode(context, &step);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return out.data.back() == 1.0f ? took.count() : INFINITY;
}

/* 16 times the rows: 16 times the work, and 256 times where every row looks at those before it. */
inline void cost_of_decoding() {
  decode_seconds(1024);
  const double ratio = decode_seconds(32768) / decode_seconds(2048);
  report("attention_decode's cost follows its rows", ratio < 64.0, ratio);
}

inline void rows_without_a_block() {
  const float row[] = {1.0f, 2.0f};
  Array k(Values(row, row + 2), {1, 1, 2}), v(Values(row, row + 2), {1, 1, 2});
  float* const nowhere = nullptr;
  const int32_t position = 70;
  Context context;
  const rlsd_status status =
      backend->cache_append(context, k.tensor, v.tensor, &nowhere, &position, 0, 0);
  report("cache_append leaves rows without a block out", status == RLSD_OK, 0.0);
}

}  // namespace rlsd::test

#endif
