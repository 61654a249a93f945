/* Backward pass, the forward's steps in reverse. Parameter gradients are added to; norms and the
 * gated product are recomputed from what the forward kept. With adapters theirs are the only ones.
 */
#include "model/model.h"

namespace rlsd::model {
namespace {

class Backward {
 public:
  Backward(Model* model, const DeviceRows& rows, Activations* a)
      : m_(model),
        c_(model->config),
        t_(model->device.table()),
        rows_(rows),
        n_(rows.rows),
        a_(a) {}

  rlsd_status run() {
    RLSD_CHECK(scale(a_->d_hidden, c_.logit_scale));
    RLSD_CHECK(norm_backward(a_->dx, m_->layout.final_norm, a_->d_hidden, a_->x_end, a_->final_rstd,
                             n_, c_.hidden));
    for (int64_t i = c_.layers - 1; i >= 0; --i) {
      /* The forward pass has left the last layer in the memory that serves all. */
      const bool lost = a_->keep == Keep::kInputs && i + 1 < c_.layers;
      if (lost) RLSD_CHECK(compute_again(m_, i, rows_, a_));
      RLSD_CHECK(feed_forward(i));
      RLSD_CHECK(attention(i));
    }
    if (c_.has_adapters()) return RLSD_OK;
    RLSD_CHECK(scale(a_->dx, c_.embedding_scale));
    return t_.embedding_backward(context(),
                                 matrix(gradient(m_->layout.embedding), c_.vocab, c_.hidden),
                                 matrix(a_->dx, n_, c_.hidden), rows_.ids);
  }

 private:
  rlsd_context* context() { return m_->device.context(); }
  float* gradient(int64_t offset) { return m_->gradient_at(offset); }

  /* x (N, H) *= factor */
  rlsd_status scale(float* x, double factor) {
    return factor == 1.0 ? RLSD_OK : t_.scale(context(), vector(x, n_ * c_.hidden), factor);
  }

  rlsd_status norm_backward(float* d_x, int64_t weight, const float* d_out, const float* x,
                            const float* rstd, int64_t rows, int64_t columns) {
    return t_.rms_norm_backward(context(), matrix(d_x, rows, columns),
                                vector(c_.has_adapters() ? nullptr : gradient(weight), columns),
                                matrix(d_out, rows, columns), matrix(x, rows, columns),
                                vector(m_->at(weight), columns), vector(rstd, rows),
                                c_.norm_offset);
  }

  /* From dx, the gradient of what a part of a layer adds to the stream, to that of the part before
   * its norm and scale, if it has any: dx itself or d_hidden. */
  rlsd_status through_end(const float** d_part, int64_t weight, const float* part,
                          const float* rstd) {
    const bool scaled = c_.residual_scale != 1.0;
    *d_part = scaled || c_.post_norms ? a_->d_hidden : a_->dx;
    if (scaled) {
      RLSD_CHECK(m_->device.copy(a_->d_hidden, a_->dx, n_ * c_.hidden));
      RLSD_CHECK(scale(a_->d_hidden, c_.residual_scale));
    }
    if (!c_.post_norms) return RLSD_OK;
    const float* const d_out = scaled ? a_->d_hidden : a_->dx;
    return norm_backward(a_->d_hidden, weight, d_out, part, rstd, n_, c_.hidden);
  }

  /* What a part of a layer read: the norm of x, made again, or x itself where there is none. */
  rlsd_status part_input(const float** input, const float* x, float* rstd, int64_t weight) {
    *input = weight < 0 ? x : a_->norm;
    if (weight < 0) return RLSD_OK;
    return t_.rms_norm(context(), matrix(a_->norm, n_, c_.hidden), vector(rstd, n_),
                       matrix(x, n_, c_.hidden), vector(m_->at(weight), c_.hidden), c_.norm_offset,
                       c_.norm_eps);
  }

  /* Of y = x W^T + b: dW += dy^T x, db += sum of dy's rows, and dx = dy W, added to with beta 1. */
  rlsd_status linear_backward(int64_t layer, Projection p, float* d_x, double beta,
                              const float* d_y, const float* x_data) {
    const LinearOffsets& w = m_->layout.layers[static_cast<size_t>(layer)].linear[p];
    const rlsd_tensor dy = matrix(d_y, n_, w.out), x = matrix(x_data, n_, w.in);
    const rlsd_tensor dx = matrix(d_x, n_, w.in);
    if (!c_.has_adapters()) {
      const rlsd_tensor dw = matrix(gradient(w.weight), w.out, w.in);
      RLSD_CHECK(m_->device.matmul(dw, dy, x, true, false, 1.0));
      if (w.bias >= 0) {
        RLSD_CHECK(t_.bias_backward(context(), vector(gradient(w.bias), w.out), dy));
      }
    }
    RLSD_CHECK(m_->device.matmul(dx, dy, m_->weight(w.weight, w.out, w.in), false, false, beta));
    const AdapterOffsets at = m_->adapter_of(layer, p);
    return at.a < 0 ? RLSD_OK : adapter_backward(at, dx, dy, x);
  }

  /* Of y += scale (x A^T) B^T: dB += dy^T (scale x A^T), and with d_low = scale dy B
   * dA += d_low^T x, dx += d_low A. */
  rlsd_status adapter_backward(AdapterOffsets at, rlsd_tensor dx, rlsd_tensor dy, rlsd_tensor x) {
    const int64_t rank = c_.rank, in = x.shape[1], out = dy.shape[1];
    const rlsd_tensor low = matrix(a_->low, n_, rank), d_low = matrix(a_->d_low, n_, rank);
    RLSD_CHECK(adapter_low(m_, at, x, a_->low));
    RLSD_CHECK(m_->device.matmul(matrix(gradient(at.b), out, rank), dy, low, true, false, 1.0));
    RLSD_CHECK(
        m_->device.matmul(d_low, dy, matrix(m_->adapter_at(at.b), out, rank), false, false, 0.0));
    RLSD_CHECK(t_.scale(context(), vector(a_->d_low, n_ * rank), c_.adapter_scale));
    RLSD_CHECK(m_->device.matmul(matrix(gradient(at.a), rank, in), d_low, x, true, false, 1.0));
    return m_->device.matmul(dx, d_low, matrix(m_->adapter_at(at.a), rank, in), false, false, 1.0);
  }

  rlsd_status feed_forward(int64_t i) {
    const LayerOffsets& w = m_->layout.layers[static_cast<size_t>(i)];
    const LayerActivations& l = a_->layers[static_cast<size_t>(i)];
    const int64_t width = c_.intermediate;
    const float* input = nullptr;
    RLSD_CHECK(part_input(&input, l.middle, l.rstd2, w.norm2));
    RLSD_CHECK(t_.glu(context(), matrix(a_->product, n_, width), matrix(l.gate, n_, width),
                      matrix(l.up, n_, width), c_.activation));
    const float* d_part = nullptr;
    RLSD_CHECK(through_end(&d_part, w.post_norm2, l.fed, l.fed_rstd));
    RLSD_CHECK(linear_backward(i, kDown, a_->d_product, 0.0, d_part, a_->product));
    RLSD_CHECK(t_.glu_backward(context(), matrix(a_->d_gate, n_, width),
                               matrix(a_->d_up, n_, width), matrix(a_->d_product, n_, width),
                               matrix(l.gate, n_, width), matrix(l.up, n_, width), c_.activation));
    RLSD_CHECK(linear_backward(i, kGate, a_->d_norm, 0.0, a_->d_gate, input));
    RLSD_CHECK(linear_backward(i, kUp, a_->d_norm, 1.0, a_->d_up, input));
    return add_input_gradient(w.norm2, l.middle, l.rstd2);
  }

  /* dx += the gradient of x from d_norm, that of its norm or, where there is none, of x itself. */
  rlsd_status add_input_gradient(int64_t weight, const float* x, const float* rstd) {
    const float* d_x = a_->d_norm;
    if (weight >= 0) {
      RLSD_CHECK(norm_backward(a_->d_hidden, weight, a_->d_norm, x, rstd, n_, c_.hidden));
      d_x = a_->d_hidden;
    }
    return t_.residual_add(context(), matrix(a_->dx, n_, c_.hidden), matrix(d_x, n_, c_.hidden));
  }

  rlsd_status attention(int64_t i) {
    const LayerOffsets& w = m_->layout.layers[static_cast<size_t>(i)];
    const LayerActivations& l = a_->layers[static_cast<size_t>(i)];
    const float* d_part = nullptr;
    RLSD_CHECK(through_end(&d_part, w.post_norm1, l.attended, l.attended_rstd));
    RLSD_CHECK(linear_backward(i, kO, a_->d_out, 0.0, d_part, l.out));
    RLSD_CHECK(attention_scores(i));
    if (c_.rotates(i)) {
      RLSD_CHECK(unrotate(i, a_->dq, c_.heads));
      RLSD_CHECK(unrotate(i, a_->dk, c_.kv_heads));
    }
    if (c_.qk_norm) {
      const int64_t q = c_.norms_of(c_.heads), k = c_.norms_of(c_.kv_heads);
      RLSD_CHECK(
          norm_backward(a_->dq_raw, w.q_norm, a_->dq, l.q_raw, l.q_rstd, n_ * q, c_.q_width() / q));
      RLSD_CHECK(norm_backward(a_->dk_raw, w.k_norm, a_->dk, l.k_raw, l.k_rstd, n_ * k,
                               c_.kv_width() / k));
    }
    const float* input = nullptr;
    RLSD_CHECK(part_input(&input, l.x, l.rstd1, w.norm1));
    RLSD_CHECK(linear_backward(i, kQ, a_->d_norm, 0.0, a_->dq_raw, input));
    RLSD_CHECK(linear_backward(i, kK, a_->d_norm, 1.0, a_->dk_raw, input));
    RLSD_CHECK(linear_backward(i, kV, a_->d_norm, 1.0, a_->dv, input));
    return add_input_gradient(w.norm1, l.x, l.rstd1);
  }

  rlsd_status attention_scores(int64_t i) {
    const int64_t width = c_.kv_width();
    const SharedKeys& s = rows_.shared;
    rlsd_attention_args args;
    RLSD_CHECK(attention_of(m_, i, rows_, *a_, &args));
    args.d_out = cube(a_->d_out, n_, c_.heads, c_.head_dim);
    args.dq = cube(a_->dq, n_, c_.heads, c_.head_dim);
    args.dk = cube(s.count > 0 ? s.dk : a_->dk, args.k.shape[0], c_.kv_heads, c_.head_dim);
    args.dv = cube(s.count > 0 ? s.dv : a_->dv, args.k.shape[0], c_.kv_heads, c_.head_dim);
    uint64_t bytes = 0;
    RLSD_CHECK(t_.attention_backward_workspace(context(), &args, &bytes));
    RLSD_CHECK(m_->device.workspace(bytes));
    RLSD_CHECK(t_.attention_backward(context(), &args));
    if (s.count == 0) return RLSD_OK;
    RLSD_CHECK(
        m_->device.scatter(matrix(a_->dk, n_, width), matrix(s.dk, s.count, width), s.row_of));
    return m_->device.scatter(matrix(a_->dv, n_, width), matrix(s.dv, s.count, width), s.row_of);
  }

  rlsd_status unrotate(int64_t i, float* x, int64_t heads) {
    return t_.rope(context(), heads_up_to(cube(x, n_, heads, c_.head_dim), c_.rotary),
                   rows_.positions, m_->frequencies(i), c_.rope_factor_of(i), -1);
  }

  Model* m_;
  const Config& c_;
  const rlsd_backend_v1& t_;
  const DeviceRows& rows_;
  const int64_t n_;
  Activations* a_;
};

}  // namespace

rlsd_status backward(Model* model, const DeviceRows& rows, Activations* a) {
  return Backward(model, rows, a).run();
}

}  // namespace rlsd::model
