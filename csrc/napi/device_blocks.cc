#include "napi/device_blocks.h"

#include <chrono>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace rlsd::addon {
namespace {

constexpr uint64_t kSmallestBytes = 64 * 1024;
constexpr uint64_t kMostIdleBytes = uint64_t{256} << 20;
constexpr int kBusyPolls = 2000; /* some tens of microseconds: most calls end within them */
constexpr std::chrono::microseconds kPause{50};

rlsd_context context_on(int32_t device, void* stream) {
  rlsd_context c{};
  c.struct_size = sizeof(c);
  c.device = device;
  c.stream = stream;
  c.error_index = -1;
  return c;
}

struct Idle {
  const rlsd_backend_v1* backend;
  int32_t device;
  BlockKind kind;
  void* data;
  uint64_t bytes;
  void* stream;
  void* event; /* recorded on stream, behind the last use */
};

/* The stream's work on it is done: freeing pinned memory under a copy would be a race. */
void free_block(const Idle& b) {
  rlsd_context c = context_on(b.device, b.stream);
  if (b.event != nullptr) b.backend->event_destroy(&c, b.event);
  if (b.kind == BlockKind::kPinned) {
    b.backend->release_host(&c, b.data);
  } else {
    b.backend->release(&c, b.data);
  }
}

bool is_done(const rlsd_backend_v1* backend, int32_t device, void* event) {
  rlsd_context c = context_on(device, nullptr);
  int32_t done = 0;
  return backend->event_query(&c, event, &done) == RLSD_OK && done != 0;
}

bool has_passed(const Idle& b) { return is_done(b.backend, b.device, b.event); }

/* Never destroyed: a call may end while the process exits. */
class Pool {
 public:
  /* A block of at least `bytes` that work on the context's stream may use; data NULL when there is none. */
  Idle take(const rlsd_backend_v1* backend, rlsd_context* context, BlockKind kind, uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < idle_.size(); ++i) {
      const Idle& b = idle_[i];
      if (b.backend != backend || b.device != context->device || b.kind != kind) continue;
      if (b.bytes < bytes || b.bytes / 4 > bytes) continue;
      /* Device memory needs only its stream's order; the host may write pinned memory when the copy is over. */
      const bool ordered = kind == BlockKind::kDevice && b.stream == context->stream &&
                           backend->event_wait(context, b.event) == RLSD_OK;
      if (ordered || has_passed(b)) return remove(i);
    }
    return {};
  }

  /* Keeps the block. Where there is no room, the oldest whose work is done make it, and are given to the caller to free. */
  bool put(const Idle& b, std::vector<Idle>* evicted) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (b.bytes > kMostIdleBytes) return false;
    for (size_t i = 0; i < idle_.size() && bytes_ + b.bytes > kMostIdleBytes;) {
      if (has_passed(idle_[i])) {
        evicted->push_back(remove(i));
      } else {
        ++i;
      }
    }
    if (bytes_ + b.bytes > kMostIdleBytes) return false;
    bytes_ += b.bytes;
    idle_.push_back(b);
    return true;
  }

  std::vector<Idle> take_passed(const rlsd_backend_v1* backend, int32_t device) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Idle> taken;
    for (size_t i = idle_.size(); i-- > 0;) {
      if (idle_[i].backend == backend && idle_[i].device == device && has_passed(idle_[i])) taken.push_back(remove(i));
    }
    return taken;
  }

 private:
  Idle remove(size_t i) {
    const Idle found = idle_[i];
    idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
    bytes_ -= found.bytes;
    return found;
  }

  std::mutex mutex_;
  std::vector<Idle> idle_; /* the oldest first */
  uint64_t bytes_ = 0;
};

Pool& pool() {
  static Pool* const instance = new Pool();
  return *instance;
}

/* Powers of two, so that calls of nearly the same size share blocks; whole MiB where that would waste much. */
uint64_t rounded(uint64_t bytes) {
  uint64_t size = kSmallestBytes;
  while (size < bytes && size < (uint64_t{16} << 20)) size *= 2;
  return size >= bytes ? size : (bytes + 0xFFFFF) & ~uint64_t{0xFFFFF};
}

}  // namespace

DeviceEvent::~DeviceEvent() {
  if (event_ == nullptr) return;
  rlsd_context c = context_on(device_, nullptr);
  backend_->event_destroy(&c, event_);
}

rlsd_status DeviceEvent::record(const rlsd_backend_v1* backend, rlsd_context* context) {
  if (backend->event_create == nullptr) return RLSD_OK; /* a backend whose work is done when a call returns */
  if (event_ == nullptr) {
    const rlsd_status status = backend->event_create(context, &event_);
    if (status != RLSD_OK) return status;
    backend_ = backend;
    device_ = context->device;
  }
  return backend->event_record(context, event_);
}

rlsd_status DeviceEvent::record_after(const rlsd_backend_v1* backend, rlsd_context* context, rlsd_status enqueued) {
  if (enqueued == RLSD_OK) return record(backend, context);
  rlsd_context other = context_on(context->device, context->stream);
  record(backend, &other);
  return enqueued;
}

rlsd_status DeviceEvent::order(rlsd_context* context) const {
  return event_ != nullptr ? backend_->event_wait(context, event_) : RLSD_OK;
}

bool DeviceEvent::has_passed() const { return event_ == nullptr || is_done(backend_, device_, event_); }

rlsd_status DeviceEvent::wait(rlsd_context* context) const {
  for (int polls = 0; event_ != nullptr; ++polls) {
    int32_t done = 0;
    const rlsd_status status = backend_->event_query(context, event_, &done);
    if (status != RLSD_OK || done != 0) return status;
    if (context->cancel != nullptr && __atomic_load_n(context->cancel, __ATOMIC_RELAXED) != 0) return RLSD_CANCELLED;
    if (polls < kBusyPolls) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }
  return RLSD_OK;
}

DeviceBlock::~DeviceBlock() {
  if (data_ == nullptr) return;
  rlsd_context c = context_on(device_, stream_);
  Idle block = {backend_, device_, kind_, data_, bytes_, stream_, nullptr};
  if (backend_->event_create(&c, &block.event) != RLSD_OK) block.event = nullptr;
  const bool marked = block.event != nullptr && backend_->event_record(&c, block.event) == RLSD_OK;
  std::vector<Idle> evicted;
  const bool kept = marked && pool().put(block, &evicted);
  for (const Idle& old : evicted) free_block(old);
  if (kept) return;
  backend_->synchronize(&c);
  free_block(block);
}

rlsd_status DeviceBlock::borrow(const rlsd_backend_v1* backend, rlsd_context* context, BlockKind kind, uint64_t bytes) {
  const uint64_t size = rounded(bytes);
  Idle block = pool().take(backend, context, kind, size);
  if (block.data != nullptr) {
    rlsd_context c = context_on(context->device, nullptr);
    backend->event_destroy(&c, block.event);
  } else {
    block.bytes = size;
    const auto allocate = kind == BlockKind::kPinned ? backend->allocate_host : backend->allocate;
    rlsd_status status = allocate(context, block.bytes, &block.data);
    if (status == RLSD_OUT_OF_MEMORY && trim_blocks(backend, context->device)) {
      status = allocate(context, block.bytes, &block.data);
    }
    if (status != RLSD_OK) return status;
  }
  backend_ = backend;
  device_ = context->device;
  stream_ = context->stream;
  kind_ = kind;
  data_ = block.data;
  bytes_ = block.bytes;
  return RLSD_OK;
}

bool trim_blocks(const rlsd_backend_v1* backend, int32_t device) {
  const std::vector<Idle> freed = pool().take_passed(backend, device);
  for (const Idle& block : freed) free_block(block);
  return !freed.empty();
}

}  // namespace rlsd::addon
