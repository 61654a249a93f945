#include "napi/device_object.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "napi/addon_data.h"
#include "napi/tagged.h"
#include "system/main_thread.h"

namespace rlsd::addon {
namespace {

constexpr napi_type_tag kTag = {0x5c3e81f20a974db6u, 0x8e4b17d96fa2c035u};

using Holder = std::shared_ptr<DeviceObject>;

/* Freeing device memory waits for the device: never in the collector's time. Our own work with it is waited for first, in a
 * way that stop() ends: then it is left to the process. */
class ReleaseJob final : public Job {
 public:
  explicit ReleaseJob(Holder object) : object_(std::move(object)) {}
  void run() override {
    const bool is_over = object_->wait_until_unused(&cancel) != RLSD_CANCELLED;
    frees_ = true;
    if (is_over && __atomic_load_n(&cancel, __ATOMIC_SEQ_CST) == 0) {
      object_.reset();
    } else {
      new Holder(std::move(object_));
    }
  }
  void complete(napi_env) override {}
  /* It holds nothing of the environment's, and freeing cannot be stopped. */
  bool is_waited_for() const override { return !frees_; }

 private:
  Holder object_;
  std::atomic<bool> frees_{false};
};

/* While the environment goes away there is no queue. A worker's objects are let go here; the main thread's go with the
 * process, which need not wait for the device to be done with them. */
void drop(napi_env env, void* data, void*) {
  std::unique_ptr<Holder> holder(static_cast<Holder*>(data));
  if (*holder == nullptr) return;
  AddonData* const addon = addon_data(env);
  const bool closing = addon == nullptr || addon->queue == nullptr || addon->queue->is_closed();
  if (closing && is_main_thread()) holder.release();
  if (closing) return;
  std::unique_ptr<Job> job = std::make_unique<ReleaseJob>(std::move(*holder));
  addon->queue->enqueue(job);
}

}  // namespace

DeviceObject::~DeviceObject() {
  rlsd_context c = context();
  release(&c);
}

rlsd_context DeviceObject::context(const DeviceObject* stream) const {
  rlsd_context c{};
  c.struct_size = sizeof(c);
  c.device = device;
  c.error_index = -1;
  if (is_stream()) c.stream = data;
  if (stream != nullptr) c.stream = stream->data;
  return c;
}

rlsd_status DeviceObject::release(rlsd_context* c) {
  if (released) return RLSD_OK;
  released = true;
  switch (kind) {
    case Kind::kMemory:
      return backend->release(c, data);
    case Kind::kOpenedMemory:
      return backend->ipc_close(c, static_cast<char*>(data) - offset);
    case Kind::kStream:
      return backend->stream_destroy(c, data);
    default:
      return RLSD_OK;
  }
}

rlsd_status DeviceObject::order_read(rlsd_context* c) const {
  return written != nullptr ? written->order(c) : RLSD_OK;
}

rlsd_status DeviceObject::order_write(rlsd_context* c) const {
  rlsd_status status = order_read(c);
  for (const auto& reader : readers) {
    if (status == RLSD_OK) status = reader->order(c);
  }
  return status;
}

void DeviceObject::mark_read(const std::shared_ptr<DeviceEvent>& done) {
  const auto is_over = [](const std::shared_ptr<DeviceEvent>& reader) { return reader->has_passed(); };
  readers.erase(std::remove_if(readers.begin(), readers.end(), is_over), readers.end());
  readers.push_back(done);
}

void DeviceObject::mark_written(const std::shared_ptr<DeviceEvent>& done) {
  written = done;
  readers.clear();
}

rlsd_status DeviceObject::wait_until_unused(const volatile int32_t* cancel) const {
  rlsd_context c = context();
  c.cancel = cancel;
  rlsd_status status = written != nullptr ? written->wait(&c) : RLSD_OK;
  for (const auto& reader : readers) {
    if (status == RLSD_OK) status = reader->wait(&c);
  }
  return status;
}

napi_value wrap_device_object(napi_env env, std::shared_ptr<DeviceObject> object) {
  return make_tagged(env, kTag, std::make_unique<Holder>(std::move(object)), drop);
}

std::shared_ptr<DeviceObject> unwrap_device_object(napi_env env, napi_value value) {
  const Holder* const holder = tagged_value<Holder>(env, kTag, value);
  return holder != nullptr ? *holder : nullptr;
}

std::shared_ptr<DeviceObject> take_device_object(napi_env env, napi_value value) {
  Holder* const holder = tagged_value<Holder>(env, kTag, value);
  return holder != nullptr ? std::move(*holder) : nullptr;
}

bool read_device_arg(napi_env env, napi_value value, DeviceArg* out) {
  if (read_array(env, value, &out->array)) return true;
  out->object = unwrap_device_object(env, value);
  return out->object != nullptr;
}

}  // namespace rlsd::addon
