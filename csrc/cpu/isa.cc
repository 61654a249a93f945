#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>

namespace rlsd::cpu {
namespace {

bool allowed(const char* name) {
  const char* wanted = std::getenv("RLSD_ISA");
  return wanted == nullptr || std::strcmp(wanted, name) == 0;
}

Isa choose() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
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

}  // namespace rlsd::cpu
