/* Attention's products of a block, for a few rows at once, one set of kernels per instruction
 * set. Each row gets one fixed sequence of operations, whatever rows are computed with it. */
#ifndef RLSD_CPU_MODEL_ATTENTION_KERNELS_H_
#define RLSD_CPU_MODEL_ATTENTION_KERNELS_H_

#include <cstdint>

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

constexpr int64_t kKeys = RLSD_KEY_BLOCK;
constexpr int kRowTile = 4; /* rows computed at once, at most */

struct AttentionKernels {
  /* [rows - 1] */
  /* scores[r][j] = sum over d of q[r][d] packed_keys[d][j] in the order of d, for the first `width`
   * keys, a multiple of 32 */
  void (*scores[kRowTile])(float (*scores)[kKeys], const float* const* q, const float* packed_keys,
                           int64_t width, int64_t dim);
  /* out[r] = out[r] keep[r] + sum over j of weights[r][j] rows[j] in the order of j */
  void (*add_weighted[kRowTile])(float* const* out, const float* keep, const float* const* weights,
                                 const float* rows, int64_t stride, int64_t count, int64_t dim);
  /* to[j] += weights[r][j] rows[r], in the order of r */
  void (*add_outer[kRowTile])(float* to, int64_t stride, const float* const* weights,
                              const float* const* rows, int64_t count, int64_t dim);
};

/* The kernels of the widest instruction set that this processor has. */
const AttentionKernels& attention_kernels();

}  // namespace rlsd::cpu

#endif
