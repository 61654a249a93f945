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

/* Whether resident rows may be used where the device can run them. What has passed is the machine code for compute
 * capability 9.0; newer devices compile the kernel anew, so that there it takes RLSD_CUDA_EXPERIMENTAL=1.
 * RLSD_CUDA_ROWS=plain turns them off. */
bool may_use_resident_rows(const rlsd_context* context);

/* What a call answers that keeps no rows though RLSD_CUDA_ROWS=resident asks for them by name: checks and benches learn
 * what they ran. RLSD_OK otherwise. `preferred_cluster`: of how many blocks rows would be kept, had the device room; 0: of none. */
rlsd_status refuse_plain_rows(rlsd_context* context, int preferred_cluster);

}  // namespace rlsd::cuda

#endif
