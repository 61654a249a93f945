#include "napi/device_lanes.h"

#include <algorithm>
#include <cstring>

#include "napi/device_blocks.h"

namespace rlsd::addon {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{8} << 20;
constexpr uint64_t kLanes = 2;

struct Lane {
  DeviceBlock block;
  DeviceEvent copied;

  rlsd_status borrow(const rlsd_backend_v1* backend, rlsd_context* context, uint64_t bytes) {
    return block.data() != nullptr ? RLSD_OK : block.borrow(backend, context, BlockKind::kPinned, bytes);
  }
};

/* A copy in pieces of kChunkBytes. */
struct Pieces {
  const uint64_t bytes;
  uint64_t count() const { return (bytes + kChunkBytes - 1) / kChunkBytes; }
  uint64_t size(uint64_t piece) const { return std::min(kChunkBytes, bytes - piece * kChunkBytes); }
};

}  // namespace

rlsd_status copy_up(const rlsd_backend_v1* backend, rlsd_context* context, void* to, const void* from, uint64_t bytes) {
  Lane lanes[kLanes];
  const Pieces pieces{bytes};
  rlsd_status status = RLSD_OK;
  for (uint64_t k = 0; k < pieces.count() && status == RLSD_OK; ++k) {
    Lane& lane = lanes[k % kLanes];
    const uint64_t at = k * kChunkBytes;
    status = lane.borrow(backend, context, pieces.size(k));
    if (status == RLSD_OK) status = lane.copied.wait(context);
    if (status != RLSD_OK) break;
    std::memcpy(lane.block.data(), static_cast<const char*>(from) + at, pieces.size(k));
    status = backend->copy(context, static_cast<char*>(to) + at, lane.block.data(), pieces.size(k), RLSD_HOST_TO_DEVICE);
    if (status == RLSD_OK) status = lane.copied.record(backend, context);
  }
  return status;
}

rlsd_status copy_down(const rlsd_backend_v1* backend, rlsd_context* context, void* to, const void* from, uint64_t bytes) {
  Lane lanes[kLanes];
  const Pieces pieces{bytes};
  rlsd_status status = RLSD_OK;
  for (uint64_t k = 0; k < pieces.count() + kLanes && status == RLSD_OK; ++k) {
    Lane& lane = lanes[k % kLanes];
    if (k >= kLanes) {
      const uint64_t piece = k - kLanes;
      status = lane.copied.wait(context);
      if (status != RLSD_OK) break;
      std::memcpy(static_cast<char*>(to) + piece * kChunkBytes, lane.block.data(), pieces.size(piece));
    }
    if (k >= pieces.count()) continue;
    const char* const there = static_cast<const char*>(from) + k * kChunkBytes;
    status = lane.borrow(backend, context, pieces.size(k));
    if (status == RLSD_OK) status = backend->copy(context, lane.block.data(), there, pieces.size(k), RLSD_DEVICE_TO_HOST);
    if (status == RLSD_OK) status = lane.copied.record(backend, context);
  }
  return status;
}

}  // namespace rlsd::addon
