/* The runtime's functions over host memory. RLSD_EMULATION_DEVICES: how many devices (1), or "old-driver".
 * RLSD_EMULATION_MEMORY: bytes of each (1 GiB). A copy to or from memory that is not the device's poisons the context. */
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "cuda_runtime.h"

namespace {

std::mutex mutex;
std::map<const char*, size_t> allocations; /* start: bytes */
size_t allocated = 0;
cudaError_t last = cudaSuccess;
bool poisoned = false;
int device = 0;

size_t memory_bytes() {
  const char* const given = std::getenv("RLSD_EMULATION_MEMORY");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : size_t{1} << 30;
}

cudaError_t settle(cudaError_t error) {
  if (poisoned) error = cudaErrorIllegalAddress;
  if (error != cudaSuccess) last = error;
  return error;
}

bool is_device_memory(const void* data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  const char* const at = static_cast<const char*>(data);
  auto after = allocations.upper_bound(at);
  if (after == allocations.begin()) return false;
  const auto& found = *--after;
  return at + bytes <= found.first + found.second;
}

cudaError_t poison() {
  poisoned = true;
  return settle(cudaErrorIllegalAddress);
}

}  // namespace

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
  properties->major = 9;
  return settle(cudaSuccess);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 9;
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
  return settle(cudaSuccess);
}
cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return settle(cudaSuccess);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (poisoned) return settle(cudaErrorIllegalAddress);
  if (kind != cudaMemcpyDeviceToHost && !is_device_memory(to, bytes)) return poison();
  if (kind != cudaMemcpyHostToDevice && !is_device_memory(from, bytes)) return poison();
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (poisoned || !is_device_memory(to, bytes)) return poison();
  std::memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = static_cast<cudaStream_t>(std::malloc(1));
  return settle(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::free(stream);
  return settle(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return settle(cudaSuccess); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return settle(cudaSuccess); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = static_cast<cudaEvent_t>(std::malloc(1));
  return settle(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  std::free(event);
  return settle(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return settle(cudaSuccess); }
cudaError_t cudaEventQuery(cudaEvent_t) { return settle(cudaSuccess); }
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
