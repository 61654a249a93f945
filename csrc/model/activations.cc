#include "model/activations.h"

namespace rlsd::model {
namespace {

/* Hands out parts of an arena; with no base it only counts. */
class Arena {
 public:
  explicit Arena(float* base) : base_(base) {}

  float* take(int64_t floats) {
    float* const at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (floats + 15) / 16 * 16;
    return at;
  }

  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

LayerActivations take_layer(Arena* arena, const Config& c, int64_t n, bool gradients) {
  LayerActivations l;
  l.x = arena->take(n * c.hidden);
  l.rstd1 = arena->take(n);
  l.q = arena->take(n * c.q_width());
  l.k = arena->take(n * c.kv_width());
  l.v = arena->take(n * c.kv_width());
  const bool keep_raw = c.qk_norm && gradients;
  l.q_raw = keep_raw ? arena->take(n * c.q_width()) : l.q;
  l.k_raw = keep_raw ? arena->take(n * c.kv_width()) : l.k;
  l.q_rstd = arena->take(c.qk_norm ? n * c.norms_of(c.heads) : 0);
  l.k_rstd = arena->take(c.qk_norm ? n * c.norms_of(c.kv_heads) : 0);
  l.out = arena->take(n * c.q_width());
  l.lse = arena->take(n * c.heads);
  l.middle = gradients ? arena->take(n * c.hidden) : l.x;
  l.rstd2 = arena->take(n);
  l.gate = arena->take(n * c.intermediate);
  l.up = arena->take(n * c.intermediate);
  const int64_t part = c.post_norms ? n * c.hidden : 0;
  l.attended = arena->take(part);
  l.fed = gradients ? arena->take(part) : l.attended;
  l.attended_rstd = arena->take(c.post_norms ? n : 0);
  l.fed_rstd = arena->take(c.post_norms ? n : 0);
  return l;
}

void lay_out(Arena* arena, const Config& c, int64_t n, Keep keep, Activations* a) {
  const bool gradients = keep != Keep::kNothing;
  a->layers.clear();
  for (int64_t i = 0; i < c.layers; ++i) {
    const bool own = i == 0 || keep == Keep::kAll;
    a->layers.push_back(own ? take_layer(arena, c, n, gradients) : a->layers[0]);
    if (!own && gradients) a->layers.back().x = arena->take(n * c.hidden);
  }
  a->x_end = gradients ? arena->take(n * c.hidden) : a->layers[0].x;
  a->final_rstd = arena->take(n);
  a->hidden = arena->take(n * c.hidden);
  a->norm = arena->take(n * c.hidden);
  a->product = arena->take(n * c.intermediate);
  a->low = arena->take(n * c.rank);
  if (!gradients) return;
  a->dx = arena->take(n * c.hidden);
  a->d_hidden = arena->take(n * c.hidden);
  a->d_norm = arena->take(n * c.hidden);
  a->d_product = arena->take(n * c.intermediate);
  a->d_gate = arena->take(n * c.intermediate);
  a->d_up = arena->take(n * c.intermediate);
  a->dq = arena->take(n * c.q_width());
  a->dk = arena->take(n * c.kv_width());
  a->dv = arena->take(n * c.kv_width());
  a->d_out = arena->take(n * c.q_width());
  a->dq_raw = c.qk_norm ? arena->take(n * c.q_width()) : a->dq;
  a->dk_raw = c.qk_norm ? arena->take(n * c.kv_width()) : a->dk;
  a->d_low = arena->take(n * c.rank);
}

}  // namespace

int64_t activation_floats(const Config& config, int64_t tokens, Keep keep) {
  Arena arena(nullptr);
  Activations counted;
  lay_out(&arena, config, tokens, keep, &counted);
  return arena.used();
}

rlsd_status prepare(Device* device, const Config& config, int64_t tokens, Keep keep,
                    Activations* a) {
  if (tokens == a->tokens && keep == a->keep && !a->memory.empty()) return RLSD_OK;
  const int64_t floats = activation_floats(config, tokens, keep);
  a->tokens = 0;
  RLSD_CHECK(
      device->reserve(&a->memory, static_cast<uint64_t>(floats) * sizeof(float), "Activations"));
  Arena arena(a->memory.floats());
  lay_out(&arena, config, tokens, keep, a);
  a->tokens = tokens;
  a->keep = keep;
  return RLSD_OK;
}

}  // namespace rlsd::model
