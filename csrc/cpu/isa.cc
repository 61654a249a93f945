#include "cpu/isa.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace rlsd::cpu {
namespace {

#if defined(__x86_64__)
/* Clang could not ask for F16C before version 18; no processor has AVX2 without it. */
bool has_f16c() {
#if defined(__clang__)
  return true;
#else
  return __builtin_cpu_supports("f16c");
#endif
}
#endif

Isa widest() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
    return Isa::kAvx512;
  }
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

IsaChoice choose() {
  IsaChoice c = {widest(), widest(), ""};
  const char* const wanted = std::getenv("RLSD_ISA");
  if (wanted == nullptr || *wanted == '\0') return c;
  for (const Isa set : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (set > c.widest || std::strcmp(wanted, isa_name(set)) != 0) continue;
    c.chosen = set;
    return c;
  }
  c.chosen = Isa::kPortable;
  std::snprintf(c.refused, sizeof(c.refused), "%s", wanted);
  return c;
}

}  // namespace

const char* isa_name(Isa set) {
  constexpr const char* kNames[] = {"portable", "avx2", "avx512"};
  return kNames[static_cast<int>(set)];
}

const IsaChoice& isa_choice() {
  static const IsaChoice choice = choose();
  return choice;
}

bool has_avx512_bf16() {
#if defined(__x86_64__) && RLSD_HAS_AVX512_BF16
  return isa() == Isa::kAvx512 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace rlsd::cpu
