/* Devices, memory, streams, events, and handles that another process can open. */
#include "cuda/memory.h"

#include <cstring>

#include "cuda/runtime.h"

namespace rlsd::cuda {
namespace {

/* No device, no driver and a driver that is too old are answers (0 and CUDA's words), not failures. */
rlsd_status device_count(rlsd_context* context, int32_t* count) {
  int found = 0;
  const cudaError_t error = cudaGetDeviceCount(&found);
  *count = error == cudaSuccess ? found : 0;
  if (error == cudaErrorNoDevice) cudaGetLastError();
  return error == cudaErrorNoDevice ? RLSD_OK : to_status(context, error, "Could not count the devices");
}

/* Makes no context on a device that this process does not use: that takes time, and hundreds of MiB of its memory. */
rlsd_status device_info(rlsd_context* context, rlsd_device_info* info) {
  cudaDeviceProp properties;
  RLSD_CUDA_CHECK(context, cudaGetDeviceProperties(&properties, context->device), "Could not read the device");
  RLSD_CUDA_CHECK(context, cudaDriverGetVersion(&info->driver_version), "Could not read the driver's version");
  RLSD_CUDA_CHECK(context, cudaRuntimeGetVersion(&info->runtime_version), "Could not read the runtime's version");
  info->ordinal = context->device;
  std::snprintf(info->name, sizeof(info->name), "%.127s", properties.name);
  info->memory_bytes = properties.totalGlobalMem;
  info->free_bytes = RLSD_UNKNOWN_BYTES;
  info->compute_major = properties.major;
  info->compute_minor = properties.minor;
  if (!has_active_context(context->device)) return RLSD_OK;
  return on_device(context, [&]() -> rlsd_status {
    size_t free = 0, total = 0;
    RLSD_CUDA_CHECK(context, cudaMemGetInfo(&free, &total), "Could not read the device's memory");
    info->free_bytes = free;
    return RLSD_OK;
  });
}

/* cudaMalloc rather than a stream's pool: only its memory can be handed to another process. */
rlsd_status allocate(rlsd_context* context, uint64_t bytes, void** data) {
  *data = nullptr;
  return on_device(context, [&]() -> rlsd_status {
    const cudaError_t error = cudaMalloc(data, bytes > 0 ? bytes : 1);
    if (error != cudaErrorMemoryAllocation) return to_status(context, error, "Could not allocate device memory");
    cudaGetLastError();
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
    return fail(context, RLSD_OUT_OF_MEMORY, -1,
                "Could not allocate %llu bytes on cuda:%d: %llu of %llu are free. Dispose tensors that are not needed "
                "any more.",
                static_cast<unsigned long long>(bytes), context->device, static_cast<unsigned long long>(free),
                static_cast<unsigned long long>(total));
  });
}

/* Frees what work on the device may still use: neither freeing nor unmapping is documented to wait for it. What that work
 * failed with is said, but the memory is gone all the same. */
template <class Free>
rlsd_status free_after_work(rlsd_context* context, const char* what, Free&& free) {
  return give_back(context, what, [&] {
    const cudaError_t worked = cudaDeviceSynchronize(), freed = free();
    return worked != cudaSuccess ? worked : freed;
  });
}

rlsd_status release(rlsd_context* context, void* data) {
  return free_after_work(context, "Could not free device memory", [&] { return cudaFree(data); });
}

rlsd_status allocate_host(rlsd_context* context, uint64_t bytes, void** data) {
  *data = nullptr;
  return on_device(context, [&] {
    return to_status(context, cudaMallocHost(data, bytes > 0 ? bytes : 1), "Could not allocate pinned memory");
  });
}

rlsd_status release_host(rlsd_context* context, void* data) {
  return free_after_work(context, "Could not free pinned memory", [&] { return cudaFreeHost(data); });
}

rlsd_status copy(rlsd_context* context, void* to, const void* from, uint64_t bytes, int32_t kind) {
  if (bytes == 0) return RLSD_OK;
  constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
  if (kind < RLSD_HOST_TO_DEVICE || kind > RLSD_DEVICE_TO_DEVICE) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected a copy kind of 0 to 2 but received %d.", kind);
  }
  return on_device(context, [&] {
    return to_status(context, cudaMemcpyAsync(to, from, bytes, kKinds[kind], stream_of(context)), "Could not copy");
  });
}

rlsd_status fill_zero(rlsd_context* context, void* data, uint64_t bytes) {
  if (bytes == 0) return RLSD_OK;
  return on_device(context, [&] {
    return to_status(context, cudaMemsetAsync(data, 0, bytes, stream_of(context)), "Could not clear memory");
  });
}

/* Non-blocking: not ordered with the default stream by itself. */
rlsd_status stream_create(rlsd_context* context, void** stream) {
  return on_device(context, [&] {
    return to_status(context, cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(stream), cudaStreamNonBlocking),
                     "Could not create a stream");
  });
}

/* The runtime lets the stream's work end. */
rlsd_status stream_destroy(rlsd_context* context, void* stream) {
  return give_back(context, "Could not destroy a stream",
                   [&] { return cudaStreamDestroy(static_cast<cudaStream_t>(stream)); });
}

rlsd_status synchronize(rlsd_context* context) {
  return on_device(context, [&] {
    return to_status(context, cudaStreamSynchronize(stream_of(context)), "Work on the device failed");
  });
}

rlsd_status event_create(rlsd_context* context, void** event) {
  return on_device(context, [&] {
    return to_status(context, cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t*>(event), cudaEventDisableTiming),
                     "Could not create an event");
  });
}

rlsd_status event_destroy(rlsd_context* context, void* event) {
  return give_back(context, "Could not destroy an event",
                   [&] { return cudaEventDestroy(static_cast<cudaEvent_t>(event)); });
}

rlsd_status event_record(rlsd_context* context, void* event) {
  return on_device(context, [&] {
    return to_status(context, cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(context)),
                     "Could not record an event");
  });
}

rlsd_status event_wait(rlsd_context* context, void* event) {
  return on_device(context, [&] {
    return to_status(context, cudaStreamWaitEvent(stream_of(context), static_cast<cudaEvent_t>(event), 0),
                     "Could not wait for an event");
  });
}

rlsd_status event_query(rlsd_context* context, void* event, int32_t* done) {
  return on_device(context, [&] {
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
    *done = error == cudaSuccess;
    if (error == cudaErrorNotReady) cudaGetLastError(); /* an answer, which must not be found as a failure later */
    return error == cudaErrorNotReady ? RLSD_OK : to_status(context, error, "Could not query an event");
  });
}

/* The runtime's handle names an allocation; `offset` is where in it the data lies. */
rlsd_status ipc_export(rlsd_context* context, void* data, rlsd_ipc_handle* handle) {
  static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(handle->bytes), "a handle of the runtime's size");
  return on_device(context, [&]() -> rlsd_status {
    /* The driver asks the thread's context, which a thread has once it has selected a device. */
    RLSD_CUDA_CHECK(context, cudaSetDevice(context->device), "Could not select the device");
    void* const start = allocation_start(data);
    if (start == nullptr) {
      return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected memory of cuda:%d but the driver knows no allocation at %p.",
                  context->device, data);
    }
    cudaIpcMemHandle_t exported;
    RLSD_CUDA_CHECK(context, cudaIpcGetMemHandle(&exported, start), "Could not export the memory");
    std::memcpy(handle->bytes, &exported, sizeof(exported));
    handle->offset = static_cast<uint64_t>(static_cast<char*>(data) - static_cast<char*>(start));
    return RLSD_OK;
  });
}

rlsd_status ipc_import(rlsd_context* context, const rlsd_ipc_handle* handle, void** data) {
  return on_device(context, [&]() -> rlsd_status {
    cudaIpcMemHandle_t imported;
    std::memcpy(&imported, handle->bytes, sizeof(imported));
    void* base = nullptr;
    RLSD_CUDA_CHECK(context, cudaIpcOpenMemHandle(&base, imported, cudaIpcMemLazyEnablePeerAccess),
                    "Could not open the memory of another process");
    *data = static_cast<char*>(base) + handle->offset;
    return RLSD_OK;
  });
}

/* `data` is the allocation's start: what ipc_import gave, less the handle's offset. */
rlsd_status ipc_close(rlsd_context* context, void* data) {
  return free_after_work(context, "Could not close the memory of another process",
                         [&] { return cudaIpcCloseMemHandle(data); });
}

}  // namespace

void fill_memory_entries(rlsd_backend_v1* table) {
  table->device_count = device_count;
  table->device_info = device_info;
  table->allocate = allocate;
  table->release = release;
  table->allocate_host = allocate_host;
  table->release_host = release_host;
  table->copy = copy;
  table->fill_zero = fill_zero;
  table->stream_create = stream_create;
  table->stream_destroy = stream_destroy;
  table->synchronize = synchronize;
  table->event_create = event_create;
  table->event_destroy = event_destroy;
  table->event_record = event_record;
  table->event_wait = event_wait;
  table->event_query = event_query;
  table->ipc_export = ipc_export;
  table->ipc_import = ipc_import;
  table->ipc_close = ipc_close;
}

}  // namespace rlsd::cuda
