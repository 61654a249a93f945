/* Events, and memory that calls borrow for as long as their work runs: pinned host memory for copies, device memory for
 * inputs, workspace and results. Allocating and freeing may wait for the device; lending what was given back does not. */
#ifndef RLSD_NAPI_DEVICE_BLOCKS_H_
#define RLSD_NAPI_DEVICE_BLOCKS_H_

#include <cstdint>

#include "rlsd/rlsd.h"

namespace rlsd::addon {

/* A point in a stream's work. */
class DeviceEvent {
 public:
  DeviceEvent() = default;
  ~DeviceEvent();
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;

  /* Behind what the context's stream holds now. */
  rlsd_status record(const rlsd_backend_v1* backend, rlsd_context* context);
  /* The same after work of which a part may have failed to be enqueued: that failure and its words stay the answer. */
  rlsd_status record_after(const rlsd_backend_v1* backend, rlsd_context* context, rlsd_status enqueued);
  /* What comes on the context's stream from now on waits for it; this thread does not. */
  rlsd_status order(rlsd_context* context) const;
  bool has_passed() const;
  /* This thread waits. RLSD_CANCELLED as soon as the context's cancel flag is set: the work goes on. */
  rlsd_status wait(rlsd_context* context) const;

 private:
  const rlsd_backend_v1* backend_ = nullptr;
  int32_t device_ = 0;
  void* event_ = nullptr;
};

enum class BlockKind { kPinned, kDevice };

/* Borrowed memory. Given back when it goes, and lent again once the work that its stream holds then is done: a call
 * that fails or is abandoned needs to wait for nothing. */
class DeviceBlock {
 public:
  DeviceBlock() = default;
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  /* For work on the context's stream, which must live as long as the block is borrowed. */
  rlsd_status borrow(const rlsd_backend_v1* backend, rlsd_context* context, BlockKind kind, uint64_t bytes);
  char* data() const { return static_cast<char*>(data_); }

 private:
  const rlsd_backend_v1* backend_ = nullptr;
  int32_t device_ = 0;
  void* stream_ = nullptr;
  BlockKind kind_ = BlockKind::kPinned;
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

/* Frees what nobody has borrowed, so that a failed allocation may be tried again. False when there was nothing. */
bool trim_blocks(const rlsd_backend_v1* backend, int32_t device);

}  // namespace rlsd::addon

#endif
