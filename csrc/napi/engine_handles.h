/* Models and generations as JavaScript objects: a tagged object holds a shared pointer, jobs hold
 * their own. */
#ifndef RLSD_NAPI_ENGINE_HANDLES_H_
#define RLSD_NAPI_ENGINE_HANDLES_H_

#include <node_api.h>

#include <memory>
#include <utility>

#include "model/generate.h"
#include "model/model.h"

namespace rlsd::addon {

/* A generation releases its memory through its model's device, so the model goes last. */
struct GenerationHandle {
  template <class... Args>
  explicit GenerationHandle(std::shared_ptr<model::Model> m, Args&&... args)
      : model(std::move(m)), generation(model.get(), std::forward<Args>(args)...) {}

  const std::shared_ptr<model::Model> model;
  model::Generation generation;
};

/* NULL when JavaScript could not make the object. */
napi_value wrap_model(napi_env env, std::shared_ptr<model::Model> model);
napi_value wrap_generation(napi_env env, std::shared_ptr<GenerationHandle> generation);

/* NULL when the value is not such an object. */
std::shared_ptr<model::Model> unwrap_model(napi_env env, napi_value value);
std::shared_ptr<GenerationHandle> unwrap_generation(napi_env env, napi_value value);

}  // namespace rlsd::addon

#endif
