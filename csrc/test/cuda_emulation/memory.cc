/* Memory of the emulated devices, pinned memory, and handles between processes. RLSD_EMULATION_MEMORY: bytes of each device
 * (1 GiB). With RLSD_EMULATION_SHARED set, device memory can be handed to another process.
 *
 * Nothing here waits for work unless the runtime's documentation says so: memory that enqueued work still uses may not be
 * freed, and what is neither pinned nor the device's is read and written when the stream comes to it, as it may be there. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "state.h"

namespace emulation {
namespace {

enum class Kind { kDevice, kPinned, kOpened };

/* What a handle carries, and what an opened allocation is known by. */
struct Shared {
  pid_t process;
  int file;
  size_t bytes;
};

struct Block {
  Kind kind;
  size_t bytes;
  int users = 0; /* pieces of enqueued work */
  int opens = 0;
  Shared shared{0, -1, 0};
};

/* Never destroyed: streams' threads may outlive main. */
std::mutex& mutex = *new std::mutex();
std::map<const char*, Block>& blocks = *new std::map<const char*, Block>();
std::atomic<size_t> allocated{0};

/* The block that holds `bytes` bytes from the address on; end() when there is none. Under the mutex. */
std::map<const char*, Block>::iterator find(const void* address, size_t bytes) {
  const char* const at = static_cast<const char*>(address);
  auto after = blocks.upper_bound(at);
  if (after == blocks.begin()) return blocks.end();
  --after;
  return at + bytes <= after->first + after->second.bytes ? after : blocks.end();
}

bool is_device_memory(const void* data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = find(data, bytes);
  return found != blocks.end() && found->second.kind != Kind::kPinned;
}

void* map_file(int file, size_t bytes) {
  void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return data == MAP_FAILED ? nullptr : data;
}

/* Not a byte more than asked, unless another process is to see it; none of them 0, so that nobody relies on that. */
void* take(size_t bytes, Block* block) {
  void* data = nullptr;
  if (std::getenv("RLSD_EMULATION_SHARED") == nullptr) {
    if (posix_memalign(&data, 256, bytes) != 0) return nullptr;
    return std::memset(data, 0xA5, bytes);
  }
  const int file = memfd_create("rlsd-emulation", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return nullptr;
  block->shared = {getpid(), file, bytes};
  return map_file(file, bytes);
}

void give_back(void* data, const Block& block) {
  if (block.kind == Kind::kDevice) allocated -= block.bytes;
  if (block.shared.file < 0) return std::free(data);
  munmap(data, block.bytes);
  if (block.kind == Kind::kDevice) close(block.shared.file);
}

cudaError_t release(void* data, Kind kind) {
  not_while_capturing("cudaFree");
  use_device();
  if (data == nullptr) return settle(cudaSuccess);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = blocks.find(static_cast<char*>(data));
  if (found == blocks.end() || found->second.kind != kind) return settle(cudaErrorInvalidValue);
  if (kind == Kind::kOpened && --found->second.opens > 0) return settle(cudaSuccess);
  if (found->second.users > 0) give_up("memory is freed that enqueued work uses");
  const Block block = found->second;
  blocks.erase(found);
  give_back(data, block);
  return settle(cudaSuccess);
}

}  // namespace

size_t memory_bytes() {
  const char* const given = std::getenv("RLSD_EMULATION_MEMORY");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : size_t{1} << 30;
}
size_t free_bytes() { return memory_bytes() - allocated; }

std::shared_ptr<void> hold(const std::vector<const void*>& addresses) {
  auto held = std::make_unique<std::vector<const char*>>();
  std::lock_guard<std::mutex> lock(mutex);
  for (const void* address : addresses) {
    const auto found = find(address, 1);
    if (found == blocks.end()) continue;
    ++found->second.users;
    held->push_back(found->first);
  }
  return std::shared_ptr<void>(held.release(), [](void* data) {
    std::unique_ptr<std::vector<const char*>> starts(static_cast<std::vector<const char*>*>(data));
    std::lock_guard<std::mutex> lock(mutex);
    for (const char* start : *starts) --blocks[start].users;
  });
}

const void* allocation_of(const void* address, size_t* bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = find(address, 1);
  if (found == blocks.end() || found->second.kind == Kind::kPinned) return nullptr;
  *bytes = found->second.bytes;
  return found->first;
}

}  // namespace emulation

using namespace emulation;

void emulation::bulk_prefetch(const void* from, uint32_t bytes) {
  size_t known = 0;
  const bool foreign = allocation_of(from, &known) == nullptr; /* another library's: there is no telling where it ends */
  if (reinterpret_cast<uintptr_t>(from) % 16 == 0 && bytes % 16 == 0 && (foreign || is_device_memory(from, bytes))) return;
  give_up("a prefetch is misaligned or runs beyond its memory");
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  not_while_capturing("cudaMalloc");
  use_device();
  if (is_poisoned() || bytes > free_bytes()) return settle(cudaErrorMemoryAllocation);
  Block block{Kind::kDevice, bytes};
  *data = take(bytes, &block);
  if (*data == nullptr) return settle(cudaErrorMemoryAllocation);
  std::memset(*data, 0xCD, bytes);
  std::lock_guard<std::mutex> lock(mutex);
  blocks[static_cast<char*>(*data)] = block;
  allocated += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) { return release(data, Kind::kDevice); }

cudaError_t cudaMallocHost(void** data, size_t bytes) {
  not_while_capturing("cudaMallocHost");
  use_device();
  *data = std::malloc(bytes);
  std::lock_guard<std::mutex> lock(mutex);
  blocks[static_cast<char*>(*data)] = {Kind::kPinned, bytes};
  return settle(cudaSuccess);
}
cudaError_t cudaFreeHost(void* data) { return release(data, Kind::kPinned); }

/* A copy to or from memory that is not the device's poisons the context. */
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  use_device();
  if (is_poisoned()) return settle(cudaErrorIllegalAddress);
  const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  if (to_device && !is_device_memory(to, bytes)) return poison();
  if (from_device && !is_device_memory(from, bytes)) return poison();
  enqueue(stream, [=, held = hold({to, from})] { alone([&] { std::memcpy(to, from, bytes); }); });
  return settle(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  use_device();
  if (is_poisoned() || !is_device_memory(to, bytes)) return poison();
  trace("memset");
  enqueue(stream, [=, held = hold({to})] { alone([&] { std::memset(to, value, bytes); }); });
  return settle(cudaSuccess);
}

/* As documented: of an allocation's base. */
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* data) {
  use_device();
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = blocks.find(static_cast<char*>(data));
  if (found == blocks.end() || found->second.kind != Kind::kDevice) return settle(cudaErrorInvalidValue);
  if (found->second.shared.file < 0) return settle(cudaErrorNotSupported);
  std::memset(handle, 0, sizeof(*handle));
  std::memcpy(handle, &found->second.shared, sizeof(Shared));
  return settle(cudaSuccess);
}
cudaError_t cudaIpcOpenMemHandle(void** data, cudaIpcMemHandle_t handle, unsigned) {
  use_device();
  Shared shared;
  std::memcpy(&shared, &handle, sizeof(shared));
  if (shared.process == getpid()) return settle(cudaErrorDeviceUninitialized); /* the context that it came from */
  std::lock_guard<std::mutex> lock(mutex);
  for (auto& [start, block] : blocks) {
    if (std::memcmp(&block.shared, &shared, sizeof(shared)) != 0) continue;
    ++block.opens;
    *data = const_cast<char*>(start);
    return settle(cudaSuccess);
  }
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/fd/%d", static_cast<int>(shared.process), shared.file);
  const int file = open(path, O_RDWR);
  *data = file >= 0 ? map_file(file, shared.bytes) : nullptr;
  if (file >= 0) close(file);
  if (*data == nullptr) return settle(cudaErrorMapBufferObjectFailed);
  blocks[static_cast<char*>(*data)] = {Kind::kOpened, shared.bytes, 0, 1, shared};
  return settle(cudaSuccess);
}
cudaError_t cudaIpcCloseMemHandle(void* data) { return release(data, Kind::kOpened); }
