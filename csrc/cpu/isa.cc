#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>

namespace rlsd::cpu {
namespace {

#if defined(__x86_64__)
bool allowed(const char* name) {
  const char* wanted = std::getenv("RLSD_ISA");
  return wanted == nullptr || std::strcmp(wanted, name) == 0;
}

/* Clang could not ask for F16C before version 18; no processor has AVX2 without it. */
bool has_f16c() {
#if defined(__clang__)
  return true;
#else
  return __builtin_cpu_supports("f16c");
#endif
}
#endif

Isa choose() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && allowed("avx512")) {
    return Isa::kAvx512;
  }
  if (avx2 && allowed("avx2")) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

bool has_avx512_bf16() {
#if defined(__x86_64__) && RLSD_HAS_AVX512_BF16
  return isa() == Isa::kAvx512 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace rlsd::cpu
