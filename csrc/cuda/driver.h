/* Functions of the driver that the runtime has no name for. The runtime gives them out: nothing links libcuda. */
#ifndef RLSD_CUDA_DRIVER_H_
#define RLSD_CUDA_DRIVER_H_

#include <cuda_runtime.h>

namespace rlsd::cuda {

/* NULL where the driver has no such function. `F` is its type of CUDA 11.3, in plain types: a CUresult is an int, a
 * CUdevice an int that is the ordinal, a CUdeviceptr an unsigned long long. */
template <class F>
F driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &found, 11030, cudaEnableDefault, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &result);
#endif
  if (error == cudaSuccess && result == cudaDriverEntryPointSuccess) return reinterpret_cast<F>(found);
  cudaGetLastError();
  return nullptr;
}

/* Whether something of this process uses the device: to ask does not make a context, as most calls of the runtime do.
 * True where the driver does not say. */
inline bool has_active_context(int device) {
  static const auto state = driver_function<int (*)(int, unsigned*, int*)>("cuDevicePrimaryCtxGetState");
  unsigned flags = 0;
  int active = 0;
  return state == nullptr || state(device, &flags, &active) != 0 || active != 0;
}

/* Start of the allocation that an address of the current device lies in; NULL where the driver does not know it. */
inline void* allocation_start(void* address) {
  static const auto range =
      driver_function<int (*)(unsigned long long*, size_t*, unsigned long long)>("cuMemGetAddressRange");
  unsigned long long base = 0;
  size_t bytes = 0;
  const bool known = range != nullptr && range(&base, &bytes, reinterpret_cast<unsigned long long>(address)) == 0;
  return known ? reinterpret_cast<void*>(base) : nullptr;
}

}  // namespace rlsd::cuda

#endif
