/* What a device has room for: attributes of devices and kernels, occupancy, and launches that are refused at once.
 *
 * RLSD_EMULATION_MOST_CLUSTER: blocks of the largest cluster that finds room (8), 0: not even one block of a kernel that
 * keeps rows. RLSD_EMULATION_OCCUPANCY_ERROR: what the question for it answers (0). RLSD_EMULATION_REFUSE_CLUSTER: launches
 * of clusters from so many blocks on are refused whatever the answer was, of kernels that keep rows, by
 * RLSD_EMULATION_REFUSAL (701). */
#include <map>
#include <mutex>

#include "state.h"

namespace emulation {
namespace {

constexpr size_t kUsualShared = 48 * 1024; /* of a block whose kernel did not ask for more */
constexpr int kProcessors = 2;             /* few, so that small batches have rows that come next */
constexpr int kMostThreads = 2048;         /* of a multiprocessor */

/* Never destroyed: threads may launch while the process exits. */
std::mutex& mutex = *new std::mutex();
std::map<std::pair<int, const void*>, size_t>& dynamic_shared = *new std::map<std::pair<int, const void*>, size_t>();

/* KiB of shared memory of a multiprocessor. */
int shared_kib(int ordinal) {
  const int major = compute_major(ordinal);
  return major == 9 || major == 10 ? 228 : major == 8 ? 164 : 100;
}

/* Bytes of shared memory that a block of the kernel may have. */
size_t most_shared(const void* kernel) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = dynamic_shared.find({use_device(), kernel});
  return found != dynamic_shared.end() ? found->second : kUsualShared;
}

/* By the multiprocessor's threads and shared memory, of which each block takes one KiB more. */
int blocks_per_processor(int threads, size_t shared) {
  const size_t fit = static_cast<size_t>(shared_kib(use_device())) * 1024 / (shared + 1024);
  return std::min(static_cast<int>(fit), kMostThreads / threads);
}

/* A kernel that asked for more shared memory than is usual. */
bool keeps_rows(const void* kernel) { return most_shared(kernel) > kUsualShared; }

bool finds_room(unsigned cluster, const void* kernel) {
  return !keeps_rows(kernel) || static_cast<int>(cluster) <= number_or("RLSD_EMULATION_MOST_CLUSTER", 8);
}

}  // namespace

cudaError_t refusal(const Launch& grid) {
  if (grid.cluster > 1 && compute_major(use_device()) < 9) return cudaErrorNotSupported;
  if (grid.blocks % grid.cluster != 0 || grid.shared > most_shared(grid.kernel)) return cudaErrorInvalidValue;
  const bool is_refused = keeps_rows(grid.kernel) &&
                          static_cast<int>(grid.cluster) >= number_or("RLSD_EMULATION_REFUSE_CLUSTER", 1 << 30);
  if (is_refused) return static_cast<cudaError_t>(number_or("RLSD_EMULATION_REFUSAL", cudaErrorLaunchOutOfResources));
  return finds_room(grid.cluster, grid.kernel) ? cudaSuccess : cudaErrorLaunchOutOfResources;
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = compute_major(ordinal);
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = shared_kib(ordinal) * 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = (shared_kib(ordinal) - 1) * 1024;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = kProcessors;
      break;
  }
  return settle(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = number_or("RLSD_EMULATION_PTX", 10 * compute_major(use_device()));
  return settle(cudaSuccess);
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const int ordinal = use_device();
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
    return settle(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
  }
  if (value < 0 || value > (shared_kib(ordinal) - 1) * 1024) return settle(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(mutex);
  dynamic_shared[{ordinal, kernel}] = static_cast<size_t>(value);
  return settle(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void* kernel, const cudaLaunchConfig_t* config) {
  trace("occupancy");
  *count = 0;
  const int error = number_or("RLSD_EMULATION_OCCUPANCY_ERROR", cudaSuccess);
  if (error != cudaSuccess) return settle(static_cast<cudaError_t>(error));
  if (config->numAttrs == 0 || config->dynamicSmemBytes > most_shared(kernel)) return settle(cudaErrorInvalidValue);
  const unsigned cluster = config->attrs[0].val.clusterDim.x;
  if (config->gridDim.x % cluster != 0 || compute_major(use_device()) < 9) return settle(cudaErrorInvalidClusterSize);
  const int blocks = kProcessors * blocks_per_processor(static_cast<int>(config->blockDim.x), config->dynamicSmemBytes);
  /* The emulated device is too small for wide clusters, and runs them all the same. */
  if (finds_room(cluster, kernel)) *count = std::max(1, blocks / static_cast<int>(cluster));
  return settle(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* count, const void* kernel, int threads, size_t shared) {
  trace("occupancy");
  *count = 0;
  const int error = number_or("RLSD_EMULATION_OCCUPANCY_ERROR", cudaSuccess);
  if (error != cudaSuccess) return settle(static_cast<cudaError_t>(error));
  if (shared > most_shared(kernel)) return settle(cudaErrorInvalidValue);
  if (finds_room(1, kernel)) *count = blocks_per_processor(threads, shared);
  return settle(cudaSuccess);
}
