/* Products whose rows are so few that reading op(B) is all there is to do: a step of decoding. Threads share its lines. */
#ifndef RLSD_CPU_MATMUL_FEW_ROWS_H_
#define RLSD_CPU_MATMUL_FEW_ROWS_H_

#include "cpu/matmul.h"

namespace rlsd::cpu {

/* True where both operands lie along k, op(B) is not packed, op(A) has no more rows than there are kernels for, and C is
 * in float32. */
bool has_few_rows(const MatmulProblem& problem);

/* Bytes of scratch for all threads together, a multiple of 64; 0 where rows are not few. */
int64_t few_rows_scratch_bytes(const MatmulProblem& problem);

/* The whole product; its `kernels` and `cancel` are set. Bits as those of tiles (matmul_kernels.h). */
rlsd_status multiply_few_rows(rlsd_context* context, const MatmulProblem& problem, void* scratch);

}  // namespace rlsd::cpu

#endif
