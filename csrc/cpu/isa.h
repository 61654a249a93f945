/* Instruction sets: a kernel's body is compiled once for each, and one is chosen when the process first needs it.
 *
 *   #define RLSD_KERNELS "body.inc"
 *   #include "cpu/each_isa.inc"
 *
 * Builds for different sets agree to float tolerance (fused multiply-add), not bit for bit. */
#ifndef RLSD_CPU_ISA_H_
#define RLSD_CPU_ISA_H_

/* Vectors never cross a function boundary that is not inlined. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#define RLSD_INLINE inline __attribute__((always_inline))

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

/* Clang knows no such target, and would leave the others out too; its vectors are as wide as they are written. */
#if defined(__clang__)
#define RLSD_AVX512 "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c"
#else
#define RLSD_AVX512 "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,prefer-vector-width=512"
#endif
#define RLSD_AVX2 "avx2,fma,f16c"
#define RLSD_AVX512_BF16 RLSD_AVX512 ",avx512bf16"
/* Compilers that know its instructions. */
#if defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10
#define RLSD_HAS_AVX512_BF16 1
#else
#define RLSD_HAS_AVX512_BF16 0
#endif

namespace rlsd::cpu {

/* Each includes those before it. */
enum class Isa { kPortable, kAvx2, kAvx512 };

const char* isa_name(Isa set);

struct IsaChoice {
  Isa chosen, widest; /* that this processor has */
  char refused[64];   /* what RLSD_ISA asks for where it cannot be had, which makes `chosen` portable; else empty */
};

/* The widest set that this processor has. RLSD_ISA=portable|avx2|avx512 narrows the choice, so that machines of
 * different width can be made to agree bit for bit. */
const IsaChoice& isa_choice();
inline Isa isa() { return isa_choice().chosen; }

/* Whether products of bfloat16 pairs are among the instructions of kAvx512 here. */
bool has_avx512_bf16();

}  // namespace rlsd::cpu

#endif
