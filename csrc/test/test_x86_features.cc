/* What the processor is asked agrees with the compiler's own question, where its run-time library answers it. */
#include "cpu/x86_features.h"

#include <cstdio>

int main() {
#if defined(__x86_64__) && !defined(__clang__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  const rlsd::cpu::X86Features has = rlsd::cpu::x86_features();
  if (has.avx2 != avx2 || has.avx512 != avx512 || has.avx512_bf16 != bf16) {
    std::fprintf(stderr, "asked: %d %d %d, compiler: %d %d %d\n", has.avx2, has.avx512, has.avx512_bf16, avx2, avx512, bf16);
    return 1;
  }
#endif
  return 0;
}
