#include "cpu/model/attention_kernels.h"

#include <cstring>
#include <utility>

#include "cpu/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rlsd::cpu {
namespace {

#if defined(__x86_64__)
RLSD_TARGET_BEGIN(RLSD_AVX512)
namespace avx512 {
#define RLSD_LANES 16
#include "attention_kernels.inc"
#undef RLSD_LANES
}  // namespace avx512
RLSD_TARGET_END

RLSD_TARGET_BEGIN(RLSD_AVX2)
namespace avx2 {
#define RLSD_LANES 8
#include "attention_kernels.inc"
#undef RLSD_LANES
}  // namespace avx2
RLSD_TARGET_END
#endif

namespace portable {
#define RLSD_LANES 4
#include "attention_kernels.inc"
#undef RLSD_LANES
}  // namespace portable

AttentionKernels choose() {
  constexpr auto kHeights = std::make_integer_sequence<int, kRowTile>{};
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::kAvx512:
      return avx512::make(kHeights);
    case Isa::kAvx2:
      return avx2::make(kHeights);
#endif
    default:
      return portable::make(kHeights);
  }
}

}  // namespace

const AttentionKernels& attention_kernels() {
  static const AttentionKernels kernels = choose();
  return kernels;
}

}  // namespace rlsd::cpu
