#include "napi/op_call.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "napi/addon_data.h"
#include "napi/backends.h"
#include "napi/huge_pages.h"
#include "napi/promise_job.h"

namespace rlsd::addon {

void* OwnedInputs::copy(const void* from, size_t bytes) {
  void* block = std::malloc(bytes > 0 ? bytes : 1);
  if (block == nullptr) return nullptr;
  if (bytes > 0) std::memcpy(block, from, bytes);
  blocks_.emplace_back(block, &std::free);
  return block;
}

bool OpCall::bind(int32_t backend_index, double threads) {
  backend = backend_at(backend_index);
  context.struct_size = sizeof(context);
  context.threads = thread_limit(threads);
  context.error_index = -1;
  return backend != nullptr;
}

rlsd_status OpCall::unsupported(const char* op) {
  std::snprintf(context.error, sizeof(context.error), "The %s backend has no %s.", backend->name, op);
  return RLSD_UNSUPPORTED;
}

rlsd_status OpCall::run() {
  uint64_t bytes = 0;
  const rlsd_status status = workspace_bytes(&bytes);
  if (status != RLSD_OK) return status;
  if (bytes > 0) {
    workspace_.reset(aligned_allocate(64, (bytes + 63) / 64 * 64));
    if (workspace_ == nullptr) {
      std::snprintf(context.error, sizeof(context.error), "Could not allocate a workspace of %llu bytes.",
                    static_cast<unsigned long long>(bytes));
      return RLSD_OUT_OF_MEMORY;
    }
    advise_huge_pages(workspace_.get(), bytes);
    context.workspace = workspace_.get();
    context.workspace_bytes = bytes;
  }
  return compute();
}

bool read_scores(const double* m, const ArrayArg* a, size_t tokens, rlsd_scores* s) {
  s->level = static_cast<int32_t>(m[0]);
  const auto rows = static_cast<int64_t>(m[1]), v = static_cast<int64_t>(m[2]), h = static_cast<int64_t>(m[3]);
  s->vocab_size = static_cast<int64_t>(m[4]);
  const auto dtype = static_cast<int32_t>(m[5]);
  if (!is_array_or_absent(a[3], napi_int32_array, tokens)) return false;
  s->rows = static_cast<const int32_t*>(a[3].data);
  switch (s->level) {
    case RLSD_ABSENT:
      return true;
    case RLSD_LOG_PROBS:
      s->log_probs = static_cast<const float*>(a[0].data);
      return is_array(a[0], napi_float32_array, tokens);
    case RLSD_LOGITS:
      return a[0].present() && make_tensor(a[0], dtype, rows, v, &s->logits);
    case RLSD_HIDDEN:
      return a[0].present() && a[1].present() && make_tensor(a[0], dtype, rows, h, &s->hidden) &&
             make_tensor(a[1], static_cast<int32_t>(m[6]), v, h, &s->head) &&
             make_tensor(a[2], static_cast<int32_t>(m[7]), 1, v, &s->bias);
    default:
      return false;
  }
}

bool read_gradients(const double* m, const double* dtypes, const ArrayArg* a, rlsd_tensor* logits, rlsd_tensor* hidden,
                    rlsd_tensor* head, rlsd_tensor* bias) {
  const auto rows = static_cast<int64_t>(m[1]), v = static_cast<int64_t>(m[2]), h = static_cast<int64_t>(m[3]);
  return make_tensor(a[0], static_cast<int32_t>(dtypes[0]), rows, v, logits) &&
         make_tensor(a[1], static_cast<int32_t>(dtypes[1]), rows, h, hidden) &&
         make_tensor(a[2], static_cast<int32_t>(dtypes[2]), v, h, head) &&
         make_tensor(a[3], static_cast<int32_t>(dtypes[3]), 1, v, bias);
}

namespace {

class OpJob final : public PromiseJob {
 public:
  OpJob(std::unique_ptr<OpCall> call, int32_t* flags) : call_(std::move(call)), flags_(flags) {
    call_->context.cancel = flags_ != nullptr ? flags_ : &cancel;
  }

  void run() override {
    if (flags_ != nullptr) {
      __atomic_store_n(&flags_[1], 1, __ATOMIC_SEQ_CST);
      if (__atomic_load_n(&flags_[0], __ATOMIC_SEQ_CST) != 0) {
        status_ = RLSD_CANCELLED;
        return;
      }
    }
    status_ = call_->run();
  }

  void stop() override {
    Job::stop();
    if (flags_ != nullptr) __atomic_store_n(&flags_[0], 1, __ATOMIC_SEQ_CST);
  }

  bool hold_array(napi_env env, const ArrayArg& array) { return !array.present() || hold(env, array.value); }

 protected:
  napi_value outcome(napi_env env) override {
    const rlsd_context& c = call_->context;
    if (status_ != RLSD_OK) return failure(env, status_, c.error, c.error_index, c.error_count);
    return to_number(env, RLSD_OK);
  }

 private:
  std::unique_ptr<OpCall> call_;
  int32_t* flags_; /* kCancelFlags of them, or NULL */
  rlsd_status status_ = RLSD_INTERNAL;
};

}  // namespace

napi_value refuse(napi_env env, rlsd_status status, const char* message) {
  remember_error(env, message, -1, 0);
  return to_number(env, status);
}

napi_value finish(napi_env env, rlsd_status status, const rlsd_context& context) {
  if (status != RLSD_OK) remember_error(env, context.error, context.error_index, context.error_count);
  return to_number(env, status);
}

napi_value failure(napi_env env, rlsd_status status, const char* message, int64_t index, int64_t count) {
  napi_value result, text;
  if (napi_create_array_with_length(env, 4, &result) != napi_ok) return to_number(env, status);
  napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text);
  napi_set_element(env, result, 0, to_number(env, status));
  napi_set_element(env, result, 1, text);
  napi_set_element(env, result, 2, to_number(env, static_cast<double>(index)));
  napi_set_element(env, result, 3, to_number(env, static_cast<double>(count)));
  return result;
}

napi_value run_call(napi_env env, OpCall* call) { return finish(env, call->run(), call->context); }

napi_value queue_call(napi_env env, std::unique_ptr<OpCall> call, const ArrayArg& cancel, const ArrayArg* held,
                      size_t held_count) {
  if (!call->own_inputs()) return refuse(env, RLSD_OUT_OF_MEMORY, "Could not copy the inputs.");
  auto job = std::make_unique<OpJob>(std::move(call), static_cast<int32_t*>(cancel.data));
  bool holds = job->hold_array(env, cancel);
  for (size_t i = 0; i < held_count; ++i) holds = holds && job->hold_array(env, held[i]);
  return enqueue_promise(env, std::move(job), holds);
}

}  // namespace rlsd::addon
