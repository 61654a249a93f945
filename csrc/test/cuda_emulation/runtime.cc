/* The runtime's functions over host memory. RLSD_EMULATION_DEVICES: how many devices (1), or "old-driver".
 * RLSD_EMULATION_MEMORY: bytes of each (1 GiB). RLSD_EMULATION_COMPUTE: the major number of their compute capability (9);
 * RLSD_EMULATION_PTX: what their kernels were compiled for (ten times that number). A copy to or from memory that is not the device's poisons the context. */
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace {

/* Never destroyed: streams' threads may outlive main. */
std::mutex& mutex = *new std::mutex();
using Blocks = std::map<const char*, size_t>; /* start: bytes */
Blocks &allocations = *new Blocks(), &pinned = *new Blocks();
std::atomic<size_t> allocated{0};
std::atomic<bool> poisoned{false};
std::atomic<int> failed_launch{cudaSuccess};
thread_local cudaError_t last = cudaSuccess;
thread_local int device = 0;

int number_or(const char* variable, int otherwise) {
  const char* const given = std::getenv(variable);
  return given != nullptr ? std::atoi(given) : otherwise;
}
int compute_major() { return number_or("RLSD_EMULATION_COMPUTE", 9); }

size_t memory_bytes() {
  const char* const given = std::getenv("RLSD_EMULATION_MEMORY");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : size_t{1} << 30;
}

cudaError_t settle(cudaError_t error) {
  if (poisoned) error = cudaErrorIllegalAddress;
  if (error != cudaSuccess) last = error;
  return error;
}

bool lies_in(const Blocks& blocks, const void* data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  const char* const at = static_cast<const char*>(data);
  auto after = blocks.upper_bound(at);
  if (after == blocks.begin()) return false;
  const auto& found = *--after;
  return at + bytes <= found.first + found.second;
}

bool is_device_memory(const void* data, size_t bytes) { return lies_in(allocations, data, bytes); }

cudaError_t poison() {
  poisoned = true;
  return settle(cudaErrorIllegalAddress);
}

}  // namespace

/* How often an event was recorded, and which recording was reached. Kept by the work that uses it. */
struct EventState {
  std::atomic<uint64_t> recorded{0}, reached{0};
};
struct EmulatedEvent {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

int emulation::launch(Stream* stream, unsigned blocks, unsigned threads, unsigned cluster, size_t shared,
                      std::function<void()> body) {
  enqueue(stream, [=] {
    alone([&] {
      const int error = run(blocks, threads, cluster, shared, body);
      if (error != cudaSuccess) failed_launch = error;
    });
  });
  return settle(static_cast<cudaError_t>(failed_launch.exchange(cudaSuccess)));
}

void emulation::bulk_prefetch(const void* from, uint32_t bytes) {
  if (reinterpret_cast<uintptr_t>(from) % 16 == 0 && bytes % 16 == 0 && is_device_memory(from, bytes)) return;
  std::fprintf(stderr, "cuda emulation: a prefetch is misaligned or beyond the device's memory\n");
  std::abort();
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  if (!poisoned) last = cudaSuccess;
  return error;
}
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    default:
      return "cudaErrorInvalidValue";
  }
}
const char* cudaGetErrorString(cudaError_t) { return "an emulated failure"; }

cudaError_t cudaGetDeviceCount(int* count) {
  const char* const given = std::getenv("RLSD_EMULATION_DEVICES");
  *count = 0;
  if (given != nullptr && std::strcmp(given, "old-driver") == 0) return settle(cudaErrorInsufficientDriver);
  *count = given != nullptr ? std::atoi(given) : 1;
  return *count > 0 ? cudaSuccess : settle(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* current) {
  *current = device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int wanted) {
  int count = 0;
  cudaGetDeviceCount(&count);
  if (wanted < 0 || wanted >= count) return settle(cudaErrorInvalidDevice);
  device = wanted;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "emulated");
  properties->major = compute_major();
  return settle(cudaSuccess);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int major = compute_major(), shared = major == 9 || major == 10 ? 228 : major == 8 ? 164 : 100;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = major;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = shared * 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = (shared - 1) * 1024;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 2; /* few, so that small batches have rows that come next */
      break;
  }
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = number_or("RLSD_EMULATION_PTX", 10 * compute_major());
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = memory_bytes();
  *free = *total - allocated;
  return settle(cudaSuccess);
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (poisoned || bytes > memory_bytes() - allocated) return settle(cudaErrorMemoryAllocation);
  if (posix_memalign(data, 256, bytes) != 0) return settle(cudaErrorMemoryAllocation); /* not a byte more than asked */
  std::memset(*data, 0xCD, bytes);
  std::lock_guard<std::mutex> lock(mutex);
  allocations[static_cast<char*>(*data)] = bytes;
  allocated += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  if (data == nullptr) return settle(cudaSuccess);
  emulation::wait_for_all();
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = allocations.find(static_cast<char*>(data));
  if (found == allocations.end()) return settle(cudaErrorInvalidValue);
  allocated -= found->second;
  allocations.erase(found);
  std::free(data);
  return settle(cudaSuccess);
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  *data = std::malloc(bytes);
  std::lock_guard<std::mutex> lock(mutex);
  pinned[static_cast<char*>(*data)] = bytes;
  return settle(cudaSuccess);
}
cudaError_t cudaFreeHost(void* data) {
  emulation::wait_for_all();
  std::lock_guard<std::mutex> lock(mutex);
  pinned.erase(static_cast<char*>(data));
  std::free(data);
  return settle(cudaSuccess);
}
/* As on a device: pinned memory is read and written when the stream comes to it; what is not pinned is read now, and
 * written before this returns. */
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (poisoned) return settle(cudaErrorIllegalAddress);
  const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  if (to_device && !is_device_memory(to, bytes)) return poison();
  if (from_device && !is_device_memory(from, bytes)) return poison();
  std::shared_ptr<std::vector<char>> staged;
  if (!from_device && !lies_in(pinned, from, bytes)) {
    const char* const begin = static_cast<const char*>(from);
    staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
  }
  emulation::enqueue(stream, [=] {
    const bool is_there = (!to_device || is_device_memory(to, bytes)) && (!from_device || is_device_memory(from, bytes));
    if (!is_there) return void(poisoned = true);
    emulation::alone([&] { std::memcpy(to, staged != nullptr ? staged->data() : from, bytes); });
  });
  if (!to_device && !lies_in(pinned, to, bytes)) emulation::wait_for(stream);
  return settle(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (poisoned || !is_device_memory(to, bytes)) return poison();
  emulation::enqueue(stream, [=] {
    if (!is_device_memory(to, bytes)) return void(poisoned = true);
    emulation::alone([&] { std::memset(to, value, bytes); });
  });
  return settle(cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = emulation::make_stream();
  return settle(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return settle(cudaSuccess); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  emulation::wait_for(stream);
  return settle(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const auto state = event->state;
  const uint64_t wanted = state->recorded;
  emulation::enqueue(stream, [=] {
    while (state->reached < wanted) std::this_thread::yield();
  });
  return settle(cudaSuccess);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent();
  return settle(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return settle(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto state = event->state;
  const uint64_t number = ++state->recorded;
  emulation::enqueue(stream, [=] { state->reached = number; });
  return settle(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return settle(event->state->reached >= event->state->recorded ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* data) {
  std::memset(handle, 0, sizeof(*handle));
  std::memcpy(handle, &data, sizeof(data));
  return settle(cudaSuccess);
}
cudaError_t cudaIpcOpenMemHandle(void** data, cudaIpcMemHandle_t handle, unsigned) {
  std::memcpy(data, &handle, sizeof(*data));
  return settle(cudaSuccess);
}
cudaError_t cudaIpcCloseMemHandle(void*) { return settle(cudaSuccess); }
