#include <vector>
#include "cpu/model/model_entries.h"
#include "cpu/model/plain.h"
#include "cpu/model/simd.h"
#include "cpu/matmul.h"
#include "cpu/policy_loss.h"

namespace rlsd::cpu {
namespace {
RLSD_CLONES void weights_of(float* w, const float* z, int64_t n, float largest, float it) {
  for (int64_t v = 0; v < n; ++v) w[v] = exp_approx((z[v] - largest) * it);
}
struct RowP { float log_prob; float largest; double total; };
RowP row_log_prob(const float* z, int64_t n, int32_t id, float it, float* w) {
  float largest = -HUGE_VALF;
  for (int64_t v = 0; v < n; ++v) largest = z[v] > largest ? z[v] : largest;
  weights_of(w, z, n, largest, it);
  double total = 0;
  for (int64_t v = 0; v < n; ++v) total += static_cast<double>(w[v]);
  return {static_cast<float>(static_cast<double>((z[id] - largest) * it) - std::log(total)), largest, total};
}
rlsd_tensor mat(float* d, int64_t r, int64_t c) { rlsd_tensor t{}; t.data = d; t.rank = 2; t.shape[0] = r; t.shape[1] = c; t.stride[0] = c; t.stride[1] = 1; return t; }
constexpr int64_t kChunk = 256;
rlsd_status plain_matmul(rlsd_context* ctx, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias, int32_t ta, int32_t tb, double beta) {
  uint64_t bytes = 0;
  matmul_workspace(ctx, c, a, b, ta, tb, &bytes);
  std::vector<uint8_t> space(bytes + 64);
  void* const w = ctx->workspace; const uint64_t wb = ctx->workspace_bytes;
  ctx->workspace = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(space.data()) + 63) / 64 * 64); ctx->workspace_bytes = bytes;
  const rlsd_status s = matmul(ctx, c, a, b, bias, ta, tb, beta);
  ctx->workspace = w; ctx->workspace_bytes = wb;
  return s;
}
template <class F> rlsd_status each_chunk(rlsd_context* ctx, const rlsd_scores& s, int64_t n, F&& f) {
  const int64_t h = s.hidden.shape[1], v = s.head.shape[0];
  std::vector<float> hid(static_cast<size_t>(kChunk * h)), z(static_cast<size_t>(kChunk * v));
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t c = std::min(kChunk, n - first);
    for (int64_t i = 0; i < c; ++i) {
      const int64_t r = s.rows ? s.rows[first + i] : first + i;
      std::memcpy(hid.data() + i * h, f32(s.hidden) + r * s.hidden.stride[0], static_cast<size_t>(h) * 4);
    }
    rlsd_tensor none{};
    plain_matmul(ctx, mat(z.data(), c, v), mat(hid.data(), c, h), s.head, none, 0, 1, 0.0);
    f(first, c, hid.data(), z.data());
  }
  return RLSD_OK;
}
rlsd_status (*loss_of_log_probs)(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*, const rlsd_policy_outputs*);

rlsd_status (*other_tlp)(rlsd_context*, const rlsd_token_log_probs_args*);
rlsd_status (*other_tlp_ws)(rlsd_context*, const rlsd_token_log_probs_args*, uint64_t*);
rlsd_status plain_tlp_ws(rlsd_context* c, const rlsd_token_log_probs_args* a, uint64_t* b) {
  if (a->scores.level != RLSD_HIDDEN) return other_tlp_ws(c, a, b);
  *b = 0; return RLSD_OK; }
rlsd_status plain_tlp(rlsd_context* ctx, const rlsd_token_log_probs_args* a) {
  if (a->scores.level != RLSD_HIDDEN) return other_tlp(ctx, a);
  const int64_t v = a->scores.head.shape[0];
  return each_chunk(ctx, a->scores, a->tokens, [&](int64_t first, int64_t c, float*, float* z) {
    parallel_rows(ctx, c, 20 * v, [&](int64_t b, int64_t e) {
      std::vector<float> w(static_cast<size_t>(v));
      for (int64_t i = b; i < e; ++i) a->log_probs[first + i] = row_log_prob(z + i * v, v, a->token_ids[first + i], static_cast<float>(1.0 / a->temperature), w.data()).log_prob;
    });
  });
}
rlsd_status plain_pl_ws(rlsd_context* c, const rlsd_policy_batch* b, const rlsd_objective* o, const rlsd_policy_outputs* out, uint64_t* bytes) {
  if (b->student.level != RLSD_HIDDEN) return policy_loss_workspace(c, b, o, out, bytes);
  *bytes = 0; return RLSD_OK;
}
rlsd_status plain_pl(rlsd_context* ctx, const rlsd_policy_batch* b, const rlsd_objective* o, const rlsd_policy_outputs* out) {
  if (b->student.level != RLSD_HIDDEN) return loss_of_log_probs(ctx, b, o, out);
  const int64_t n = b->tokens, v = b->student.head.shape[0], h = b->student.hidden.shape[1];
  std::vector<float> lp(static_cast<size_t>(n)), g(static_cast<size_t>(n));
  rlsd_token_log_probs_args t{}; t.tokens = n; t.scores = b->student; t.token_ids = b->token_ids; t.temperature = o->temperature; t.log_probs = lp.data();
  plain_tlp(ctx, &t);
  rlsd_policy_batch batch = *b; batch.student = rlsd_scores{}; batch.student.level = RLSD_LOG_PROBS; batch.student.log_probs = lp.data();
  rlsd_policy_outputs o2 = *out; o2.gradient_log_probs = g.data(); o2.gradient_hidden = rlsd_tensor{}; o2.gradient_head = rlsd_tensor{};
  rlsd_status st = loss_of_log_probs(ctx, &batch, o, &o2);
  if (st != RLSD_OK) return st;
  if (out->gradient_log_probs) std::memcpy(out->gradient_log_probs, g.data(), static_cast<size_t>(n) * 4);
  if (out->clear_other_rows) for (int64_t r = 0; r < out->gradient_hidden.shape[0]; ++r) std::memset(f32(out->gradient_hidden) + r * h, 0, static_cast<size_t>(h) * 4);
  const float it = static_cast<float>(1.0 / o->temperature);
  return each_chunk(ctx, b->student, n, [&](int64_t first, int64_t c, float* hid, float* z) {
    parallel_rows(ctx, c, 20 * v, [&](int64_t bb, int64_t e) {
      std::vector<float> w(static_cast<size_t>(v));
      for (int64_t i = bb; i < e; ++i) {
        const int32_t id = b->token_ids[first + i];
        const RowP r = row_log_prob(z + i * v, v, id, it, w.data());
        const float s = static_cast<float>(1.0 / r.total), gi = g[static_cast<size_t>(first + i)] * it;
        for (int64_t q = 0; q < v; ++q) z[i * v + q] = gi * ((q == id ? 1.0f : 0.0f) - w[static_cast<size_t>(q)] * s);
      }
    });
    rlsd_tensor none{};
    std::vector<float> dh(static_cast<size_t>(c * h));
    plain_matmul(ctx, mat(dh.data(), c, h), mat(z, c, v), b->student.head, none, 0, 0, 0.0);
    plain_matmul(ctx, out->gradient_head, mat(z, c, v), mat(hid, c, h), none, 1, 0, 1.0);
    for (int64_t i = 0; i < c; ++i) {
      const int64_t r = b->student.rows ? b->student.rows[first + i] : first + i;
      std::memcpy(f32(out->gradient_hidden) + r * h, dh.data() + i * h, static_cast<size_t>(h) * 4);
    }
  });
}
}  // namespace
void fill_plain(rlsd_backend_v1* t) {
  {
    other_tlp = t->token_log_probs; other_tlp_ws = t->token_log_probs_workspace;
    t->token_log_probs = plain_tlp; t->token_log_probs_workspace = plain_tlp_ws;
    loss_of_log_probs = t->policy_loss; t->policy_loss = plain_pl; t->policy_loss_workspace = plain_pl_ws;
  }
}
}  // namespace rlsd::cpu
