#include "napi/device_call.h"

#include <cstring>
#include <utility>

namespace rlsd::addon {
namespace {

constexpr uint64_t kAlignment = 256;

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/* Where pointers point while an op is asked for its workspace: it may see which are given, not what they point at. */
char* nowhere() { return reinterpret_cast<char*>(uintptr_t{kAlignment}); }

}  // namespace

bool DeviceCall::bind_device(int32_t backend_index, int32_t device, const DeviceArg& stream) {
  if (!bind(backend_index, 0) || backend_index == 0 || stream.array.present()) return false;
  context.device = device;
  stream_ = stream.object;
  if (stream_ == nullptr) return true;
  context.stream = stream_->data;
  return stream_->is_stream() && stream_->backend == backend && stream_->device == device;
}

bool DeviceCall::use(const DeviceArg& arg, uint64_t bytes, bool written) {
  const DeviceObject& o = *arg.object;
  if (o.is_stream() || o.backend != backend || o.device != context.device || o.bytes < bytes) return false;
  (written ? written_ : read_).push_back(arg.object);
  return true;
}

bool DeviceCall::place(void** pointer, const DeviceArg& arg, napi_typedarray_type type, size_t count, size_t size,
                       std::vector<Place>* places) {
  *pointer = nullptr;
  if (!arg.present()) return true;
  if (arg.object != nullptr) {
    *pointer = arg.object->data;
    return use(arg, count * size, places == &outputs_);
  }
  if (!is_array(arg.array, type, count)) return false;
  places->push_back({pointer, arg.array.data, count * size, 0});
  return true;
}

bool DeviceCall::tensor(rlsd_tensor* t, const DeviceArg& arg, int32_t dtype, int64_t rows, int64_t columns,
                        bool written) {
  *t = rlsd_tensor{};
  if (!arg.present()) return true;
  if (arg.object == nullptr || dtype < RLSD_F32 || dtype > RLSD_BF16 || rows < 0 || columns < 0) return false;
  if (columns > 0 && rows > INT64_MAX / 4 / columns) return false;
  *t = matrix(arg.object->data, dtype, rows, columns);
  return use(arg, static_cast<uint64_t>(rows * columns) * dtype_bytes(dtype), written);
}

bool DeviceCall::scores(rlsd_scores* s, const double* fields, const DeviceArg* args, size_t tokens) {
  s->level = static_cast<int32_t>(fields[0]);
  s->vocab_size = static_cast<int64_t>(fields[3]);
  if (!input(&s->rows, args[1], napi_int32_array, tokens)) return false;
  switch (s->level) {
    case RLSD_ABSENT:
      return !args[0].present();
    case RLSD_LOG_PROBS:
      return args[0].present() && input(&s->log_probs, args[0], napi_float32_array, tokens);
    case RLSD_LOGITS:
      return args[0].present() && tensor(&s->logits, args[0], static_cast<int32_t>(fields[4]),
                                         static_cast<int64_t>(fields[1]), static_cast<int64_t>(fields[2]), false);
    default:
      return false;
  }
}

bool DeviceCall::report(const DeviceArg& arg, double* stats) {
  stats_ = stats;
  if (!arg.present()) {
    outputs_.push_back({&report_at_, &found_, sizeof(found_), 0});
    return true;
  }
  if (arg.object == nullptr) return false;
  report_at_ = arg.object->data;
  return use(arg, sizeof(DeviceReport), true);
}

void DeviceCall::point_into(char* block) {
  for (const Place& p : inputs_) *p.pointer = block + p.offset;
  for (const Place& p : outputs_) {
    if (p.host != nullptr) *p.pointer = block + p.offset;
  }
}

/* One block of the device's memory: inputs, results for the host, workspace; and a pinned one for the first two. */
rlsd_status DeviceCall::borrow() {
  uint64_t end = 0;
  for (std::vector<Place>* places : {&inputs_, &outputs_}) {
    for (Place& p : *places) {
      p.offset = end;
      end = aligned(end + p.bytes);
    }
    (places == &inputs_ ? inputs_end_ : outputs_end_) = end;
  }
  point_into(nowhere());
  uint64_t bytes = 0;
  rlsd_status status = op_workspace(&bytes);
  if (status == RLSD_OK) status = scratch_.borrow(backend, &context, BlockKind::kDevice, end + bytes);
  if (status == RLSD_OK && end > 0) status = staging_.borrow(backend, &context, BlockKind::kPinned, end);
  if (status != RLSD_OK) return status;
  point_into(scratch_.data());
  context.workspace = scratch_.data() + end;
  context.workspace_bytes = bytes;
  return RLSD_OK;
}

rlsd_status DeviceCall::enqueue_all() {
  rlsd_status status = RLSD_OK;
  for (const Place& p : inputs_) {
    if (p.bytes > 0) std::memcpy(staging_.data() + p.offset, p.host, p.bytes);
  }
  if (inputs_end_ > 0) {
    status = backend->copy(&context, scratch_.data(), staging_.data(), inputs_end_, RLSD_HOST_TO_DEVICE);
  }
  for (const auto& object : read_) {
    if (status == RLSD_OK) status = object->order_read(&context);
  }
  for (const auto& object : written_) {
    if (status == RLSD_OK) status = object->order_write(&context);
  }
  if (status == RLSD_OK) status = op_enqueue();
  const uint64_t results = outputs_end_ - inputs_end_;
  if (status == RLSD_OK && results > 0) {
    status = backend->copy(&context, staging_.data() + inputs_end_, scratch_.data() + inputs_end_, results,
                           RLSD_DEVICE_TO_HOST);
  }
  return status;
}

rlsd_status DeviceCall::enqueue() {
  rlsd_status status = borrow();
  if (status != RLSD_OK) return status;
  status = enqueue_all();
  /* Of a call that failed on the way a part may be in the stream: later ones must come after that as well. */
  done_ = std::make_shared<DeviceEvent>();
  status = done_->record_after(backend, &context, status);
  for (const auto& object : read_) object->mark_read(done_);
  for (const auto& object : written_) object->mark_written(done_);
  return status;
}

rlsd_status DeviceCall::workspace_bytes(uint64_t* bytes) {
  *bytes = 0;
  return RLSD_OK;
}

rlsd_status DeviceCall::compute() {
  rlsd_status status = done_->wait(&context);
  if (status != RLSD_OK) return status;
  for (const Place& p : outputs_) {
    if (p.host == &found_) std::memcpy(&found_, staging_.data() + p.offset, p.bytes);
  }
  status = backend->describe_outcome(&context, &found_.outcome);
  if (status != RLSD_OK) return status;
  for (const Place& p : outputs_) {
    if (p.host != &found_ && p.bytes > 0) std::memcpy(p.host, staging_.data() + p.offset, p.bytes);
  }
  if (stats_ != nullptr) std::memcpy(stats_, found_.stats, sizeof(found_.stats));
  return RLSD_OK;
}

napi_value refuse_device_args(napi_env env) {
  return refuse(env, RLSD_INVALID_ARGUMENT,
                "Expected the arguments to keep their type and length but one was detached, resized, disposed or "
                "replaced while the call was made.");
}

napi_value run_device_call(napi_env env, std::unique_ptr<DeviceCall> call, DeviceMode mode, const DeviceArg* held,
                           size_t held_count) {
  const rlsd_status status = call->enqueue();
  if (status != RLSD_OK || mode == DeviceMode::kEnqueue) return finish(env, status, call->context);
  if (mode == DeviceMode::kWait) return run_call(env, call.get());
  std::vector<ArrayArg> arrays;
  for (size_t i = 0; i < held_count; ++i) arrays.push_back(held[i].array);
  return queue_call(env, std::move(call), {}, arrays.data(), arrays.size());
}

}  // namespace rlsd::addon
