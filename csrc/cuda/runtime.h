/* The CUDA runtime as the entries use it: failures become a status and words, the caller's device is put back. */
#ifndef RLSD_CUDA_RUNTIME_H_
#define RLSD_CUDA_RUNTIME_H_

#include <cuda_runtime.h>

#include "core/error.h"
#include "cuda/driver.h"
#include "rlsd/rlsd.h"

namespace rlsd::cuda {

constexpr int kThreads = 256; /* of every block */
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;

/* Numbers that the headers of older toolkits do not name. */
constexpr int kErrorContained = 226, kErrorTensorMemoryLeak = 721;

/* These leave the process's context unusable: every later call fails with the same number. */
inline bool poisons(cudaError_t error) {
  switch (static_cast<int>(error)) {
    case kErrorContained:
    case kErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
      return true;
    default:
      return false;
  }
}

/* Answers of a launch that the device, or the part of it that this process has (MIG, MPS), has no room for, or no clusters.
 * Nothing was run, and the context is as good as before. */
inline bool has_no_room(cudaError_t error) {
  return error == cudaErrorLaunchOutOfResources || error == cudaErrorInvalidClusterSize ||
         error == cudaErrorInvalidConfiguration || error == cudaErrorNotSupported;
}

/* RLSD_OK, or a status with `what` failed and CUDA's own name and number for why. */
inline rlsd_status to_status(rlsd_context* context, cudaError_t error, const char* what) {
  if (error == cudaSuccess) return RLSD_OK;
  cudaGetLastError(); /* a failure that does not poison must not be found again by the next call */
  const char* const advice =
      poisons(error) ? " The CUDA context of this process is lost: start a new process to use the device again." : "";
  return fail(context, error == cudaErrorMemoryAllocation ? RLSD_OUT_OF_MEMORY : RLSD_DEVICE, -1, "%s: %s (%d, %s).%s",
              what, cudaGetErrorName(error), static_cast<int>(error), cudaGetErrorString(error), advice);
}

#define RLSD_CUDA_CHECK(context, call, what)                                       \
  do {                                                                             \
    const rlsd_status rlsd_check = ::rlsd::cuda::to_status((context), (call), (what)); \
    if (rlsd_check != RLSD_OK) return rlsd_check;                                  \
  } while (false)

/* The context's device while it lives. The thread's own is put back where it is in use: a thread that never chose one has
 * device 0, and selecting that would make a context on a device that nobody asked for. */
class DeviceGuard {
 public:
  explicit DeviceGuard(const rlsd_context* context) {
    if (cudaGetDevice(&before_) != cudaSuccess) before_ = -1;
    is_other_ = before_ != context->device;
    error_ = is_other_ ? cudaSetDevice(context->device) : cudaSuccess;
  }
  ~DeviceGuard() {
    if (is_other_ && before_ >= 0 && has_active_context(before_)) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  cudaError_t error() const { return error_; }

 private:
  int before_ = -1;
  bool is_other_;
  cudaError_t error_;
};

inline cudaStream_t stream_of(const rlsd_context* context) { return static_cast<cudaStream_t>(context->stream); }

/* Runs an entry's body on the context's device. */
template <class Body>
rlsd_status on_device(rlsd_context* context, Body&& body) {
  const DeviceGuard guard(context);
  RLSD_CUDA_CHECK(context, guard.error(), "Could not select the device");
  return body();
}

/* Gives something back on the context's device. What went with a lost context is no failure: who gives back cleans up
 * after an error that has told of the loss. */
template <class Body>
rlsd_status give_back(rlsd_context* context, const char* what, Body&& body) {
  const DeviceGuard guard(context);
  const cudaError_t error = guard.error() == cudaSuccess ? body() : guard.error();
  return poisons(error) ? RLSD_OK : to_status(context, error, what);
}

/* A grid of blocks of kThreads, in clusters of `cluster` blocks (1: none), each with `shared` bytes of shared memory. */
struct Grid {
  unsigned blocks;
  unsigned cluster = 1;
  size_t shared = 0;
};

/* A grid as the runtime takes it. Not copied: the configuration points at the attribute. */
struct LaunchConfig {
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config{};

  LaunchConfig(Grid grid, cudaStream_t stream) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = grid.cluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(grid.blocks);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = grid.shared;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = grid.cluster > 1 ? 1 : 0;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
};

template <class... Parameters, class... Arguments>
cudaError_t try_launch(rlsd_context* context, Grid grid, void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.blocks == 0) return cudaSuccess;
  const LaunchConfig launch(grid, stream_of(context));
  return cudaLaunchKernelEx(&launch.config, kernel, static_cast<Arguments&&>(arguments)...);
}

template <class... Parameters, class... Arguments>
rlsd_status launch(rlsd_context* context, const char* name, Grid grid, void (*kernel)(Parameters...),
                   Arguments&&... arguments) {
  return to_status(context, try_launch(context, grid, kernel, static_cast<Arguments&&>(arguments)...), name);
}

/* Clusters of the grid that fit on the device at a time. */
template <class... Parameters>
cudaError_t active_clusters(void (*kernel)(Parameters...), Grid grid, int processors, int* count) {
  const auto* const function = reinterpret_cast<const void*>(kernel);
  if (grid.cluster > 1) {
    grid.blocks = grid.cluster;
    const LaunchConfig launch(grid, nullptr);
    return cudaOccupancyMaxActiveClusters(count, function, &launch.config);
  }
  const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(count, function, kThreads, grid.shared);
  *count *= processors;
  return error;
}

}  // namespace rlsd::cuda

#endif
