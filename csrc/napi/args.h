/* Reading a call's arguments. Types and shapes are checked in TypeScript; here only what memory safety needs: that
 * each array is an array of the expected type with exactly the expected count (a detached one has none). */
#ifndef RLSD_NAPI_ARGS_H_
#define RLSD_NAPI_ARGS_H_

#include <node_api.h>

#include <cstdint>

#include "rlsd/rlsd.h"

namespace rlsd::addon {

struct ArrayArg {
  napi_value value = nullptr; /* NULL: absent */
  void* data = nullptr;
  size_t count = 0;
  napi_typedarray_type type = napi_uint8_array;

  bool present() const { return value != nullptr; }
};

/* Where an empty array points: an engine may give it NULL, which means absent to a backend. */
alignas(8) inline constexpr char kNothing[8] = {};

/* True when `value` is undefined (absent) or a typed array. Present is the case to be quick about. */
inline bool read_array(napi_env env, napi_value value, ArrayArg* out) {
  if (napi_get_typedarray_info(env, value, &out->type, &out->count, &out->data, nullptr, nullptr) == napi_ok) {
    out->value = value;
    if (out->count == 0) out->data = const_cast<char*>(kNothing);
    return true;
  }
  *out = ArrayArg{};
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && type == napi_undefined;
}

/* An argument that lib/ops has found to be undefined or an array of `type`. Nothing can change an array's type (its
 * count can become 0), and asking for it takes longer than all the rest. */
inline void read_typed_array(napi_env env, napi_value value, napi_typedarray_type type, ArrayArg* out) {
  if (napi_get_typedarray_info(env, value, nullptr, &out->count, &out->data, nullptr, nullptr) != napi_ok) {
    *out = ArrayArg{};
    return;
  }
  out->value = value;
  out->type = type;
  if (out->count == 0) out->data = const_cast<char*>(kNothing);
}

/* A call's arguments in order; false unless there are exactly `Count`, each an array or undefined. */
template <size_t Count>
bool read_arrays(napi_env env, napi_callback_info info, ArrayArg* arrays) {
  napi_value values[Count];
  size_t argc = Count;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != Count) return false;
  for (size_t i = 0; i < Count; ++i) {
    if (!read_array(env, values[i], &arrays[i])) return false;
  }
  return true;
}

inline bool is_array(const ArrayArg& a, napi_typedarray_type type, size_t count) {
  return a.present() && a.type == type && a.count == count;
}

inline bool is_array_or_absent(const ArrayArg& a, napi_typedarray_type type, size_t count) {
  return !a.present() || is_array(a, type, count);
}

inline size_t array_bytes(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      return 1;
    case napi_int16_array:
    case napi_uint16_array:
      return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      return 4;
    default:
      return 8;
  }
}

inline size_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
    case RLSD_F16:
    case RLSD_BF16:
      return 2;
    case RLSD_U8:
      return 1;
    case RLSD_F64:
      return 8;
    default:
      return 4;
  }
}

inline napi_typedarray_type dtype_array(int32_t dtype) {
  return dtype == RLSD_F32 ? napi_float32_array : napi_uint16_array;
}

/* A contiguous (rows, columns) tensor. */
inline rlsd_tensor matrix(void* data, int32_t dtype, int64_t rows, int64_t columns) {
  return {data, dtype, 2, {rows, columns}, {columns, 1}};
}

/* A contiguous (rows, columns) tensor over an array; false when the array has another type or count. */
inline bool make_tensor(const ArrayArg& a, int32_t dtype, int64_t rows, int64_t columns, rlsd_tensor* out) {
  *out = rlsd_tensor{};
  if (!a.present()) return true;
  if (dtype < RLSD_F32 || dtype > RLSD_BF16 || rows < 0 || columns < 0) return false;
  if (columns > 0 && rows > INT64_MAX / columns) return false;
  if (!is_array(a, dtype_array(dtype), static_cast<size_t>(rows * columns))) return false;
  *out = matrix(a.data, dtype, rows, columns);
  return true;
}

/* Threads to use at most; 0: all. An int32 need not hold more than any pool has. */
inline int32_t thread_limit(double threads) { return threads < 1024 ? static_cast<int32_t>(threads) : 1024; }

inline napi_value to_number(napi_env env, double value) {
  napi_value out = nullptr;
  napi_create_double(env, value, &out);
  return out;
}

}  // namespace rlsd::addon

#endif
