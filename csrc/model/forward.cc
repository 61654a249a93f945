/* Forward pass of a decoder, layer by layer, over packed rows:
 *   h = norm(x);  q, k, v = h W + b;  q, k normed per head where the model does;  rotated, where
 *   the layer knows positions
 *   m = x + attention(q, k, v) Wo;    x' = m + (a(norm(m) Wg) * norm(m) Wu) Wd
 * Where a model has post-norms, what is added to x and to m is normed before; where it has no
 * pre-norms, x and m are read as they are.
 * Where W has an adapter, y W^T + b gains scale (y A^T) B^T. */
#include "model/model.h"

namespace rlsd::model {
namespace {

/* to (rows, out) = from (rows, in) through a layer's matrix. beta 1 adds to what is there. */
rlsd_status linear(Model* m, int64_t layer, Projection p, float* to, const float* from,
                   int64_t rows, double beta, const Activations* a) {
  const LinearOffsets& w = m->layout.layers[static_cast<size_t>(layer)].linear[p];
  const rlsd_tensor y = matrix(to, rows, w.out), x = matrix(from, rows, w.in);
  RLSD_CHECK(multiply_weight(m, y, x, w.weight, beta, m->at(w.bias)));
  const AdapterOffsets at = m->adapter_of(layer, p);
  if (at.a < 0) return RLSD_OK;
  RLSD_CHECK(adapter_low(m, at, x, a->low));
  const int64_t rank = m->config.rank;
  return m->device.matmul(y, matrix(a->low, rows, rank), matrix(m->adapter_at(at.b), w.out, rank),
                          false, true, 1.0);
}

rlsd_status norm(Model* m, float* to, float* rstd, const float* x, int64_t rows, int64_t columns,
                 int64_t weight) {
  return m->device.table().rms_norm(
      m->device.context(), matrix(to, rows, columns), vector(rstd, rows), matrix(x, rows, columns),
      vector(m->at(weight), columns), m->config.norm_offset, m->config.norm_eps);
}

/* What a part of a layer reads: a->norm, the norm of x, or x itself where the model has none. */
rlsd_status part_input(Model* m, const float** input, float* rstd, const float* x, int64_t rows,
                       int64_t weight, Activations* a) {
  *input = weight < 0 ? x : a->norm;
  return weight < 0 ? RLSD_OK : norm(m, a->norm, rstd, x, rows, m->config.hidden, weight);
}

/* What a part of a layer adds to the stream, where that is normed: into a->norm, and before its
 * norm into `part`. */
rlsd_status normed_part(Model* m, int64_t layer, Projection p, const float* from, float* part,
                        float* rstd, int64_t rows, Activations* a) {
  const LayerOffsets& w = m->layout.layers[static_cast<size_t>(layer)];
  RLSD_CHECK(linear(m, layer, p, part, from, rows, 0.0, a));
  return norm(m, a->norm, rstd, part, rows, m->config.hidden,
              p == kO ? w.post_norm1 : w.post_norm2);
}

/* stream += that times the model's scale, or what it is without a norm. */
rlsd_status add_part(Model* m, int64_t layer, Projection p, float* stream, const float* from,
                     float* part, float* rstd, int64_t rows, Activations* a) {
  const Config& c = m->config;
  const bool scaled = c.residual_scale != 1.0;
  if (!c.post_norms && !scaled) return linear(m, layer, p, stream, from, rows, 1.0, a);
  RLSD_CHECK(c.post_norms ? normed_part(m, layer, p, from, part, rstd, rows, a)
                          : linear(m, layer, p, a->norm, from, rows, 0.0, a));
  const rlsd_backend_v1& table = m->device.table();
  if (scaled) {
    RLSD_CHECK(
        table.scale(m->device.context(), vector(a->norm, rows * c.hidden), c.residual_scale));
  }
  return table.residual_add(m->device.context(), matrix(stream, rows, c.hidden),
                            matrix(a->norm, rows, c.hidden));
}

/* a->product = activation(gate) up */
rlsd_status gated(Model* m, const LayerActivations& l, int64_t rows, Activations* a) {
  const int64_t width = m->config.intermediate;
  return m->device.table().glu(m->device.context(), matrix(a->product, rows, width),
                               matrix(l.gate, rows, width), matrix(l.up, rows, width),
                               m->config.activation);
}

rlsd_status attend(Model* m, int64_t layer, const DeviceRows& rows, Activations* a) {
  rlsd_attention_args args;
  RLSD_CHECK(attention_of(m, layer, rows, *a, &args));
  return m->device.table().attention(m->device.context(), &args);
}

/* From attention's result to gate and up. */
rlsd_status open_feed_forward(Model* m, int64_t layer, int64_t rows, Activations* a) {
  const Config& c = m->config;
  const LayerOffsets& w = m->layout.layers[static_cast<size_t>(layer)];
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  if (l.middle != l.x) RLSD_CHECK(m->device.copy(l.middle, l.x, rows * c.hidden));
  RLSD_CHECK(add_part(m, layer, kO, l.middle, l.out, l.attended, l.attended_rstd, rows, a));
  const float* input = nullptr;
  RLSD_CHECK(part_input(m, &input, l.rstd2, l.middle, rows, w.norm2, a));
  RLSD_CHECK(linear(m, layer, kGate, l.gate, input, rows, 0.0, a));
  return linear(m, layer, kUp, l.up, input, rows, 0.0, a);
}

}  // namespace

rlsd_status multiply_weight(Model* m, rlsd_tensor y, rlsd_tensor x, int64_t offset, double beta,
                            const float* bias) {
  const rlsd_tensor w = m->weight(offset, y.shape[1], x.shape[1]);
  RLSD_CHECK(m->device.matmul_room(y, x, w, false, true)); /* may take the packed ones' memory */
  const void* const packed = m->packed.at(offset);
  return packed != nullptr ? m->device.matmul_packed(y, x, w, packed, beta, bias)
                           : m->device.matmul(y, x, w, false, true, beta, bias);
}

rlsd_status attention_of(Model* m, int64_t layer, const DeviceRows& rows, const Activations& a,
                         rlsd_attention_args* args) {
  const Config& c = m->config;
  const LayerActivations& l = a.layers[static_cast<size_t>(layer)];
  const SharedKeys& s = rows.shared;
  const int64_t keys = s.count > 0 ? s.count : rows.rows, width = c.kv_width();
  *args = {};
  args->q = cube(l.q, rows.rows, c.heads, c.head_dim);
  args->k = cube(s.count > 0 ? s.k : l.k, keys, c.kv_heads, c.head_dim);
  args->v = cube(s.count > 0 ? s.v : l.v, keys, c.kv_heads, c.head_dim);
  args->out = cube(l.out, rows.rows, c.heads, c.head_dim);
  args->lse = matrix(l.lse, rows.rows, c.heads);
  args->cu_seqlens = rows.cu_seqlens;
  args->cu_queries = s.cu_queries;
  args->sequences = rows.sequences;
  args->scale = c.attention_scale;
  args->window = c.window_of(layer);
  if (s.count == 0) return RLSD_OK;
  RLSD_CHECK(m->device.gather(matrix(s.k, keys, width), matrix(l.k, rows.rows, width), s.row_of));
  return m->device.gather(matrix(s.v, keys, width), matrix(l.v, rows.rows, width), s.row_of);
}

rlsd_status embed(Model* m, const int32_t* ids, int64_t rows, float* x) {
  const Config& c = m->config;
  RLSD_CHECK(m->device.gather(matrix(x, rows, c.hidden),
                              m->weight(m->layout.embedding, c.vocab, c.hidden), ids));
  if (c.embedding_scale == 1.0) return RLSD_OK;
  return m->device.table().scale(m->device.context(), vector(x, rows * c.hidden),
                                 c.embedding_scale);
}

rlsd_status adapter_low(Model* m, AdapterOffsets at, rlsd_tensor x, float* low) {
  const int64_t rows = x.shape[0], rank = m->config.rank;
  RLSD_CHECK(m->device.matmul(matrix(low, rows, rank), x,
                              matrix(m->adapter_at(at.a), rank, x.shape[1]), false, true, 0.0));
  return m->device.table().scale(m->device.context(), vector(low, rows * rank),
                                 m->config.adapter_scale);
}

rlsd_status project(Model* m, int64_t layer, int64_t rows, const int32_t* positions,
                    Activations* a) {
  const Config& c = m->config;
  const LayerOffsets& w = m->layout.layers[static_cast<size_t>(layer)];
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  const float* input = nullptr;
  RLSD_CHECK(part_input(m, &input, l.rstd1, l.x, rows, w.norm1, a));
  RLSD_CHECK(linear(m, layer, kQ, l.q_raw, input, rows, 0.0, a));
  RLSD_CHECK(linear(m, layer, kK, l.k_raw, input, rows, 0.0, a));
  RLSD_CHECK(linear(m, layer, kV, l.v, input, rows, 0.0, a));
  if (c.qk_norm) {
    const int64_t q = c.norms_of(c.heads), k = c.norms_of(c.kv_heads);
    RLSD_CHECK(norm(m, l.q, l.q_rstd, l.q_raw, rows * q, c.q_width() / q, w.q_norm));
    RLSD_CHECK(norm(m, l.k, l.k_rstd, l.k_raw, rows * k, c.kv_width() / k, w.k_norm));
  }
  if (!c.rotates(layer)) return RLSD_OK;
  const rlsd_backend_v1& table = m->device.table();
  const float* frequencies = m->frequencies(layer);
  RLSD_CHECK(table.rope(m->device.context(),
                        heads_up_to(cube(l.q, rows, c.heads, c.head_dim), c.rotary), positions,
                        frequencies, c.rope_factor_of(layer), 1));
  return table.rope(m->device.context(),
                    heads_up_to(cube(l.k, rows, c.kv_heads, c.head_dim), c.rotary), positions,
                    frequencies, c.rope_factor_of(layer), 1);
}

rlsd_status finish_layer(Model* m, int64_t layer, int64_t rows, float* x_next, Activations* a) {
  const Config& c = m->config;
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  RLSD_CHECK(open_feed_forward(m, layer, rows, a));
  RLSD_CHECK(gated(m, l, rows, a));
  if (x_next != l.middle) RLSD_CHECK(m->device.copy(x_next, l.middle, rows * c.hidden));
  return add_part(m, layer, kDown, x_next, a->product, l.fed, l.fed_rstd, rows, a);
}

rlsd_status compute_again(Model* m, int64_t layer, const DeviceRows& rows, Activations* a) {
  RLSD_CHECK(project(m, layer, rows.rows, rows.positions, a));
  RLSD_CHECK(attend(m, layer, rows, a));
  RLSD_CHECK(open_feed_forward(m, layer, rows.rows, a));
  if (!m->config.post_norms) return RLSD_OK;
  const LayerActivations& l = a->layers[static_cast<size_t>(layer)];
  RLSD_CHECK(gated(m, l, rows.rows, a));
  return normed_part(m, layer, kDown, a->product, l.fed, l.fed_rstd, rows.rows, a);
}

rlsd_status final_norm(Model* m, int64_t rows, Activations* a) {
  const Config& c = m->config;
  RLSD_CHECK(norm(m, a->hidden, a->final_rstd, a->x_end, rows, c.hidden, m->layout.final_norm));
  if (c.logit_scale == 1.0) return RLSD_OK;
  return m->device.table().scale(m->device.context(), vector(a->hidden, rows * c.hidden),
                                 c.logit_scale);
}

rlsd_status forward(Model* m, const DeviceRows& rows, bool gradients, Activations* a) {
  const Config& c = m->config;
  const Keep keep = !gradients ? Keep::kNothing : m->recompute ? Keep::kInputs : Keep::kAll;
  RLSD_CHECK(prepare(&m->device, c, rows.rows, keep, a));
  RLSD_CHECK(embed(m, rows.ids, rows.rows, a->layers[0].x));
  for (int64_t i = 0; i < c.layers; ++i) {
    float* const next = i + 1 < c.layers ? a->layers[static_cast<size_t>(i + 1)].x : a->x_end;
    RLSD_CHECK(project(m, i, rows.rows, rows.positions, a));
    RLSD_CHECK(attend(m, i, rows, a));
    RLSD_CHECK(finish_layer(m, i, rows.rows, next, a));
  }
  return final_norm(m, rows.rows, a);
}

}  // namespace rlsd::model
