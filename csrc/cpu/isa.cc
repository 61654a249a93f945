#include "cpu/isa.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "cpu/x86_features.h"

namespace rlsd::cpu {
namespace {

Isa widest() {
#if defined(__x86_64__)
  const X86Features has = x86_features();
  if (has.avx512) return Isa::kAvx512;
  if (has.avx2) return Isa::kAvx2;
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
  static const bool has = x86_features().avx512_bf16;
  return has && isa() == Isa::kAvx512;
#else
  return false;
#endif
}

}  // namespace rlsd::cpu
