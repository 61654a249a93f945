/* Devices of the loaded backends: what there is, memory, streams. Sizes are checked here; what may be copied where is
 * TypeScript's. A function that makes an object returns it, or a status with words kept for lastError. */
#include "napi/device.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "napi/addon_data.h"
#include "napi/args.h"
#include "napi/backends.h"
#include "napi/device_copy.h"
#include "napi/device_object.h"
#include "napi/device_policy_loss.h"
#include "napi/device_rows.h"
#include "napi/device_token_log_probs.h"
#include "napi/op_call.h"
#include "system/library.h"

namespace rlsd::addon {
namespace {

using Kind = DeviceObject::Kind;

constexpr size_t kHandleBytes = sizeof(rlsd_ipc_handle);
static_assert(kHandleBytes == 72, "lib/tensor/device.ts says so too");

/* A call's arguments, read on demand. */
struct Arguments {
  static constexpr size_t kMost = 4;
  napi_env env;
  size_t count = kMost;
  napi_value values[kMost];

  Arguments(napi_env e, napi_callback_info info) : env(e) {
    napi_get_cb_info(e, info, &count, values, nullptr, nullptr);
  }
  double number(size_t i) const {
    double value = -1;
    if (i < count) napi_get_value_double(env, values[i], &value);
    return value;
  }
  /* -1 for what is no ordinal. */
  int32_t integer(size_t i) const {
    const double value = number(i);
    return value >= 0 && value <= INT32_MAX ? static_cast<int32_t>(value) : -1;
  }
  bool is_size(size_t i) const { return number(i) >= 0 && number(i) <= 9007199254740991.0; }
  std::shared_ptr<DeviceObject> object(size_t i) const {
    return i < count ? unwrap_device_object(env, values[i]) : nullptr;
  }
  bool bytes(size_t i, ArrayArg* array, uint64_t* length) const {
    if (i >= count || !read_array(env, values[i], array) || !array->present()) return false;
    *length = array->count * array_bytes(array->type);
    return true;
  }
  const rlsd_backend_v1* backend(size_t i) const { return backend_at(integer(i)); }
};

napi_value wrong(napi_env env) { return refuse(env, RLSD_INVALID_ARGUMENT, "A device call had wrong arguments."); }

/* The refusal of a call whose entry the backend does not have; NULL when it has it. */
template <class Entry>
napi_value lacks(napi_env env, const rlsd_backend_v1* backend, Entry entry, const char* name) {
  if (entry != nullptr) return nullptr;
  char message[96];
  std::snprintf(message, sizeof(message), "The %s backend has no %s.", backend->name, name);
  return refuse(env, RLSD_UNSUPPORTED, message);
}

napi_value object_or_status(napi_env env, std::shared_ptr<DeviceObject> object, rlsd_status status,
                            const rlsd_context& context) {
  if (status != RLSD_OK) return finish(env, status, context);
  napi_value value = wrap_device_object(env, std::move(object));
  return value != nullptr ? value : refuse(env, RLSD_INTERNAL, "Could not make an object.");
}

/* probeLibrary(name): whether the system's loader finds it */
napi_value probe_library(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  char name[256];
  size_t length;
  std::string error;
  napi_value result;
  const bool named = a.count > 0 && napi_get_value_string_utf8(env, a.values[0], name, sizeof(name), &length) == napi_ok;
  napi_get_boolean(env, named && open_library(name, &error) != nullptr, &result);
  return result;
}

/* deviceCount(backend): how many, or -1 and lastError */
napi_value device_count(napi_env env, napi_callback_info info) {
  const rlsd_backend_v1* const backend = Arguments(env, info).backend(0);
  if (backend == nullptr) return to_number(env, -1);
  if (lacks(env, backend, backend->device_count, "device_count") != nullptr) return to_number(env, -1);
  rlsd_context context = DeviceObject(backend, 0, Kind::kBorrowedMemory).context();
  int32_t count = 0;
  if (backend->device_count(&context, &count) == RLSD_OK) return to_number(env, count);
  remember_error(env, context.error, -1, 0);
  return to_number(env, -1);
}

/* deviceInfo(backend, ordinal): { name, memoryBytes, compute, driverVersion, runtimeVersion } and, where this process uses
 * the device already, freeBytes; or a status */
napi_value device_info(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const rlsd_backend_v1* const backend = a.backend(0);
  if (backend == nullptr) return wrong(env);
  rlsd_context context = DeviceObject(backend, a.integer(1), Kind::kBorrowedMemory).context();
  rlsd_device_info found{};
  found.struct_size = sizeof(found);
  const rlsd_status status = backend->device_info(&context, &found);
  if (status != RLSD_OK) return finish(env, status, context);
  char compute[16];
  std::snprintf(compute, sizeof(compute), "%d.%d", found.compute_major, found.compute_minor);
  napi_value result, value;
  napi_create_object(env, &result);
  napi_create_string_utf8(env, found.name, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, result, "name", value);
  napi_create_string_utf8(env, compute, NAPI_AUTO_LENGTH, &value);
  napi_set_named_property(env, result, "compute", value);
  napi_set_named_property(env, result, "memoryBytes", to_number(env, static_cast<double>(found.memory_bytes)));
  if (found.free_bytes != RLSD_UNKNOWN_BYTES) {
    napi_set_named_property(env, result, "freeBytes", to_number(env, static_cast<double>(found.free_bytes)));
  }
  napi_set_named_property(env, result, "driverVersion", to_number(env, found.driver_version));
  napi_set_named_property(env, result, "runtimeVersion", to_number(env, found.runtime_version));
  return result;
}

/* deviceAllocate(backend, ordinal, bytes): memory */
napi_value device_allocate(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const rlsd_backend_v1* const backend = a.backend(0);
  if (backend == nullptr || !a.is_size(2)) return wrong(env);
  auto object = std::make_shared<DeviceObject>(backend, a.integer(1), Kind::kMemory);
  object->bytes = static_cast<uint64_t>(a.number(2));
  rlsd_context context = object->context();
  rlsd_status status = backend->allocate(&context, object->bytes, &object->data);
  if (status == RLSD_OUT_OF_MEMORY && trim_blocks(backend, object->device)) {
    status = backend->allocate(&context, object->bytes, &object->data);
  }
  object->released = status != RLSD_OK;
  return object_or_status(env, std::move(object), status, context);
}

/* deviceBorrow(backend, ordinal, bytes, pointer): memory that another library owns; bytes < 0: a stream */
napi_value device_borrow(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const rlsd_backend_v1* const backend = a.backend(0);
  uint64_t pointer = 0;
  bool lossless = false;
  if (backend == nullptr || a.count != 4 ||
      napi_get_value_bigint_uint64(env, a.values[3], &pointer, &lossless) != napi_ok || !lossless) {
    return wrong(env);
  }
  const double bytes = a.number(2);
  auto object = std::make_shared<DeviceObject>(backend, a.integer(1),
                                               bytes < 0 ? Kind::kBorrowedStream : Kind::kBorrowedMemory);
  object->bytes = bytes < 0 ? 0 : static_cast<uint64_t>(bytes);
  object->data = reinterpret_cast<void*>(static_cast<uintptr_t>(pointer));
  return object_or_status(env, std::move(object), RLSD_OK, {});
}

/* deviceOpen(backend, ordinal, bytes, handle): memory of another process; handle: Uint8Array(72) */
napi_value device_open(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const rlsd_backend_v1* const backend = a.backend(0);
  ArrayArg array;
  uint64_t length;
  if (backend == nullptr || !a.is_size(2) || !a.bytes(3, &array, &length) || length != kHandleBytes) {
    return wrong(env);
  }
  if (napi_value refusal = lacks(env, backend, backend->ipc_import, "ipc_import")) return refusal;
  auto object = std::make_shared<DeviceObject>(backend, a.integer(1), Kind::kOpenedMemory);
  rlsd_ipc_handle handle;
  std::memcpy(&handle, array.data, kHandleBytes);
  object->bytes = static_cast<uint64_t>(a.number(2));
  object->offset = handle.offset;
  rlsd_context context = object->context();
  const rlsd_status status = backend->ipc_import(&context, &handle, &object->data);
  object->released = status != RLSD_OK;
  return object_or_status(env, std::move(object), status, context);
}

/* deviceExport(memory, handle): writes the handle, Uint8Array(72) */
napi_value device_export(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const auto memory = a.object(0);
  ArrayArg array;
  uint64_t length;
  if (memory == nullptr || memory->is_stream() || !a.bytes(1, &array, &length) || length != kHandleBytes) {
    return wrong(env);
  }
  if (napi_value refusal = lacks(env, memory->backend, memory->backend->ipc_export, "ipc_export")) return refusal;
  rlsd_context context = memory->context();
  rlsd_ipc_handle handle{};
  const rlsd_status status = memory->backend->ipc_export(&context, memory->data, &handle);
  if (status == RLSD_OK) std::memcpy(array.data, &handle, kHandleBytes);
  return finish(env, status, context);
}

/* devicePointer(object): bigint */
napi_value device_pointer(napi_env env, napi_callback_info info) {
  const auto object = Arguments(env, info).object(0);
  if (object == nullptr) return wrong(env);
  napi_value value;
  napi_create_bigint_uint64(env, reinterpret_cast<uintptr_t>(object->data), &value);
  return value;
}

/* deviceView(memory, offset, bytes, report | undefined): a part of it; who reads it reads the report first */
napi_value device_view(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const auto memory = a.object(0), report = a.object(3);
  if (memory == nullptr || memory->is_stream() || !a.is_size(1) || !a.is_size(2)) return wrong(env);
  const auto offset = static_cast<uint64_t>(a.number(1)), bytes = static_cast<uint64_t>(a.number(2));
  if (offset > memory->bytes || bytes > memory->bytes - offset) return wrong(env);
  if (report != nullptr && (report->is_stream() || report->bytes < sizeof(DeviceReport))) return wrong(env);
  auto view = std::make_shared<DeviceObject>(memory->backend, memory->device, Kind::kView);
  view->data = static_cast<char*>(memory->data) + offset;
  view->bytes = bytes;
  view->owner = memory;
  view->report = report;
  view->written = memory->written;
  return object_or_status(env, std::move(view), RLSD_OK, {});
}

/* deviceRelease(object): frees it now unless a call or a view still uses it */
napi_value device_release(napi_env env, napi_callback_info info) {
  napi_value value;
  size_t count = 1;
  if (napi_get_cb_info(env, info, &count, &value, nullptr, nullptr) != napi_ok) return wrong(env);
  const auto object = take_device_object(env, value);
  if (object == nullptr || object.use_count() > 1) return to_number(env, RLSD_OK);
  rlsd_context context = object->context();
  return finish(env, object->release(&context), context);
}

/* streamCreate(backend, ordinal) */
napi_value stream_create(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const rlsd_backend_v1* const backend = a.backend(0);
  if (backend == nullptr) return wrong(env);
  if (napi_value refusal = lacks(env, backend, backend->stream_create, "stream_create")) return refusal;
  auto object = std::make_shared<DeviceObject>(backend, a.integer(1), Kind::kStream);
  rlsd_context context = object->context();
  const rlsd_status status = backend->stream_create(&context, &object->data);
  object->released = status != RLSD_OK;
  return object_or_status(env, std::move(object), status, context);
}

/* streamWait(stream, other): what comes on `stream` waits for what is on `other` now */
napi_value stream_wait(napi_env env, napi_callback_info info) {
  const Arguments a(env, info);
  const auto stream = a.object(0), other = a.object(1);
  if (stream == nullptr || other == nullptr || !stream->is_stream() || !other->is_stream()) return wrong(env);
  const rlsd_backend_v1* const backend = stream->backend;
  if (napi_value refusal = lacks(env, backend, backend->event_create, "event_create")) return refusal;
  rlsd_context context = stream->context(), from = other->context();
  void* event = nullptr;
  rlsd_status status = backend->event_create(&from, &event);
  if (status != RLSD_OK) return finish(env, status, from);
  status = backend->event_record(&from, event);
  if (status != RLSD_OK) {
    backend->event_destroy(&context, event);
    return finish(env, status, from);
  }
  status = backend->event_wait(&context, event);
  rlsd_context ignored = other->context();
  backend->event_destroy(&ignored, event); /* the runtime keeps it until the wait is over */
  return finish(env, status, context);
}

}  // namespace

void init_device(napi_env env, napi_value exports) {
  define(env, exports, "probeLibrary", probe_library);
  define(env, exports, "deviceCount", device_count);
  define(env, exports, "deviceInfo", device_info);
  define(env, exports, "deviceAllocate", device_allocate);
  define(env, exports, "deviceBorrow", device_borrow);
  define(env, exports, "deviceOpen", device_open);
  define(env, exports, "deviceExport", device_export);
  define(env, exports, "devicePointer", device_pointer);
  define(env, exports, "deviceView", device_view);
  define(env, exports, "deviceRelease", device_release);
  define(env, exports, "streamCreate", stream_create);
  define(env, exports, "streamWait", stream_wait);
  init_device_copy(env, exports);
  init_device_policy_loss(env, exports);
  init_device_rows(env, exports);
  init_device_token_log_probs(env, exports);
}

}  // namespace rlsd::addon
