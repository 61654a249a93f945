/* JavaScript objects that hold a native value; a tag says of which kind. */
#ifndef RLSD_NAPI_TAGGED_H_
#define RLSD_NAPI_TAGGED_H_

#include <node_api.h>

#include <memory>

namespace rlsd::addon {

/* An object that holds `value` until `drop` is called with it; NULL when JavaScript could not make one. */
template <class T>
napi_value make_tagged(napi_env env, const napi_type_tag& tag, std::unique_ptr<T> value, napi_finalize drop) {
  napi_value object;
  if (napi_create_object(env, &object) != napi_ok || napi_type_tag_object(env, object, &tag) != napi_ok ||
      napi_wrap(env, object, value.get(), drop, nullptr, nullptr) != napi_ok) {
    return nullptr;
  }
  value.release();
  return object;
}

/* What such an object holds; NULL when the value is none with this tag. */
template <class T>
T* tagged_value(napi_env env, const napi_type_tag& tag, napi_value value) {
  napi_valuetype type;
  bool same = false;
  void* data = nullptr;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, value, &tag, &same) != napi_ok || !same ||
      napi_unwrap(env, value, &data) != napi_ok) {
    return nullptr;
  }
  return static_cast<T*>(data);
}

}  // namespace rlsd::addon

#endif
