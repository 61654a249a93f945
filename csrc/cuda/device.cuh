/* What kernels need of the device beyond CUDA C++: dynamic shared memory, clusters, bulk copies, fast exponentials.
 * Under RLSD_CUDA_EMULATED the same names run on the host (csrc/test/cuda_emulation), so that tests reach every kernel. */
#ifndef RLSD_CUDA_DEVICE_CUH_
#define RLSD_CUDA_DEVICE_CUH_

#include "cuda/runtime.h"

/* Whether this pass of the compiler is for a device with clusters and bulk copies. */
#if defined(RLSD_CUDA_EMULATED) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define RLSD_HAS_CLUSTERS 1
#else
#define RLSD_HAS_CLUSTERS 0
#endif

namespace rlsd::cuda {

#if defined(RLSD_CUDA_EMULATED)

template <class T>
inline T* shared_memory() {
  return static_cast<T*>(emulation::shared_memory());
}
inline unsigned cluster_rank() { return emulation::cluster_rank(); }
inline void cluster_arrive() { emulation::cluster_arrive(); }
inline void cluster_arrive_relaxed() { emulation::cluster_arrive(); }
inline void cluster_wait() { emulation::cluster_wait(); }
template <class T>
inline const T* peer_shared(const T* mine, unsigned rank) {
  return static_cast<const T*>(emulation::peer_shared(mine, rank));
}
inline float exp2_fast(float x) { return std::exp2(x); }
inline void barrier_init(uint64_t* barrier) { emulation::barrier_init(barrier); }
inline void barriers_ready() {}
inline void barrier_expect(uint64_t* barrier, uint32_t bytes) { emulation::barrier_expect(barrier, bytes); }
inline void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  emulation::bulk_load(to, from, bytes, barrier);
}
inline void barrier_wait(uint64_t* barrier) { emulation::barrier_wait(barrier); }
inline void bulk_prefetch(const void* from, uint32_t bytes) { emulation::bulk_prefetch(from, bytes); }

#else

template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char rlsd_shared[];
  return reinterpret_cast<T*>(rlsd_shared);
}

/* 2^x to 2 units in the last place; subnormal results are 0, NaN stays NaN. */
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#if RLSD_HAS_CLUSTERS

__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/* Writes to shared memory before the arrival are seen by peers after their wait. A warp's threads come together. */
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
/* Shows peers nothing, and so waits for no write: a release is a fence of the whole device in machine code. */
__device__ __forceinline__ void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

/* The same place in the shared memory of another block of the cluster. */
template <class T>
__device__ __forceinline__ const T* peer_shared(const T* mine, unsigned rank) {
  uint64_t peer;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(peer) : "l"(mine), "r"(rank));
  return reinterpret_cast<const T*>(peer);
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/* One thread initialises barriers, says that they are ready, expects and copies; every thread waits. One phase: a barrier
 * serves one load. */
__device__ __forceinline__ void barrier_init(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void barriers_ready() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); /* the copy engine must find them initialised */
}
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
/* Addresses and size are multiples of 16. The L2 cache gives such lines up first: they are read once, and what was asked
 * for ahead must stay. */
__device__ __forceinline__ void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
          shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}
/* Asks the L2 cache for what will be read soon; nothing waits for it. Address and size are multiples of 16. */
__device__ __forceinline__ void bulk_prefetch(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again_%=:\n"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], 0;\n"
      "@!done bra again_%=;\n"
      "}\n" ::"r"(shared_address(barrier))
      : "memory");
}

#endif
#endif

}  // namespace rlsd::cuda

#endif
