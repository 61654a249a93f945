#include "cpu/matmul_kernels.h"

#include <cstring>
#include <utility>

#include "core/half.h"
#include "cpu/isa.h"

#if defined(__x86_64__)
/* GCC's own header, for registers that it leaves undefined on purpose. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rlsd::cpu {
namespace {

struct F16 {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};

#define RLSD_KERNELS "cpu/matmul_kernels.inc"
#include "cpu/each_isa.inc"

#if defined(__x86_64__) && RLSD_HAS_AVX512_BF16
RLSD_TARGET_BEGIN(RLSD_AVX512_BF16)
namespace avx512_bf16 {
#define RLSD_LANES 16
#include "cpu/matmul_kernels.inc"
#include "cpu/matmul_bf16_kernels.inc"
#undef RLSD_LANES
}  // namespace avx512_bf16
RLSD_TARGET_END
#endif

MatmulKernels choose_bf16() {
#if defined(__x86_64__) && RLSD_HAS_AVX512_BF16
  if (has_avx512_bf16()) return avx512_bf16::make_pairs(matmul_kernels());
#endif
  return matmul_kernels();
}

}  // namespace

const MatmulKernels& matmul_kernels() {
  static const MatmulKernels kernels = choose();
  return kernels;
}

const MatmulKernels& bf16_matmul_kernels() {
  static const MatmulKernels kernels = choose_bf16();
  return kernels;
}

}  // namespace rlsd::cpu
