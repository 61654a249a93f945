/* Weights w (N, K) in the slivers that register tiles read (matmul_kernels.h), so that a product of few rows need not pack
 * them: by blocks of kBlockK in k, in each the slivers of all N lines, each [k / step][columns]. A step of decoding reads
 * every weight once for a handful of rows; packing them then takes a third to a half of its time. */
#ifndef RLSD_CPU_PACKED_WEIGHT_H_
#define RLSD_CPU_PACKED_WEIGHT_H_

#include "cpu/matmul_kernels.h"
#include "rlsd/rlsd.h"

namespace rlsd::cpu {

/* An operand from (line, k) on. */
MatrixView matrix_from(const MatrixView& view, int64_t line, int64_t k);

/* Floats of a sliver of `depth` elements of k, at most kBlockK. */
int64_t sliver_floats(const MatmulKernels& kernels, int64_t depth);

/* `lines` lines of op(B) as slivers, one after another. */
void pack_slivers(const MatmulKernels& kernels, const MatrixView& b, int64_t lines, int64_t depth, float* to);

/* The sliver of packed weights (n, depth) that begins with `line`, a multiple of a tile's columns, from k on, a multiple
 * of kBlockK. */
const float* packed_sliver(const MatmulKernels& kernels, const float* packed, int64_t n, int64_t depth, int64_t line,
                           int64_t k);

/* Table entries. */
rlsd_status packed_weight_bytes(rlsd_context* context, rlsd_tensor w, int64_t rows, uint64_t* bytes);
rlsd_status pack_weight(rlsd_context* context, void* packed, rlsd_tensor w);

}  // namespace rlsd::cpu

#endif
