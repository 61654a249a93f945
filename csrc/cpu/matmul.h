/* Matrix product: C (M, N) = op(A) op(B) + beta C, plus bias (N) on each row.
 *
 * Operands are float32, float16 or bfloat16 in any mix; products and sums are float32, C is rounded once.
 * Bits of an element depend on its row of op(A), its column of op(B) and K alone (matmul_kernels.h). */
#ifndef RLSD_CPU_MATMUL_H_
#define RLSD_CPU_MATMUL_H_

#include "cpu/matmul_kernels.h"
#include "rlsd/rlsd.h"

namespace rlsd::cpu {

struct MatmulProblem {
  int64_t m, n, k;
  MatrixView a; /* line: row of op(A) */
  MatrixView b; /* line: column of op(B) */
  int32_t c_dtype;
  void* c;
  int64_t c_stride; /* elements between rows of C */
  int32_t bias_dtype;
  const void* bias; /* (N); NULL: none */
  float beta;
  const float* packed;            /* op(B) as packed_weight.h has it, read in b's place; NULL: there is none */
  const MatmulKernels* kernels;   /* set by matmul_parallel, as the context's matmul_dtype says */
  const volatile int32_t* cancel; /* polled about every 100 us of work; NULL: never */
};

/* Bytes of scratch that a product needs under this context, a multiple of 64. */
int64_t matmul_scratch_bytes(const rlsd_context* context, const MatmulProblem& problem);

/* The whole product on the context's threads. `scratch`: matmul_scratch_bytes.
 * RLSD_CANCELLED, with C left as it is, when the context's flag was raised. */
rlsd_status matmul_parallel(rlsd_context* context, const MatmulProblem& problem, void* scratch);

/* The kernels that the context's matmul_dtype asks for. */
const MatmulKernels& matmul_kernels_of(const rlsd_context* context);

/* Table entries. */
rlsd_status matmul(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias,
                   int32_t transpose_a, int32_t transpose_b, double beta);
rlsd_status matmul_workspace(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, int32_t transpose_a,
                             int32_t transpose_b, uint64_t* bytes);
rlsd_status matmul_packed(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor w, const void* packed,
                          rlsd_tensor bias, double beta);

}  // namespace rlsd::cpu

#endif
