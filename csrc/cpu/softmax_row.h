/* One row of logits: its target's log-prob, its entropy, and the gradient to its logits.
 *
 *   s_v = f(z_v) / temperature          f: bf16 rounding, then softcap tanh(z / softcap); both optional
 *   log P = s_y - log sum_v e^(s_v)     H = -sum_v p_v log p_v
 *   dz_v  = [ g (1[v = y] - p_v) + e p_v (log p_v + H) ] f'(z_v) / temperature
 *
 * The sums are anchored at the target, E_v = e^(s_v - s_y), and leave it out: with S = sum_{v != y} E_v,
 * log P = -log1p(S) is never above 0 and keeps its digits for confident tokens, and no pass looks for the maximum.
 * Rows where S is beyond 1e18 (log P < -41) are summed again, anchored at their maximum.
 *
 * Bits depend on the row alone: 32 lanes of float32 sums over 1024 columns, folded in a fixed tree, added in double. */
#ifndef RLSD_CPU_SOFTMAX_ROW_H_
#define RLSD_CPU_SOFTMAX_ROW_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

struct RowOptions {
  double temperature;
  float scale;       /* log2(e) / temperature */
  float softcap;     /* 0: none */
  bool rounding_bf16;
};

RowOptions row_options(double temperature, double logit_softcap, bool logit_rounding_bf16);

struct RowScore {
  double log_prob; /* NaN: a NaN or +inf logit, or no finite one; -inf: the target's logit is -inf */
  double entropy;  /* in nats; NaN when log_prob is not finite */
  double log_sum;  /* log of sum */
  double sum;      /* of e^(s_v - anchor) over all v */
  float anchor;    /* f(z) that the exponentials are relative to */
};

/* To float32; -0, which a tiny log-prob becomes, is 0. */
inline float rounded(double x) { return static_cast<float>(x) + 0.0f; }

/* Floats of scratch that score_row fills for `vocab` columns. */
int64_t row_scratch_floats(int64_t vocab);

/* Score columns [0, vocab) of a row of dtype f32, f16 or bf16; 0 <= target < vocab. `scratch` (row_scratch_floats,
 * may be NULL) keeps the exponentials, in an order of its own, for write_row_gradient. */
RowScore score_row(const void* row, int32_t dtype, int64_t vocab, int64_t target, const RowOptions& options,
                   float* scratch);

struct RowGradient {
  double log_prob; /* g = dL/dlogP */
  double entropy;  /* e: the weight of -H in the loss */
};

/* True when write_row_gradient can use the scratch of score_row; otherwise it reads the row again. */
bool gradient_uses_scratch(const RowOptions& options, double entropy_coefficient);

/* Write the gradient of `columns` columns; those at or beyond vocab, and logits of -inf, get 0. `out` has the row's
 * dtype and may be the row itself. `scratch` may be NULL. A gradient of 0 is written without reading anything. */
void write_row_gradient(void* out, const void* row, int32_t dtype, int64_t vocab, int64_t columns, int64_t target,
                        const RowOptions& options, const RowScore& score, const RowGradient& gradient,
                        const float* scratch);

}  // namespace rlsd::cpu

#endif
