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

#if defined(__x86_64__)
RLSD_TARGET_BEGIN(RLSD_AVX512)
namespace avx512 {
#define RLSD_LANES 16
#define RLSD_ROWS 14
#define RLSD_X86_AVX2 1
#include "matmul_kernels.inc"
#undef RLSD_LANES
#undef RLSD_ROWS
#undef RLSD_X86_AVX2
}  // namespace avx512
RLSD_TARGET_END

#if RLSD_HAS_AVX512_BF16
RLSD_TARGET_BEGIN(RLSD_AVX512_BF16)
namespace avx512_bf16 {
#define RLSD_LANES 16
#define RLSD_ROWS 14
#define RLSD_X86_AVX2 1
#include "matmul_kernels.inc"
#include "matmul_bf16_kernels.inc"
#undef RLSD_LANES
#undef RLSD_ROWS
#undef RLSD_X86_AVX2
}  // namespace avx512_bf16
RLSD_TARGET_END
#endif

RLSD_TARGET_BEGIN(RLSD_AVX2)
namespace avx2 {
#define RLSD_LANES 8
#define RLSD_ROWS 6
#define RLSD_X86_AVX2 1
#include "matmul_kernels.inc"
#undef RLSD_LANES
#undef RLSD_ROWS
#undef RLSD_X86_AVX2
}  // namespace avx2
RLSD_TARGET_END
#endif

/* Four lanes: SSE2 (16 registers), NEON (32 registers) or whatever the compiler makes of them. */
namespace portable {
#define RLSD_LANES 4
#if defined(__aarch64__)
#define RLSD_ROWS 12
#else
#define RLSD_ROWS 6
#endif
#define RLSD_X86_AVX2 0
#include "matmul_kernels.inc"
}  // namespace portable

MatmulKernels choose() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::kAvx512:
      return avx512::make("avx512");
    case Isa::kAvx2:
      return avx2::make("avx2");
#endif
    default:
      return portable::make("portable");
  }
}

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
