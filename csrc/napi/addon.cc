/* The module: one set of functions per environment, no mutable statics but the thread pool, the queue and the table of
 * backends. Functions return a status; TypeScript makes the errors, in its own realm. */
#include <napi.h>

#include "napi/addon_data.h"
#include "napi/args.h"
#include "napi/backends.h"
#include "napi/device.h"
#include "napi/distill_loss.h"
#include "napi/engine.h"
#include "napi/huge_pages.h"
#include "napi/loss.h"
#include "napi/token_log_probs.h"
#include "system/stay_loaded.h"

namespace rlsd::addon {

AddonData* addon_data(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<AddonData*>(data);
}

void define(napi_env env, napi_value exports, const char* name, napi_callback function) {
  napi_value value;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, nullptr, &value) == napi_ok) {
    napi_set_named_property(env, exports, name, value);
  }
}

void remember_error(napi_env env, const char* message, int64_t index, int64_t count) {
  AddonData* data = addon_data(env);
  if (data != nullptr) data->last_error = {message, index, count};
}

namespace {

/* lastError(): [message, index, count] of the last failed call */
napi_value last_error(napi_env env, napi_callback_info) {
  const AddonData* data = addon_data(env);
  napi_value result, message;
  if (data == nullptr || napi_create_array_with_length(env, 3, &result) != napi_ok) return nullptr;
  napi_create_string_utf8(env, data->last_error.message.c_str(), NAPI_AUTO_LENGTH, &message);
  napi_set_element(env, result, 0, message);
  napi_set_element(env, result, 1, to_number(env, static_cast<double>(data->last_error.index)));
  napi_set_element(env, result, 2, to_number(env, static_cast<double>(data->last_error.count)));
  return result;
}

/* noop(): what a call into native code costs */
napi_value noop(napi_env, napi_callback_info) { return nullptr; }

/* adviseHugePages(array): before its memory is touched */
napi_value advise(napi_env env, napi_callback_info info) {
  ArrayArg array[1];
  if (read_arrays<1>(env, info, array)) advise_huge_pages(array[0].data, array[0].count * array_bytes(array[0].type));
  return nullptr;
}

/* closeQueue(): for the process's exit, whose handlers may run without the environment's clean-up */
napi_value close_queue(napi_env env, napi_callback_info) {
  AddonData* const data = addon_data(env);
  if (data == nullptr || data->queue == nullptr) return nullptr;
  data->queue->close();
  data->cancels.clear(); /* the jobs are gone; a handler of the exit may still cancel them */
  return nullptr;
}

void end_queue(void* data) { static_cast<AddonData*>(data)->queue.reset(); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  auto* data = new AddonData();
  data->queue = std::make_unique<EnvQueue>(env);
  if (napi_set_instance_data(env, data, [](napi_env, void* d, void*) { delete static_cast<AddonData*>(d); },
                             nullptr) != napi_ok) {
    delete data;
    return exports;
  }
  /* Before instance data goes: running jobs must end while the environment's buffers are alive. */
  napi_add_env_cleanup_hook(env, end_queue, data);
  define(env, exports, "lastError", last_error);
  define(env, exports, "noop", noop);
  define(env, exports, "closeQueue", close_queue);
  define(env, exports, "adviseHugePages", advise);
  init_backends(env, exports);
  init_device(env, exports);
  init_loss(env, exports);
  init_engine(env, exports);
  init_token_log_probs(env, exports);
  init_distill_loss(env, exports);
  return exports;
}

}  // namespace
}  // namespace rlsd::addon

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return rlsd::addon::init(env, exports); }

NODE_API_MODULE(rlsd, Init)
