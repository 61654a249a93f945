/* What a backend's device gave out: memory or a stream, as a tagged JavaScript object. */
#ifndef RLSD_NAPI_DEVICE_OBJECT_H_
#define RLSD_NAPI_DEVICE_OBJECT_H_

#include <node_api.h>

#include <memory>

#include "rlsd/rlsd.h"

namespace rlsd::addon {

class DeviceObject {
 public:
  enum class Kind { kMemory, kBorrowedMemory, kOpenedMemory, kStream, kBorrowedStream };

  DeviceObject(const rlsd_backend_v1* backend, int32_t device, Kind kind) : backend(backend), device(device), kind(kind) {}

  bool is_stream() const { return kind == Kind::kStream || kind == Kind::kBorrowedStream; }
  /* A context on this object's device and, where it is a stream, on it. */
  rlsd_context context(const DeviceObject* stream = nullptr) const;
  /* Gives it back, once; borrowed ones are only forgotten. */
  rlsd_status release(rlsd_context* context);

  const rlsd_backend_v1* const backend;
  const int32_t device;
  const Kind kind;
  void* data = nullptr;
  uint64_t bytes = 0;  /* of memory */
  uint64_t offset = 0; /* of opened memory's data in its allocation */
  bool released = false;
};

/* NULL when JavaScript could not make the object. Collected without release, it is released on the queue's thread. */
napi_value wrap_device_object(napi_env env, std::shared_ptr<DeviceObject> object);

/* NULL when the value is not such an object, or was released. */
std::shared_ptr<DeviceObject> unwrap_device_object(napi_env env, napi_value value);

}  // namespace rlsd::addon

#endif
