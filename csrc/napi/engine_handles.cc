#include "napi/engine_handles.h"

#include "napi/tagged.h"

namespace rlsd::addon {
namespace {

constexpr napi_type_tag kModelTag = {0x9d5a3c1e77f04b26u, 0xa1b84e0c52d9637fu};
constexpr napi_type_tag kGenerationTag = {0x2fe86b90d43c4a17u, 0xb7710ad3c85e29f4u};

template <class T>
napi_value wrap(napi_env env, const napi_type_tag& tag, std::shared_ptr<T> pointer) {
  const auto drop = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<T>*>(data);
  };
  return make_tagged(env, tag, std::make_unique<std::shared_ptr<T>>(std::move(pointer)), drop);
}

template <class T>
std::shared_ptr<T> unwrap(napi_env env, const napi_type_tag& tag, napi_value value) {
  const auto* const holder = tagged_value<std::shared_ptr<T>>(env, tag, value);
  return holder != nullptr ? *holder : nullptr;
}

}  // namespace

napi_value wrap_model(napi_env env, std::shared_ptr<model::Model> m) {
  return wrap(env, kModelTag, std::move(m));
}

napi_value wrap_generation(napi_env env, std::shared_ptr<GenerationHandle> g) {
  return wrap(env, kGenerationTag, std::move(g));
}

std::shared_ptr<model::Model> unwrap_model(napi_env env, napi_value value) {
  return unwrap<model::Model>(env, kModelTag, value);
}

std::shared_ptr<GenerationHandle> unwrap_generation(napi_env env, napi_value value) {
  return unwrap<GenerationHandle>(env, kGenerationTag, value);
}

}  // namespace rlsd::addon
