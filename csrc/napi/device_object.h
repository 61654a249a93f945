/* What a backend's device gave out: memory or a stream, as a tagged JavaScript object. */
#ifndef RLSD_NAPI_DEVICE_OBJECT_H_
#define RLSD_NAPI_DEVICE_OBJECT_H_

#include <node_api.h>

#include <memory>
#include <vector>

#include "napi/args.h"
#include "napi/device_blocks.h"
#include "rlsd/rlsd.h"

namespace rlsd::addon {

/* Released when the last of its users, in JavaScript or in a call that still runs, lets go. */
class DeviceObject {
 public:
  enum class Kind { kMemory, kBorrowedMemory, kOpenedMemory, kView, kStream, kBorrowedStream };

  DeviceObject(const rlsd_backend_v1* backend, int32_t device, Kind kind) : backend(backend), device(device), kind(kind) {}
  ~DeviceObject();
  DeviceObject(const DeviceObject&) = delete;
  DeviceObject& operator=(const DeviceObject&) = delete;

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
  std::shared_ptr<DeviceObject> owner;  /* of a view's memory */
  std::shared_ptr<DeviceObject> report; /* where the call that fills this memory says how it went; NULL: nowhere */

  /* Order among our own calls, whatever their streams; on the environment's thread only. */
  rlsd_status order_read(rlsd_context* context) const;
  rlsd_status order_write(rlsd_context* context) const;
  /* `done` is behind the work that reads or writes it. */
  void mark_read(const std::shared_ptr<DeviceEvent>& done);
  void mark_written(const std::shared_ptr<DeviceEvent>& done);

  /* This thread waits for our own work that reads or writes it. RLSD_CANCELLED once the flag is set. */
  rlsd_status wait_until_unused(const volatile int32_t* cancel) const;

  std::shared_ptr<DeviceEvent> written;              /* behind our last write */
  std::vector<std::shared_ptr<DeviceEvent>> readers; /* behind our reads since then that may not be over */
};

/* NULL when JavaScript could not make the object. Collected, it is let go on the queue's thread. */
napi_value wrap_device_object(napi_env env, std::shared_ptr<DeviceObject> object);

/* NULL when the value is not such an object, or was let go. */
std::shared_ptr<DeviceObject> unwrap_device_object(napi_env env, napi_value value);

/* What JavaScript held until now; its object is empty from here on. NULL as above. */
std::shared_ptr<DeviceObject> take_device_object(napi_env env, napi_value value);

/* An argument: absent, an array of the host, or memory or a stream of a device. */
struct DeviceArg {
  ArrayArg array;
  std::shared_ptr<DeviceObject> object;

  bool present() const { return array.present() || object != nullptr; }
};

/* False when the value is none of these, or was let go. */
bool read_device_arg(napi_env env, napi_value value, DeviceArg* out);

/* A call's arguments in order; false unless there are exactly `Count` of them. */
template <size_t Count>
bool read_device_args(napi_env env, napi_callback_info info, DeviceArg* args) {
  napi_value values[Count];
  size_t argc = Count;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != Count) return false;
  for (size_t i = 0; i < Count; ++i) {
    if (!read_device_arg(env, values[i], &args[i])) return false;
  }
  return true;
}

}  // namespace rlsd::addon

#endif
