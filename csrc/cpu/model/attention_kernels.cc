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

#define RLSD_KERNELS "cpu/model/attention_kernels.inc"
#include "cpu/each_isa.inc"

}  // namespace

const AttentionKernels& attention_kernels() {
  static const AttentionKernels kernels = choose();
  return kernels;
}

}  // namespace rlsd::cpu
