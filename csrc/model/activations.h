/* Memory of one forward (and backward) pass over at most `tokens` packed rows.
 *
 * Kept per layer for the backward pass: what cannot be recomputed by a norm or a product of
 * elements. Floats per row and layer: 2 hidden + 2 q_width + 2 kv_width + 2 intermediate + heads +
 * 2, and with q/k norms another q_width + kv_width + heads + kv_heads (2 for these where one norm
 * is over all heads), with norms behind the two parts 2 hidden + 2. Adapters keep nothing: x A^T is
 * made anew by the backward pass. Where layers are computed again for it, their inputs alone are
 * kept, hidden floats a row and layer, and one layer's memory serves all, as it does
 * without gradients. */
#ifndef RLSD_MODEL_ACTIVATIONS_H_
#define RLSD_MODEL_ACTIVATIONS_H_

#include <cstdint>
#include <vector>

#include "model/device.h"
#include "model/layout.h"

namespace rlsd::model {

/* What a forward pass keeps for the backward pass. */
enum class Keep { kNothing, kInputs, kAll };

struct LayerActivations {
  float *x, *rstd1;                /* (N, H) residual stream at the layer's start */
  float *q_raw, *k_raw;            /* before their norms; q and k where there are none */
  float *q_rstd, *k_rstd;          /* (N, heads), (N, kv_heads) */
  float *q, *k, *v, *out, *lse;    /* after norms and rotation; attention's result */
  float *middle, *rstd2;           /* (N, H) residual stream after attention */
  float *gate, *up;                /* (N, I) */
  float *attended, *attended_rstd; /* (N, H) attention's part before its own norm, if it has one */
  float *fed, *fed_rstd;           /* the feed-forward part's */
};

struct Activations {
  std::vector<LayerActivations> layers;
  float *x_end, *final_rstd,
      *hidden;           /* residual stream at the end; its norm, which the head reads */
  float *norm, *product; /* (N, H), (N, I): recomputed by the backward pass */
  float *low, *d_low;    /* (N, rank): between an adapter's two products */
  /* gradients, all overwritten; absent without them */
  float *dx, *d_hidden, *d_norm;    /* (N, H) */
  float *d_product, *d_gate, *d_up; /* (N, I) */
  float *dq, *dk, *dv, *d_out, *dq_raw, *dk_raw;

  int64_t tokens = 0;
  Keep keep = Keep::kNothing;
  Buffer memory;
};

/* Floats of the arena for `tokens` rows. */
int64_t activation_floats(const Config& config, int64_t tokens, Keep keep);

/* Makes room for `tokens` rows; what fits is kept. */
rlsd_status prepare(Device* device, const Config& config, int64_t tokens, Keep keep,
                    Activations* a);

}  // namespace rlsd::model

#endif
