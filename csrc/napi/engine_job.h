/* One queued call of the policy engine: arguments read and held, a body for the native thread, a
 * promise. */
#ifndef RLSD_NAPI_ENGINE_JOB_H_
#define RLSD_NAPI_ENGINE_JOB_H_

#include <node_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "napi/args.h"
#include "napi/engine_handles.h"
#include "napi/op_call.h"
#include "napi/queue.h"

namespace rlsd::addon {

/* Arguments of a call, by position. Reading a wrong one makes the call invalid and gives an empty
 * value. */
class EngineArgs {
 public:
  EngineArgs(napi_env env, napi_callback_info info);

  napi_env env() const { return env_; }
  bool valid() const { return valid_; }
  bool absent(size_t at) const;
  std::shared_ptr<model::Model> model(size_t at);
  std::shared_ptr<GenerationHandle> generation(size_t at);
  double number(size_t at);
  /* Any typed array; present whatever its count. */
  ArrayArg array(size_t at, napi_typedarray_type type);
  template <class T>
  T* data(size_t at, napi_typedarray_type type, size_t count) {
    const ArrayArg a = array(at, type);
    if (a.count != count) valid_ = false;
    return static_cast<T*>(a.data);
  }
  template <class T>
  T* optional(size_t at, napi_typedarray_type type, size_t count) {
    return absent(at) ? nullptr : data<T>(at, type, count);
  }
  void invalidate() { valid_ = false; }

  const std::vector<napi_value>& arrays() const { return arrays_; }

 private:
  static constexpr size_t kMax = 32;

  napi_env env_;
  napi_value values_[kMax];
  size_t count_ = kMax;
  bool valid_ = true;
  std::vector<napi_value> arrays_;
};

/* A seed from its low and its high 32 bits. */
inline uint64_t join_seed(double low, double high) {
  return static_cast<uint64_t>(low) | static_cast<uint64_t>(high) << 32;
}

/* What a call resolves with when it succeeds; NULL: the number 0. */
using EngineResult = std::function<napi_value(napi_env)>;
using EngineBody = std::function<rlsd_status()>;

/* Queues body and returns a promise of RLSD_OK, of `result`'s value, or of [status, message, index,
 * count]. The arrays that were read stay alive until then. `cancel_id` (0: none) can be given to
 * engineCancel. */
napi_value enqueue(const EngineArgs& args, std::shared_ptr<model::Model> model, double cancel_id,
                   EngineBody body, EngineResult result = nullptr);

/* engineCancel(id): stops the call that was queued with this id, if it has not ended. */
napi_value engine_cancel(napi_env env, napi_callback_info info);

}  // namespace rlsd::addon

#endif
