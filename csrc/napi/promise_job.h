/* A job that a promise stands for: the values it works on stay alive until the promise settles. */
#ifndef RLSD_NAPI_PROMISE_JOB_H_
#define RLSD_NAPI_PROMISE_JOB_H_

#include <node_api.h>

#include <memory>
#include <vector>

#include "napi/queue.h"

namespace rlsd::addon {

class PromiseJob : public Job {
 public:
  bool hold(napi_env env, napi_value value);
  /* Lets go of what is held. On the environment's thread; also where the queue did not take the job. */
  virtual void release(napi_env env);
  void complete(napi_env env) final;
  bool promise(napi_env env, napi_value* result) { return napi_create_promise(env, &deferred_, result) == napi_ok; }

 protected:
  /* What the promise resolves with. */
  virtual napi_value outcome(napi_env env) = 0;

 private:
  std::vector<napi_ref> references_;
  napi_deferred deferred_ = nullptr;
};

/* The promise of the job, once it is in the environment's queue; otherwise a status, with words kept for lastError, and
 * nothing is held any more. `holds`: whether all that it needs could be held. */
napi_value enqueue_promise(napi_env env, std::unique_ptr<PromiseJob> job, bool holds);

}  // namespace rlsd::addon

#endif
