/* Forward pass of a pre-norm decoder, layer by layer, over packed rows:
 *   h = norm(x);  q, k, v = h W + b;  q, k normed per head where the model does;  rotated
 *   m = x + attention(q, k, v) Wo;    x' = m + (silu(norm(m) Wg) * norm(m) Wu) Wd */
#include "model/model.h"
#include "model/shared_rows.h"

namespace rlsd::model {
namespace {

/* to = from W^T + bias, W (out, in). beta 1 adds to what is there. */
rlsd_status linear(Model* m, float* to, const float* from, int64_t rows, int64_t out, int64_t in,
                   int64_t weight, int64_t bias, double beta) {
  return m->device.matmul(matrix(to, rows, out), matrix(from, rows, in),
                          matrix(m->at(weight), out, in), false, true, beta, m->at(bias));
}

rlsd_status norm(Model* m, float* to, float* rstd, const float* x, int64_t rows, int64_t columns,
                 int64_t weight) {
  return m->device.table().rms_norm(m->device.context(), matrix(to, rows, columns),
                                    vector(rstd, rows), matrix(x, rows, columns),
                                    vector(m->at(weight), columns), m->config.norm_eps);
}

/* The packed rows that attention works on: those of the layer, or an expansion of them. */
struct AttentionRows {
  const float *q, *k, *v;
  float *out, *lse;
  const int32_t* cu_seqlens;
  int64_t rows, sequences;
  const int32_t* first_query;
};

rlsd_status attention(Model* m, const AttentionRows& r) {
  const Config& c = m->config;
  rlsd_attention_args args = {};
  args.q = cube(r.q, r.rows, c.heads, c.head_dim);
  args.k = cube(r.k, r.rows, c.kv_heads, c.head_dim);
  args.v = cube(r.v, r.rows, c.kv_heads, c.head_dim);
  args.out = cube(r.out, r.rows, c.heads, c.head_dim);
  args.lse = matrix(r.lse, r.rows, c.heads);
  args.cu_seqlens = r.cu_seqlens;
  args.sequences = r.sequences;
  args.scale = attention_scale(c);
  args.first_query = r.first_query;
  return m->device.table().attention(m->device.context(), &args);
}

/* to (n, width) = from[ids]: the embedding's gather serves rows of any kind. */
rlsd_status gather_rows(Model* m, float* to, const float* from, const int32_t* ids, int64_t n,
                        int64_t from_rows, int64_t width) {
  return m->device.table().embedding(m->device.context(), matrix(to, n, width),
                                     matrix(from, from_rows, width), ids);
}

rlsd_status attend(Model* m, int64_t layer, const DeviceRows& rows, const Expansion* e,
                   Activations* a) {
  const Config& c = m->config;
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  const int64_t u = rows.rows;
  if (e == nullptr) {
    return attention(m, {l.q, l.k, l.v, l.out, l.lse, rows.cu_seqlens, u, rows.sequences, nullptr});
  }
  const int64_t n = e->packed;
  RLSD_CHECK(gather_rows(m, e->q, l.q, e->distinct_of, n, u, c.q_width()));
  RLSD_CHECK(gather_rows(m, e->k, l.k, e->distinct_of, n, u, c.kv_width()));
  RLSD_CHECK(gather_rows(m, e->v, l.v, e->distinct_of, n, u, c.kv_width()));
  RLSD_CHECK(attention(m, {e->q, e->k, e->v, e->out, e->lse, e->cu_seqlens, n, e->sequences,
                           e->first_query}));
  return gather_rows(m, l.out, e->out, e->packed_of, u, n, c.q_width());
}

}  // namespace

rlsd_status project(Model* m, int64_t layer, int64_t rows, const int32_t* positions,
                    Activations* a) {
  const Config& c = m->config;
  const LayerOffsets& w = m->layout.layers[static_cast<size_t>(layer)];
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  RLSD_CHECK(norm(m, a->norm, l.rstd1, l.x, rows, c.hidden, w.norm1));
  RLSD_CHECK(linear(m, l.q_raw, a->norm, rows, c.q_width(), c.hidden, w.q, w.q_bias, 0.0));
  RLSD_CHECK(linear(m, l.k_raw, a->norm, rows, c.kv_width(), c.hidden, w.k, w.k_bias, 0.0));
  RLSD_CHECK(linear(m, l.v, a->norm, rows, c.kv_width(), c.hidden, w.v, w.v_bias, 0.0));
  if (c.qk_norm) {
    RLSD_CHECK(norm(m, l.q, l.q_rstd, l.q_raw, rows * c.heads, c.head_dim, w.q_norm));
    RLSD_CHECK(norm(m, l.k, l.k_rstd, l.k_raw, rows * c.kv_heads, c.head_dim, w.k_norm));
  }
  const rlsd_backend_v1& table = m->device.table();
  const float* frequencies = m->inverse_frequencies.floats();
  RLSD_CHECK(table.rope(m->device.context(), cube(l.q, rows, c.heads, c.head_dim), positions,
                        frequencies, c.rope_factor, 1));
  return table.rope(m->device.context(), cube(l.k, rows, c.kv_heads, c.head_dim), positions,
                    frequencies, c.rope_factor, 1);
}

rlsd_status finish_layer(Model* m, int64_t layer, int64_t rows, float* x_next, Activations* a) {
  const Config& c = m->config;
  const LayerOffsets& w = m->layout.layers[static_cast<size_t>(layer)];
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  if (l.middle != l.x) RLSD_CHECK(m->device.copy(l.middle, l.x, rows * c.hidden));
  RLSD_CHECK(linear(m, l.middle, l.out, rows, c.hidden, c.q_width(), w.o, w.o_bias, 1.0));
  RLSD_CHECK(norm(m, a->norm, l.rstd2, l.middle, rows, c.hidden, w.norm2));
  RLSD_CHECK(linear(m, l.gate, a->norm, rows, c.intermediate, c.hidden, w.gate, w.gate_bias, 0.0));
  RLSD_CHECK(linear(m, l.up, a->norm, rows, c.intermediate, c.hidden, w.up, w.up_bias, 0.0));
  RLSD_CHECK(m->device.table().silu_mul(
      m->device.context(), matrix(a->product, rows, c.intermediate),
      matrix(l.gate, rows, c.intermediate), matrix(l.up, rows, c.intermediate)));
  if (x_next != l.middle) RLSD_CHECK(m->device.copy(x_next, l.middle, rows * c.hidden));
  return linear(m, x_next, a->product, rows, c.hidden, c.intermediate, w.down, w.down_bias, 1.0);
}

rlsd_status final_norm(Model* m, int64_t rows, Activations* a) {
  return norm(m, a->hidden, a->final_rstd, a->x_end, rows, m->config.hidden, m->layout.final_norm);
}

namespace {

rlsd_status run_layers(Model* m, const DeviceRows& rows, const Expansion* expansion, Activations* a,
                       KeyValueSink* sink) {
  const Config& c = m->config;
  RLSD_CHECK(
      m->device.table().embedding(m->device.context(), matrix(a->layers[0].x, rows.rows, c.hidden),
                                  matrix(m->at(m->layout.embedding), c.vocab, c.hidden), rows.ids));
  for (int64_t i = 0; i < c.layers; ++i) {
    const LayerActivations& l = a->layers[static_cast<size_t>(i)];
    float* const next = i + 1 < c.layers ? a->layers[static_cast<size_t>(i + 1)].x : a->x_end;
    RLSD_CHECK(project(m, i, rows.rows, rows.positions, a));
    if (sink != nullptr) RLSD_CHECK(sink->store(i, l.k, l.v));
    RLSD_CHECK(attend(m, i, rows, expansion, a));
    RLSD_CHECK(finish_layer(m, i, rows.rows, next, a));
  }
  return final_norm(m, rows.rows, a);
}

}  // namespace

rlsd_status forward_with_sink(Model* m, const DeviceRows& rows, Activations* a,
                              KeyValueSink* sink) {
  return run_layers(m, rows, nullptr, a, sink);
}

rlsd_status forward_shared(Model* m, const DeviceRows& rows, const Expansion& expansion,
                           Activations* a) {
  RLSD_CHECK(prepare(&m->device, m->config, rows.rows, false, a));
  return run_layers(m, rows, &expansion, a, nullptr);
}

rlsd_status forward(Model* m, const DeviceRows& rows, bool gradients, Activations* a) {
  RLSD_CHECK(prepare(&m->device, m->config, rows.rows, gradients, a));
  return forward_with_sink(m, rows, a, nullptr);
}

}  // namespace rlsd::model
