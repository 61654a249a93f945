/* Divergence between the teacher's and the student's distribution of one token, and its gradient (docs/maths.md).
 *
 * With p the teacher's and q the student's probabilities, d = log p - log q:
 *   forward KL   D = sum p d                                          dD/ds = q - p
 *   reverse KL   D = -sum q d                                         dD/ds = q (-d - D)
 *   JSD(beta)    m = beta p + (1 - beta) q, K = sum q log(q / m)
 *                D = beta sum p log(p / m) + (1 - beta) K             dD/ds = (1 - beta) q (log(q / m) - K)
 * s are scaled logits, f(z) / temperature. Over the teacher's top k, with or without one bucket for the rest, the same
 * formulas hold for the k or k + 1 probabilities; distill_topk.cc has them in double. */
#ifndef RLSD_CPU_DISTILL_ROW_H_
#define RLSD_CPU_DISTILL_ROW_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

struct DistillOptions {
  int32_t divergence; /* rlsd_divergence */
  int64_t top_k;      /* 0: the whole vocabulary */
  bool tail;
  double beta;
  double value_clamp; /* infinity: off */
  double temperature;
  double logit_softcap; /* 0: none */
};

/* s = softcap(z) / temperature, in place. */
void scale_logits(float* row, int64_t vocab, const DistillOptions& options);

/* A row of scaled logits as a distribution: log q_v = (s_v - largest) - log_sum. */
struct Distribution {
  float* scaled;
  float largest;
  double log_sum; /* NaN: a NaN or +inf logit, or no finite one */

  double log_prob(int64_t v) const { return (static_cast<double>(scaled[v]) - largest) - log_sum; }
};

Distribution distribution_of(float* scaled, int64_t vocab);

/* D of one token. `chosen` (top_k ids and as many slopes) is scratch for top-k, else NULL. Not finite: a bad row. */
struct ChosenToken {
  int32_t id;
  double teacher, student; /* log-probs */
  double slope;            /* dD / dlog q */
};

struct RowDivergence {
  double value;
  double mean_slope; /* what the gradient subtracts: D, K, or the sum of the chosen tokens' slopes */
  int64_t chosen;    /* tokens compared under top-k */
};

RowDivergence row_divergence(const Distribution& teacher, const Distribution& student, int64_t vocab,
                             const DistillOptions& options, ChosenToken* chosen);

/* student.scaled becomes weight dD/dz. A weight of 0 writes zeros whatever the row holds. */
void write_divergence_gradient(const Distribution& teacher, const Distribution& student, int64_t vocab,
                               const DistillOptions& options, const RowDivergence& divergence,
                               const ChosenToken* chosen, double weight);

/* The part of row_divergence that compares the teacher's top k. */
RowDivergence top_k_divergence(const Distribution& teacher, const Distribution& student, int64_t vocab,
                               const DistillOptions& options, ChosenToken* chosen);

/* Sum of e^(s - largest) over the columns. */
double sum_of_exponentials(const float* scaled, int64_t vocab, float largest);

}  // namespace rlsd::cpu

#endif
