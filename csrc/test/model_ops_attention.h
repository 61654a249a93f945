/* Attention, whole and from a cache, with and without a window. */
#ifndef RLSD_TEST_MODEL_OPS_ATTENTION_H_
#define RLSD_TEST_MODEL_OPS_ATTENTION_H_

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
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
  Context context;
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

/* Each row decoded from a cache has the bits that the whole sequence gave it. */
inline void decoding(int64_t window) {
  const Attention a({0, 70, 70, 71, 104}, window);
  Array q(a.in[0], {a.n, a.heads, a.dim}), k(a.in[1], {a.n, a.kv_heads, a.dim}),
      v(a.in[2], {a.n, a.kv_heads, a.dim});
  Array out({a.n, a.heads, a.dim}), lse({a.n, a.heads});
  rlsd_attention_args args = {};
  args.q = q.tensor, args.k = k.tensor, args.v = v.tensor, args.out = out.tensor,
  args.lse = lse.tensor;
  args.cu_seqlens = a.cu.data(), args.sequences = 4, args.scale = a.scale, args.window = window;
  Context context;
  backend->attention(context, &args);
  const int64_t length = 80;
  Array k_cache({2, a.kv_heads, 2, a.dim * RLSD_KEY_BLOCK}, NAN);
  Array v_cache({2, length, a.kv_heads, a.dim}, NAN);
  std::vector<int32_t> slots(static_cast<size_t>(a.n), -1), positions(static_cast<size_t>(a.n));
  for (int32_t i = 0; i < 70; ++i)
    slots[static_cast<size_t>(i)] = 1, positions[static_cast<size_t>(i)] = i;
  backend->cache_append(context, k_cache.tensor, v_cache.tensor, k.tensor, v.tensor, slots.data(),
                        positions.data());
  report("cache_append leaves rows without a slot out",
         std::isnan(k_cache.data[0]) && std::isnan(v_cache.data[0]), 0.0);
  bool same = true;
  for (int32_t i = 0; i < 70; ++i) {
    const int32_t slot = 1, seen = i + 1;
    Array row(
        Values(a.in[0].begin() + i * a.heads * a.dim, a.in[0].begin() + (i + 1) * a.heads * a.dim),
        {1, a.heads, a.dim});
    Array decoded({1, a.heads, a.dim});
    const rlsd_attention_decode_args step = {
        row.tensor, decoded.tensor, k_cache.tensor, v_cache.tensor, &slot, &seen, a.scale, window};
    backend->attention_decode(context, &step);
    same = same && std::memcmp(decoded.data.data(), out.data.data() + i * a.heads * a.dim,
                               decoded.data.size() * sizeof(float)) == 0;
  }
  report("attention_decode gives attention's bits, row by row", same, 0.0);
}

}  // namespace rlsd::test

#endif
