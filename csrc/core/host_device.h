/* Functions that the host and the device compute from one source. */
#ifndef RLSD_CORE_HOST_DEVICE_H_
#define RLSD_CORE_HOST_DEVICE_H_

#if defined(__CUDACC__)
#define RLSD_HD __host__ __device__ __forceinline__
#else
#define RLSD_HD inline __attribute__((always_inline))
#endif

#endif
