/* Copies on the caller's thread are ordered on its stream. Queued ones run on the queue's thread and on a stream of their
 * own. */
#include "napi/device_copy.h"

#include <cstring>
#include <utility>

#include "napi/addon_data.h"
#include "napi/device_lanes.h"
#include "napi/op_call.h"

namespace rlsd::addon {
namespace {

static_assert(sizeof(DeviceReport) == 232 && offsetof(DeviceReport, loss) == 224, "lib/tensor/device-results.ts says so");

using Object = std::shared_ptr<DeviceObject>;

napi_value wrong(napi_env env) { return refuse(env, RLSD_INVALID_ARGUMENT, "A copy had wrong arguments."); }

/* The context of work on `memory` in the order of `stream` (NULL: the device's default), after our last write of it. */
rlsd_status start_on(const DeviceObject& memory, const DeviceObject* stream, rlsd_context* context) {
  *context = memory.context(stream);
  return memory.order_read(context);
}

/* Remembers that the work on the context's stream wrote the memory, also where some of it could not be enqueued: a failure
 * of `enqueued` stays the answer. */
rlsd_status mark_written(DeviceObject* memory, rlsd_context* context, rlsd_status enqueued) {
  const auto done = std::make_shared<DeviceEvent>();
  memory->mark_written(done);
  return done->record_after(memory->backend, context, enqueued);
}

/* A stream for queued copies. One a process would do: the queue's thread is the only user. Kept for ever. */
rlsd_status copy_stream(const DeviceObject& memory, void** stream) {
  struct Place {
    const rlsd_backend_v1* backend;
    int32_t device;
    void* stream;
  };
  static std::vector<Place>* const places = new std::vector<Place>();
  for (const Place& p : *places) {
    if (p.backend != memory.backend || p.device != memory.device) continue;
    *stream = p.stream;
    return RLSD_OK;
  }
  rlsd_context c = memory.context();
  const rlsd_status status = memory.backend->stream_create(&c, stream);
  if (status == RLSD_OK) places->push_back({memory.backend, memory.device, *stream});
  return status;
}

/* The status that a call reported, its words in the context; `report` and `stats` may be NULL. */
rlsd_status read_report(const DeviceObject* report, rlsd_context* context, double* stats) {
  if (report == nullptr) return RLSD_OK;
  DeviceReport found;
  const rlsd_status status = copy_down(report->backend, context, &found, report->data, sizeof(found));
  if (status != RLSD_OK) return status;
  if (stats != nullptr) std::memcpy(stats, found.stats, sizeof(found.stats));
  return report->backend->describe_outcome(context, &found.outcome);
}

/* What the calls below share: no workspace. */
class CopyCall : public OpCall {
 public:
  CopyCall(Object memory, const ArrayArg& array, uint64_t bytes)
      : memory_(std::move(memory)), host_(static_cast<char*>(array.data)), bytes_(bytes) {
    backend = memory_->backend;
  }

 protected:
  rlsd_status workspace_bytes(uint64_t* bytes) override {
    *bytes = 0;
    return RLSD_OK;
  }

  const Object memory_;
  char* const host_;
  const uint64_t bytes_;
};

/* On this thread; without bytes it only waits for the stream. */
class ReadNow final : public CopyCall {
 public:
  using CopyCall::CopyCall;
  rlsd_status begin(const DeviceObject* stream) { return start_on(*memory_, stream, &context); }

 protected:
  rlsd_status compute() override {
    const rlsd_status reported = read_report(memory_->report.get(), &context, nullptr);
    if (reported != RLSD_OK) return reported;
    const rlsd_status status = backend->copy(&context, host_, memory_->data, bytes_, RLSD_DEVICE_TO_HOST);
    return status == RLSD_OK ? backend->synchronize(&context) : status;
  }
};

/* On the queue's thread. */
class Transfer final : public CopyCall {
 public:
  Transfer(Object memory, const ArrayArg& array, uint64_t bytes, bool to_host)
      : CopyCall(std::move(memory), array, bytes), to_host_(to_host) {}

  /* The copy comes after what `stream` holds now, and after our last write. */
  rlsd_status begin(const DeviceObject* stream) {
    const rlsd_status status = start_on(*memory_, stream, &context);
    return status == RLSD_OK ? before_.record(backend, &context) : status;
  }

 protected:
  rlsd_status compute() override {
    rlsd_status status = copy_stream(*memory_, &context.stream);
    if (status == RLSD_OK) status = before_.wait(&context);
    if (status == RLSD_OK && to_host_) status = read_report(memory_->report.get(), &context, nullptr);
    if (status != RLSD_OK) return status;
    if (to_host_) return copy_down(backend, &context, host_, memory_->data, bytes_);
    status = copy_up(backend, &context, memory_->data, host_, bytes_);
    if (status == RLSD_OK) status = after_.record(backend, &context);
    return status == RLSD_OK ? after_.wait(&context) : status;
  }

 private:
  const bool to_host_;
  DeviceEvent before_, after_;
};

/* Waits for a call's report and gives its statistics. */
class ReportCall final : public CopyCall {
 public:
  using CopyCall::CopyCall;
  void begin() {
    context = memory_->context();
    done_ = memory_->written;
  }

 protected:
  rlsd_status compute() override {
    rlsd_status status = copy_stream(*memory_, &context.stream);
    if (status == RLSD_OK && done_ != nullptr) status = done_->wait(&context);
    return status == RLSD_OK ? read_report(memory_.get(), &context, reinterpret_cast<double*>(host_)) : status;
  }

 private:
  std::shared_ptr<DeviceEvent> done_;
};

struct Arguments {
  DeviceArg memory, stream, array;
  uint64_t bytes = 0;

  bool read(napi_env env, napi_callback_info info) {
    DeviceArg all[3];
    if (!read_device_args<3>(env, info, all)) return false;
    memory = std::move(all[0]);
    stream = std::move(all[1]);
    array = std::move(all[2]);
    bytes = array.array.count * array_bytes(array.array.type);
    return memory.object != nullptr && !stream.array.present() && array.array.present() &&
           (memory.object->is_stream() || bytes <= memory.object->bytes);
  }
};

/* deviceWrite(memory, stream | undefined, array): ordered on the stream; the array may change when this returns */
napi_value device_write(napi_env env, napi_callback_info info) {
  Arguments a;
  if (!a.read(env, info)) return wrong(env);
  DeviceObject* const memory = a.memory.object.get();
  rlsd_context context;
  rlsd_status status = start_on(*memory, a.stream.object.get(), &context);
  if (status != RLSD_OK) return finish(env, status, context);
  status = copy_up(memory->backend, &context, memory->data, a.array.array.data, a.bytes);
  return finish(env, mark_written(memory, &context, status), context);
}

/* deviceClear(memory) on the device's default stream */
napi_value device_clear(napi_env env, napi_callback_info info) {
  DeviceArg memory;
  if (!read_device_args<1>(env, info, &memory) || memory.object == nullptr) return wrong(env);
  rlsd_context context;
  rlsd_status status = start_on(*memory.object, nullptr, &context);
  if (status != RLSD_OK) return finish(env, status, context);
  status = memory.object->backend->fill_zero(&context, memory.object->data, memory.object->bytes);
  return finish(env, mark_written(memory.object.get(), &context, status), context);
}

/* deviceRead(memory, stream | undefined, array): waits */
napi_value device_read(napi_env env, napi_callback_info info) {
  Arguments a;
  if (!a.read(env, info)) return wrong(env);
  ReadNow call(a.memory.object, a.array.array, a.bytes);
  const rlsd_status status = call.begin(a.stream.object.get());
  return status == RLSD_OK ? run_call(env, &call) : finish(env, status, call.context);
}

napi_value transfer(napi_env env, const Arguments& a, bool to_host) {
  auto call = std::make_unique<Transfer>(a.memory.object, a.array.array, a.bytes, to_host);
  const rlsd_status status = call->begin(a.stream.object.get());
  if (status != RLSD_OK) return finish(env, status, call->context);
  return queue_call(env, std::move(call), {}, &a.array.array, 1);
}

/* deviceDownload(memory, stream | undefined, array): a promise of an outcome */
napi_value device_download(napi_env env, napi_callback_info info) {
  Arguments a;
  return a.read(env, info) ? transfer(env, a, true) : wrong(env);
}

/* deviceUpload(memory, stream | undefined, array): a promise of an outcome */
napi_value device_upload(napi_env env, napi_callback_info info) {
  Arguments a;
  return a.read(env, info) ? transfer(env, a, false) : wrong(env);
}

/* deviceReport(report, Float64Array(RLSD_STAT_COUNT)): a promise of the outcome of the call that fills the report */
napi_value device_report(napi_env env, napi_callback_info info) {
  DeviceArg a[2];
  if (!read_device_args<2>(env, info, a) || a[0].object == nullptr || a[0].object->is_stream() ||
      a[0].object->bytes < sizeof(DeviceReport) || !is_array(a[1].array, napi_float64_array, RLSD_STAT_COUNT)) {
    return wrong(env);
  }
  auto call = std::make_unique<ReportCall>(a[0].object, a[1].array, 0);
  call->begin();
  return queue_call(env, std::move(call), {}, &a[1].array, 1);
}

/* streamSynchronize(stream): a promise of an outcome */
napi_value stream_synchronize(napi_env env, napi_callback_info info) {
  DeviceArg stream;
  if (!read_device_args<1>(env, info, &stream) || stream.object == nullptr || !stream.object->is_stream()) {
    return wrong(env);
  }
  auto call = std::make_unique<Transfer>(stream.object, ArrayArg{}, 0, true);
  const rlsd_status status = call->begin(stream.object.get());
  if (status != RLSD_OK) return finish(env, status, call->context);
  return queue_call(env, std::move(call), {}, nullptr, 0);
}

}  // namespace

void init_device_copy(napi_env env, napi_value exports) {
  define(env, exports, "deviceWrite", device_write);
  define(env, exports, "deviceClear", device_clear);
  define(env, exports, "deviceRead", device_read);
  define(env, exports, "deviceDownload", device_download);
  define(env, exports, "deviceUpload", device_upload);
  define(env, exports, "deviceReport", device_report);
  define(env, exports, "streamSynchronize", stream_synchronize);
}

}  // namespace rlsd::addon
