/* Sums and minima over a block in a fixed order: lanes by halves, then warps in turn. The result reaches every thread.
 * No floating-point atomics anywhere: the same input gives the same bits. */
#ifndef RLSD_CUDA_REDUCE_CUH_
#define RLSD_CUDA_REDUCE_CUH_

#include "cuda/device.cuh"

namespace rlsd::cuda {

struct Add {
  __device__ double operator()(double a, double b) const { return a + b; }
};
struct Larger { /* NaN when either is */
  __device__ double operator()(double a, double b) const { return a > b || a != a ? a : b; }
};
struct Sum {
  __device__ unsigned long long operator()(unsigned long long a, unsigned long long b) const { return a + b; }
};
struct Least {
  __device__ unsigned long long operator()(unsigned long long a, unsigned long long b) const { return a < b ? a : b; }
};

/* Room for block_reduce of kCount values. */
template <class T, int kCount>
struct BlockScratch {
  T warp[kWarps][kCount];
  T result[kCount];
};

template <int kCount, class T, class Combine>
__device__ void block_reduce(T (&values)[kCount], BlockScratch<T, kCount>* scratch, Combine combine) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      values[j] = combine(values[j], __shfl_xor_sync(0xFFFFFFFFu, values[j], step));
    }
  }
  __syncthreads(); /* the scratch of an earlier reduction has been read by all */
  if (lane == 0) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) scratch->warp[warp][j] = values[j];
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < kCount) {
    T total = scratch->warp[0][threadIdx.x];
    for (int w = 1; w < kWarps; ++w) total = combine(total, scratch->warp[w][threadIdx.x]);
    scratch->result[threadIdx.x] = total;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kCount; ++j) values[j] = scratch->result[j];
}

}  // namespace rlsd::cuda

#endif
