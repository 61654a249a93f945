/* One thread's part of a matrix product: a block of C, computed with scratch of its own.
 *
 *   for each kBlockK deep block of the sums:
 *     pack the block's part of B                      (stays in the second-level cache)
 *     for each panel of rows: pack A
 *       for each sliver of rows                       (stays in the first-level cache)
 *         for each sliver of columns: one register tile of C
 *
 * Packing is repeated by neighbouring blocks instead of being shared, so that threads never wait for each other. */
#ifndef RLSD_CPU_MATMUL_BLOCK_H_
#define RLSD_CPU_MATMUL_BLOCK_H_

#include "cpu/matmul.h"

namespace rlsd::cpu {

struct MatmulBlock {
  int64_t row, rows, column, columns;
};

/* The most rows and columns that a block may have. */
int64_t most_block_rows(const MatmulProblem& problem);
int64_t most_block_columns(const MatmulProblem& problem);

/* Bytes of one thread's scratch, a multiple of 64. */
int64_t block_scratch_bytes(const MatmulProblem& problem);

void multiply_block(const MatmulProblem& problem, const MatmulBlock& block, void* scratch);

}  // namespace rlsd::cpu

#endif
