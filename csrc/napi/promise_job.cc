#include "napi/promise_job.h"

#include <utility>

#include "napi/addon_data.h"
#include "napi/op_call.h"

namespace rlsd::addon {

bool PromiseJob::hold(napi_env env, napi_value value) {
  napi_ref reference;
  if (napi_create_reference(env, value, 1, &reference) != napi_ok) return false;
  references_.push_back(reference);
  return true;
}

void PromiseJob::release(napi_env env) {
  for (napi_ref reference : references_) napi_delete_reference(env, reference);
  references_.clear();
}

void PromiseJob::complete(napi_env env) {
  const napi_value value = outcome(env);
  release(env);
  napi_resolve_deferred(env, deferred_, value);
}

napi_value enqueue_promise(napi_env env, std::unique_ptr<PromiseJob> job, bool holds) {
  PromiseJob* const held = job.get();
  napi_value promise;
  if (!holds || !held->promise(env, &promise)) {
    held->release(env);
    return refuse(env, RLSD_INTERNAL, "Could not hold an array.");
  }
  EnvQueue* const queue = addon_data(env)->queue.get();
  std::unique_ptr<Job> entry = std::move(job);
  if (queue != nullptr && queue->enqueue(entry)) return promise;
  held->release(env);
  if (queue == nullptr || queue->is_closed()) return refuse(env, RLSD_CANCELLED, "The environment is shutting down.");
  return refuse(env, RLSD_OUT_OF_MEMORY,
                "The system has no thread to give for queued calls: raise what limits the memory or the threads of this "
                "process (ulimit -v, ulimit -u, a container's pids limit).");
}

}  // namespace rlsd::addon
