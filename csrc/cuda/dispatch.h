/* Which kernels may be used. A kernel that has not passed its checks on a GPU is never the default. */
#ifndef RLSD_CUDA_DISPATCH_H_
#define RLSD_CUDA_DISPATCH_H_

#include "cuda/runtime.h"

namespace rlsd::cuda {

enum class Kernel { kTokens, kPlainRows, kResidentRows };

/* True when the kernel has passed (bench/results, by way of passed_kernels.h) or RLSD_CUDA_EXPERIMENTAL is set. */
bool may_use(Kernel kernel);

/* RLSD_UNSUPPORTED, saying what would allow the kernel, unless it may be used. */
rlsd_status require(rlsd_context* context, Kernel kernel);

/* Whether the device can run resident rows and they may be used. RLSD_CUDA_ROWS=plain turns them off. */
bool use_resident_rows(const rlsd_context* context);

}  // namespace rlsd::cuda

#endif
