#include "cuda/dispatch.h"

#include <cstdlib>
#include <cstring>

#include "cuda/passed_kernels.h"

namespace rlsd::cuda {
namespace {

bool is_set(const char* variable, const char* value) {
  const char* const given = std::getenv(variable);
  return given != nullptr && std::strcmp(given, value) == 0;
}

bool is_experimental() { return is_set("RLSD_CUDA_EXPERIMENTAL", "1"); }

const char* name_of(Kernel kernel) {
  switch (kernel) {
    case Kernel::kTokens:
      return "policy-tokens";
    case Kernel::kPlainRows:
      return "rows-plain";
    default:
      return "rows-resident";
  }
}

}  // namespace

bool may_use(Kernel kernel) {
  for (const char* passed : kPassedKernels) {
    if (passed != nullptr && std::strcmp(passed, name_of(kernel)) == 0) return true;
  }
  return is_experimental();
}

rlsd_status require(rlsd_context* context, Kernel kernel) {
  if (may_use(kernel)) return RLSD_OK;
  return fail(context, RLSD_UNSUPPORTED, -1,
              "The CUDA kernel %s has not passed its checks on a GPU yet. RLSD_CUDA_EXPERIMENTAL=1 allows it all the "
              "same; npm run gpu:check runs the checks.",
              name_of(kernel));
}

bool may_use_resident_rows(const rlsd_context* context) {
  if (!may_use(Kernel::kResidentRows) || is_set("RLSD_CUDA_ROWS", "plain")) return false;
  int major = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, context->device) != cudaSuccess) return false;
  return major == 9 || (major > 9 && is_experimental());
}

rlsd_status refuse_plain_rows(rlsd_context* context, int preferred_cluster) {
  if (!is_set("RLSD_CUDA_ROWS", "resident")) return RLSD_OK;
  if (preferred_cluster > 0) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "RLSD_CUDA_ROWS=resident: cuda:%d, or this process's share of it (MIG, MPS), has no room for blocks that keep "
                "rows of this call, %d or fewer for a row.",
                context->device, preferred_cluster);
  }
  return fail(context, RLSD_UNSUPPORTED, -1,
              "RLSD_CUDA_ROWS=resident: rows of this call cannot be kept in shared memory. That takes a device of compute "
              "capability 9.0 or newer, the gradient of logits, and rows that start at multiples of 16 bytes and fit.");
}

}  // namespace rlsd::cuda
