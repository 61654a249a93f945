/* The policy engine's models: their memory, weights and updates. Counts are checked here, values in
 * lib/policy. */
#include "napi/engine.h"

#include "model/initialize.h"
#include "model/train.h"
#include "napi/addon_data.h"
#include "napi/backends.h"
#include "napi/engine_config.h"
#include "napi/engine_job.h"

namespace rlsd::addon {
namespace {

using model::Block;
using model::Model;

constexpr size_t kPlaceFields = 7;

/* engineOpen(config, place): a handle without memory. place: backend, device, threads, memoryLimit,
 * batchTokens, recompute, matmulType */
napi_value open_model(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  const model::Config config = read_config(&args, 0);
  const auto* place = args.data<double>(1, napi_float64_array, kPlaceFields);
  const rlsd_backend_v1* backend =
      args.valid() ? backend_at(static_cast<int32_t>(place[0])) : nullptr;
  if (backend == nullptr)
    return refuse(env, RLSD_INVALID_ARGUMENT, "engineOpen was called with wrong arguments.");
  auto made = std::make_shared<Model>(backend, static_cast<int32_t>(place[1]),
                                      thread_limit(place[2]), static_cast<uint64_t>(place[3]),
                                      config, static_cast<int64_t>(place[4]), place[5] != 0);
  made->device.context()->matmul_dtype = static_cast<int32_t>(place[6]);
  return wrap_model(env, std::move(made));
}

/* engineAllocate(model, inverseFrequencies, dtype): dtype of the matrices */
napi_value allocate(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const size_t count = m != nullptr ? static_cast<size_t>(m->config.frequencies()) : 0;
  const auto* frequencies = args.data<float>(1, napi_float32_array, count);
  const double dtype = args.number(2);
  if (args.valid() && (dtype < RLSD_F32 || dtype > RLSD_BF16)) args.invalidate();
  return enqueue(args, m, 0, [m, frequencies, dtype] {
    return m->create(frequencies, static_cast<int32_t>(dtype));
  });
}

/* engineShare(model, other): the model, which has no memory yet, reads other's weights and has
 * adapters of its own where its config says so */
napi_value share(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0), other = args.model(1);
  return enqueue(args, m, 0, [=] { return m->share(*other); });
}

/* engineMerge(model, source): weights = source's with its adapters */
napi_value merge(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0), source = args.model(1);
  if (args.valid() && (m->config.has_adapters() || m->layout.count != source->layout.count)) {
    args.invalidate();
  }
  return enqueue(args, m, 0, [=] { return m->merge(*source); });
}

/* engineInitializeAdapters(model, seedLow, seedHigh): A uniform, B 0 */
napi_value initialize_adapters(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const uint64_t seed = join_seed(args.number(1), args.number(2));
  return enqueue(args, m, 0, [=] { return model::initialize_adapters(m.get(), seed); });
}

/* engineInitialize(model, seedLow, seedHigh, deviation, scaleResidual) */
napi_value initialize(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const uint64_t seed = join_seed(args.number(1), args.number(2));
  const double deviation = args.number(3);
  const bool scale_residual = args.number(4) != 0;
  return enqueue(args, m, 0,
                 [=] { return model::initialize(m.get(), seed, deviation, scale_residual); });
}

struct Range {
  std::shared_ptr<Model> model;
  Block block;
  int64_t offset, count;
  int32_t dtype;
  void* data;
};

/* (model, block, offset, dtype, bytes): `bytes` a Uint8Array of whole elements inside the block */
Range read_range(EngineArgs* args) {
  Range r;
  r.model = args->model(0);
  const double block = args->number(1), offset = args->number(2), dtype = args->number(3);
  const ArrayArg bytes = args->array(4, napi_uint8_array);
  if (!args->valid() || block < 0 || block > 3 || dtype < RLSD_F32 || dtype > RLSD_BF16) {
    args->invalidate();
    return r;
  }
  r.block = static_cast<Block>(static_cast<int>(block));
  r.offset = static_cast<int64_t>(offset);
  r.dtype = static_cast<int32_t>(dtype);
  const size_t size = dtype_bytes(r.dtype);
  r.count = static_cast<int64_t>(bytes.count / size);
  r.data = bytes.data;
  if (bytes.count % size != 0 || r.offset < 0 || r.offset + r.count > r.model->trained().count)
    args->invalidate();
  return r;
}

/* engineWrite(model, block, offset, dtype, bytes) */
napi_value write(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  const Range r = read_range(&args);
  return enqueue(args, r.model, 0,
                 [r] { return r.model->write(r.block, r.offset, r.count, r.dtype, r.data); });
}

/* engineRead(model, block, offset, dtype, bytes) */
napi_value read(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  const Range r = read_range(&args);
  return enqueue(args, r.model, 0,
                 [r] { return r.model->read(r.block, r.offset, r.count, r.dtype, r.data); });
}

/* engineCopy(model, other, rate) */
napi_value copy(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0), other = args.model(1);
  const double rate = args.number(2);
  if (args.valid() && m->trained().count != other->trained().count) args.invalidate();
  return enqueue(args, m, 0, [=] { return m->copy_from(*other, rate); });
}

/* engineRelease(model) */
napi_value release(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  return enqueue(args, m, 0, [m] {
    m->release();
    return RLSD_OK;
  });
}

/* engineState(model, updates): sets the count of updates unless it is negative; resolves [memory
 * bytes, updates, dtype of the matrices] */
napi_value state(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const double updates = args.number(1);
  auto result = std::make_shared<std::vector<double>>();
  return enqueue(
      args, m, 0,
      [=] {
        if (updates >= 0) m->updates = static_cast<int64_t>(updates);
        const int32_t dtype = m->weights != nullptr ? m->weights->dtype : RLSD_F32;
        *result = {static_cast<double>(m->device.used()), static_cast<double>(m->updates),
                   static_cast<double>(dtype)};
        return RLSD_OK;
      },
      [result](napi_env e) { return number_array(e, *result); });
}

/* engineStep(model, options): options: learningRate, weightDecay, beta1, beta2, eps,
 * maxGradientNorm; resolves [norm, skipped] */
napi_value step(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const auto* f = args.data<double>(1, napi_float64_array, 6);
  model::StepOptions o = {};
  if (args.valid()) o = {f[0], f[1], f[2], f[3], f[4], f[5]};
  auto result = std::make_shared<std::vector<double>>();
  return enqueue(
      args, m, 0,
      [=] {
        double norm = 0.0;
        bool skipped = false;
        const rlsd_status status = model::step(m.get(), o, &norm, &skipped);
        *result = {norm, skipped ? 1.0 : 0.0};
        return status;
      },
      [result](napi_env e) { return number_array(e, *result); });
}

}  // namespace

void init_engine(napi_env env, napi_value exports) {
  define(env, exports, "engineOpen", open_model);
  define(env, exports, "engineAllocate", allocate);
  define(env, exports, "engineInitialize", initialize);
  define(env, exports, "engineInitializeAdapters", initialize_adapters);
  define(env, exports, "engineShare", share);
  define(env, exports, "engineMerge", merge);
  define(env, exports, "engineWrite", write);
  define(env, exports, "engineRead", read);
  define(env, exports, "engineCopy", copy);
  define(env, exports, "engineRelease", release);
  define(env, exports, "engineState", state);
  define(env, exports, "engineStep", step);
  define(env, exports, "engineCancel", engine_cancel);
  init_engine_shape(env, exports);
  init_engine_batch(env, exports);
}

}  // namespace rlsd::addon
