/* What an x86-64 processor and its system can do, asked of the processor itself: __builtin_cpu_supports says no to
 * everything where a toolchain's run-time library does not fill its table in (Zig's), and Clang's did not know F16C. */
#ifndef RLSD_CPU_X86_FEATURES_H_
#define RLSD_CPU_X86_FEATURES_H_

#if defined(__x86_64__)

#include <cpuid.h>

#include <cstdint>

namespace rlsd::cpu {

struct X86Features {
  bool avx2 = false;   /* with FMA and F16C */
  bool avx512 = false; /* F, VL, DQ and BW */
  bool avx512_bf16 = false;
};

/* XCR0: which registers the system saves when it changes threads. */
inline uint64_t saved_registers() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

/* Intel's Software Developer's Manual, volume 2, CPUID: leaves 1, 7.0 and 7.1. */
inline X86Features x86_features() {
  constexpr uint32_t kFma = 1u << 12, kOsXsave = 1u << 27, kAvx = 1u << 28, kF16c = 1u << 29;
  constexpr uint32_t kAvx2 = 1u << 5, kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31); /* F, DQ, BW, VL */
  constexpr uint32_t kAvx512Bf16 = 1u << 5;
  constexpr uint64_t kYmm = 0x6;
  X86Features f;
  uint32_t a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return f;
  constexpr uint32_t kFirst = kFma | kOsXsave | kAvx | kF16c;
  if ((c & kFirst) != kFirst) return f;
  const uint64_t saved = saved_registers();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return f;
  const uint32_t leaves = a;
  f.avx2 = (saved & kYmm) == kYmm && (b & kAvx2) != 0;
#if defined(__APPLE__) /* which begins to save them when a thread first uses them */
  const bool saves_zmm = true;
#else
  constexpr uint64_t kZmm = 0xe6;
  const bool saves_zmm = (saved & kZmm) == kZmm;
#endif
  f.avx512 = f.avx2 && saves_zmm && (b & kAvx512) == kAvx512;
  if (f.avx512 && leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) f.avx512_bf16 = (a & kAvx512Bf16) != 0;
  return f;
}

}  // namespace rlsd::cpu

#endif

#endif
