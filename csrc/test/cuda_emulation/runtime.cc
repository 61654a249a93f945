/* The runtime's functions for errors, devices, streams and events, and those of the driver that it gives out.
 * RLSD_EMULATION_DEVICES: how many devices (1). RLSD_EMULATION_COUNT_ERROR: what counting them answers (0).
 * RLSD_EMULATION_COMPUTE: the major number of their compute capability (9), or one each: "7,9"; RLSD_EMULATION_PTX: what
 * kernels were compiled for (ten times that number). RLSD_EMULATION_BROKEN_DEVICE: one that does not say what it is.
 * RLSD_EMULATION_FAIL_LAUNCH: which launch of the process fails, from 1, with the error RLSD_EMULATION_FAILURE
 * (98; 700: the context is lost; -1: the process ends). RLSD_EMULATION_TRACE: a file that gets a line for
 * each kernel (with its cluster), each memset that is enqueued, and each question for occupancy. functions.cc: what launches are refused. */
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "state.h"

namespace emulation {
namespace {

constexpr int kMostDevices = 16;

/* Never destroyed: streams' threads may outlive main. */
std::atomic<bool> poisoned{false}, unloaded{false};
std::atomic<bool> active[kMostDevices];
std::atomic<int> failed_launch{cudaSuccess}, launches{0};
thread_local cudaError_t last = cudaSuccess;
thread_local int device = 0;
thread_local bool bound = false;

/* The driver is unloaded as the process exits: a thread that calls it then finds it gone. */
struct Unloading {
  ~Unloading() {
    unloaded = true;
    usleep(20000); /* long enough for a thread that still calls to be found out */
  }
} unloading;

int device_count() { return std::min(number_or("RLSD_EMULATION_DEVICES", 1), kMostDevices); }

/* CUresult cuMemGetAddressRange(CUdeviceptr*, size_t*, CUdeviceptr) */
int address_range(unsigned long long* base, size_t* bytes, unsigned long long address) {
  if (!bound) return cudaErrorDeviceUninitialized;
  const void* const found = allocation_of(reinterpret_cast<const void*>(address), bytes);
  *base = reinterpret_cast<unsigned long long>(found);
  return found != nullptr ? cudaSuccess : cudaErrorInvalidValue;
}

/* CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned*, int*) */
int context_state(int ordinal, unsigned* flags, int* is_it) {
  *flags = 0;
  *is_it = active[ordinal];
  return cudaSuccess;
}

}  // namespace

int compute_major(int ordinal) {
  const char* given = std::getenv("RLSD_EMULATION_COMPUTE");
  if (given == nullptr) return 9;
  for (const char* comma; ordinal > 0 && (comma = std::strchr(given, ',')) != nullptr; --ordinal) given = comma + 1;
  return std::atoi(given);
}

void give_up(const char* why) {
  std::fprintf(stderr, "cuda emulation: %s\n", why);
  std::abort();
}

int number_or(const char* variable, int otherwise) {
  const char* const given = std::getenv(variable);
  return given != nullptr ? std::atoi(given) : otherwise;
}

void not_while_capturing(const char* call) {
  if (std::getenv("RLSD_EMULATION_CAPTURE") == nullptr) return;
  give_up((std::string(call) + " is called while a stream is captured").c_str());
}

cudaError_t settle(cudaError_t error) {
  if (unloaded) give_up("the runtime is called while the process exits");
  if (poisoned) error = cudaErrorIllegalAddress;
  if (error != cudaSuccess) last = error;
  return error;
}
cudaError_t poison() {
  poisoned = true;
  return settle(cudaErrorIllegalAddress);
}
bool is_poisoned() { return poisoned; }

int use_device() {
  bound = active[device] = true;
  return device;
}

void trace(const char* what) {
  const char* const path = std::getenv("RLSD_EMULATION_TRACE");
  std::FILE* const file = path != nullptr ? std::fopen(path, "a") : nullptr;
  if (file == nullptr) return;
  std::fprintf(file, "%s\n", what);
  std::fclose(file);
}

namespace {

/* As the test wants: a refusal, a context that is lost, or the end of the process. */
cudaError_t fail_launch() {
  const int failure = number_or("RLSD_EMULATION_FAILURE", cudaErrorInvalidDeviceFunction);
  if (failure < 0) give_up("a launch ends the process");
  return failure == cudaErrorIllegalAddress ? poison() : settle(static_cast<cudaError_t>(failure));
}

}  // namespace

int launch(Stream* stream, const Launch& grid, const std::vector<const void*>& arguments, std::function<void()> body) {
  use_device();
  trace(grid.cluster > 1 ? ("launch of " + std::to_string(grid.cluster)).c_str() : "launch");
  if (++launches == number_or("RLSD_EMULATION_FAIL_LAUNCH", 0)) return fail_launch();
  const cudaError_t refused = refusal(grid);
  if (refused != cudaSuccess) return settle(refused);
  enqueue(stream, [=, held = hold(arguments)] {
    alone([&] {
      const int error = run(grid.blocks, grid.threads, grid.cluster, grid.shared, body);
      if (error != cudaSuccess) failed_launch = error;
    });
  });
  return settle(static_cast<cudaError_t>(failed_launch.exchange(cudaSuccess)));
}

}  // namespace emulation

using namespace emulation;

/* How often an event was recorded, and which recording was reached. Kept by the work that uses it. */
struct EventState {
  std::atomic<uint64_t> recorded{0}, reached{0};
};
struct EmulatedEvent {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

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
    case cudaErrorDeviceUninitialized:
      return "cudaErrorDeviceUninitialized";
    case cudaErrorSystemNotReady:
      return "cudaErrorSystemNotReady";
    default:
      return "cudaErrorInvalidValue";
  }
}
const char* cudaGetErrorString(cudaError_t) { return "an emulated failure"; }

cudaError_t cudaGetDeviceCount(int* count) {
  const int error = number_or("RLSD_EMULATION_COUNT_ERROR", cudaSuccess);
  *count = error == cudaSuccess ? device_count() : 0;
  if (error != cudaSuccess) return settle(static_cast<cudaError_t>(error));
  return *count > 0 ? cudaSuccess : settle(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* current) {
  *current = device;
  return settle(cudaSuccess);
}
/* Since CUDA 12 this makes the device's primary context. */
cudaError_t cudaSetDevice(int wanted) {
  if (wanted < 0 || wanted >= device_count()) return settle(cudaErrorInvalidDevice);
  device = wanted;
  use_device();
  return settle(cudaSuccess);
}
cudaError_t cudaDeviceSynchronize() {
  not_while_capturing("cudaDeviceSynchronize");
  wait_for_device(use_device());
  return settle(cudaSuccess);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int ordinal) {
  *properties = {};
  const bool is_broken = number_or("RLSD_EMULATION_BROKEN_DEVICE", -1) == ordinal;
  if (is_broken || ordinal < 0 || ordinal >= device_count()) return settle(cudaErrorInvalidDevice);
  std::snprintf(properties->name, sizeof(properties->name), "emulated");
  properties->major = compute_major(ordinal);
  properties->totalGlobalMem = memory_bytes();
  return settle(cudaSuccess);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  use_device();
  *total = memory_bytes();
  *free = free_bytes();
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
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  *function = nullptr;
  if (std::strcmp(name, "cuMemGetAddressRange") == 0) *function = reinterpret_cast<void*>(address_range);
  if (std::strcmp(name, "cuDevicePrimaryCtxGetState") == 0) *function = reinterpret_cast<void*>(context_state);
  *found = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return settle(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = make_stream(use_device());
  return settle(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return settle(cudaSuccess); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  not_while_capturing("cudaStreamSynchronize");
  use_device();
  wait_for(stream);
  return settle(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const auto state = event->state;
  const uint64_t wanted = state->recorded;
  enqueue(stream, [=] {
    while (state->reached < wanted) std::this_thread::yield();
  });
  return settle(cudaSuccess);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  use_device();
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
  enqueue(stream, [=] { state->reached = number; });
  return settle(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  not_while_capturing("cudaEventQuery");
  return settle(event->state->reached >= event->state->recorded ? cudaSuccess : cudaErrorNotReady);
}
