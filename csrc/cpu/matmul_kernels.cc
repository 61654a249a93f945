#include "cpu/matmul_kernels.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "cpu/half.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define RLSD_X86 1
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

#define RLSD_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define RLSD_TARGET_BEGIN(features) \
  RLSD_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define RLSD_TARGET_END RLSD_PRAGMA(clang attribute pop)
#else
#define RLSD_TARGET_BEGIN(features) \
  RLSD_PRAGMA(GCC push_options)     \
  RLSD_PRAGMA(GCC target(features))
#define RLSD_TARGET_END RLSD_PRAGMA(GCC pop_options)
#endif

#if RLSD_X86
/* x86-64-v4 and x86-64-v3, as far as these kernels use them. */
RLSD_TARGET_BEGIN("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,prefer-vector-width=512")
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

RLSD_TARGET_BEGIN("avx2,fma,f16c")
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

/* RLSD_ISA narrows the choice, so that machines of different width can be made to agree bit for bit. */
bool allowed(const char* name) {
  const char* wanted = std::getenv("RLSD_ISA");
  return wanted == nullptr || std::strcmp(wanted, name) == 0;
}

MatmulKernels choose() {
#if RLSD_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && allowed("avx512")) {
    return avx512::make("avx512");
  }
  if (avx2 && allowed("avx2")) return avx2::make("avx2");
#endif
  return portable::make("portable");
}

}  // namespace

const MatmulKernels& matmul_kernels() {
  static const MatmulKernels kernels = choose();
  return kernels;
}

}  // namespace rlsd::cpu
