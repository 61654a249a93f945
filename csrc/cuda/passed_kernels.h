/* Kernels that have passed on a GPU. Written by scripts/passed-kernels.cjs from bench/results; do not edit. */
#ifndef RLSD_CUDA_PASSED_KERNELS_H_
#define RLSD_CUDA_PASSED_KERNELS_H_

namespace rlsd::cuda {

constexpr const char* kPassedKernels[] = {nullptr};

}  // namespace rlsd::cuda

#endif
