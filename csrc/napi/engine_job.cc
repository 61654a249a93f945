#include "napi/engine_job.h"

#include <string>

#include "napi/addon_data.h"
#include "napi/promise_job.h"

namespace rlsd::addon {
namespace {

class EngineJob final : public PromiseJob {
 public:
  EngineJob(std::shared_ptr<model::Model> model, double id, EngineBody body, EngineResult result)
      : model_(std::move(model)), id_(id), body_(std::move(body)), result_(std::move(result)) {}

  void release(napi_env env) override {
    addon_data(env)->cancels.erase(id_);
    PromiseJob::release(env);
  }

  void run() override {
    rlsd_context* context = model_->device.context();
    context->cancel = &cancel;
    context->error[0] = '\0';
    context->error_index = -1;
    context->error_count = 0;
    status_ = cancel != 0 ? RLSD_CANCELLED : body_();
    context->cancel = nullptr;
    if (status_ == RLSD_OK) return;
    message_ = status_ == RLSD_CANCELLED ? "The call was cancelled." : context->error;
    index_ = context->error_index;
    count_ = context->error_count;
  }

 protected:
  napi_value outcome(napi_env env) override {
    if (status_ != RLSD_OK) return failure(env, status_, message_.c_str(), index_, count_);
    return result_ != nullptr ? result_(env) : to_number(env, RLSD_OK);
  }

 private:
  const std::shared_ptr<model::Model> model_;
  const double id_;
  const EngineBody body_;
  const EngineResult result_;
  rlsd_status status_ = RLSD_INTERNAL;
  std::string message_;
  int64_t index_ = -1, count_ = 0;
};

}  // namespace

EngineArgs::EngineArgs(napi_env env, napi_callback_info info) : env_(env) {
  valid_ =
      napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr) == napi_ok && count_ <= kMax;
}

bool EngineArgs::absent(size_t at) const {
  napi_valuetype type = napi_undefined;
  return at >= count_ || napi_typeof(env_, values_[at], &type) != napi_ok || type == napi_undefined;
}

std::shared_ptr<model::Model> EngineArgs::model(size_t at) {
  auto model = at < count_ ? unwrap_model(env_, values_[at]) : nullptr;
  if (model == nullptr) valid_ = false;
  return model;
}

std::shared_ptr<GenerationHandle> EngineArgs::generation(size_t at) {
  auto generation = at < count_ ? unwrap_generation(env_, values_[at]) : nullptr;
  if (generation == nullptr) valid_ = false;
  return generation;
}

double EngineArgs::number(size_t at) {
  double value = 0.0;
  if (at >= count_ || napi_get_value_double(env_, values_[at], &value) != napi_ok) valid_ = false;
  return value;
}

ArrayArg EngineArgs::array(size_t at, napi_typedarray_type type) {
  ArrayArg a;
  if (at >= count_ || !read_array(env_, values_[at], &a) || !a.present() || a.type != type) {
    valid_ = false;
    return ArrayArg{};
  }
  arrays_.push_back(values_[at]);
  return a;
}

napi_value enqueue(const EngineArgs& args, std::shared_ptr<model::Model> model, double cancel_id,
                   EngineBody body, EngineResult result) {
  napi_env env = args.env();
  if (!args.valid())
    return refuse(env, RLSD_INVALID_ARGUMENT, "The engine was called with wrong arguments.");
  auto job =
      std::make_unique<EngineJob>(std::move(model), cancel_id, std::move(body), std::move(result));
  bool holds = true;
  for (napi_value array : args.arrays()) holds = holds && job->hold(env, array);
  if (cancel_id != 0) addon_data(env)->cancels[cancel_id] = &job->cancel;
  return enqueue_promise(env, std::move(job), holds);
}

napi_value engine_cancel(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  const double id = args.number(0);
  const auto& cancels = addon_data(env)->cancels;
  const auto at = cancels.find(id);
  if (args.valid() && at != cancels.end()) __atomic_store_n(at->second, 1, __ATOMIC_SEQ_CST);
  return nullptr;
}

}  // namespace rlsd::addon
