/* Which kernel a device has for rows of logits of a width and a dtype. */
#include "napi/device_rows.h"

#include "napi/addon_data.h"
#include "napi/args.h"
#include "napi/backends.h"
#include "napi/device_object.h"
#include "napi/objective.h"
#include "napi/op_call.h"

namespace rlsd::addon {
namespace {

/* Where pointers point of a call that is only asked about: aligned as a device's memory is, and
 * never followed. */
template <class T>
T* nowhere() {
  return reinterpret_cast<T*>(uintptr_t{256});
}

rlsd_scores one_row(int64_t vocab, int32_t dtype) {
  rlsd_scores s{};
  s.level = RLSD_LOGITS;
  s.logits = matrix(nowhere<void>(), dtype, 1, vocab);
  s.vocab_size = vocab;
  return s;
}

rlsd_status ask(const rlsd_backend_v1* backend, rlsd_context* context, int64_t vocab, int32_t dtype,
                const rlsd_objective& objective, rlsd_rows* rows) {
  rlsd_policy_batch batch{};
  batch.tokens = batch.sequences = 1;
  batch.student = one_row(vocab, dtype);
  batch.token_ids = batch.cu_seqlens = nowhere<int32_t>();
  batch.advantages = nowhere<float>();
  rlsd_policy_outputs outputs{};
  outputs.token_advantages = outputs.evidence_weights = outputs.gradient_log_probs =
      nowhere<float>();
  outputs.stats = nowhere<double>();
  outputs.gradient_logits = batch.student.logits;
  return backend->policy_loss_rows(context, &batch, &objective, &outputs, rows);
}

/* deviceRows(backend, ordinal, V, dtype, objective): [kernel, cluster, preferred, at once] of
 * rlsd_rows, or a status. Makes a context on the device. */
napi_value device_rows(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value given[5];
  double numbers[4] = {-1, -1, -1, -1};
  ArrayArg objective;
  napi_get_cb_info(env, info, &count, given, nullptr, nullptr);
  for (int i = 0; i < 4 && count == 5; ++i) napi_get_value_double(env, given[i], &numbers[i]);
  const rlsd_backend_v1* const backend = backend_at(static_cast<int32_t>(numbers[0]));
  const bool read = count == 5 && read_array(env, given[4], &objective) &&
                    is_array(objective, napi_float64_array, kObjectiveFields);
  if (!read || backend == nullptr ||
      !(numbers[1] >= 0 && numbers[2] >= 1 && numbers[2] <= INT32_MAX)) {
    return refuse(env, RLSD_INVALID_ARGUMENT, "A device call had wrong arguments.");
  }
  if (backend->policy_loss_rows == nullptr)
    return refuse(env, RLSD_UNSUPPORTED, "The backend has one way for all rows.");
  rlsd_context context =
      DeviceObject(backend, static_cast<int32_t>(numbers[1]), DeviceObject::Kind::kBorrowedMemory)
          .context();
  rlsd_rows rows{};
  rows.struct_size = sizeof(rows);
  const rlsd_status status =
      ask(backend, &context, static_cast<int64_t>(numbers[2]), static_cast<int32_t>(numbers[3]),
          decode_objective(static_cast<const double*>(objective.data)), &rows);
  if (status != RLSD_OK) return finish(env, status, context);
  napi_value result;
  napi_create_array_with_length(env, 4, &result);
  const int32_t found[] = {rows.kernel, rows.cluster, rows.preferred, rows.at_once};
  for (uint32_t i = 0; i < 4; ++i) napi_set_element(env, result, i, to_number(env, found[i]));
  return result;
}

}  // namespace

void init_device_rows(napi_env env, napi_value exports) {
  define(env, exports, "deviceRows", device_rows);
}

}  // namespace rlsd::addon
