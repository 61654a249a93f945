#include "model/model.h"

#include <algorithm>
#include <cstring>

#include "core/cancel.h"

namespace rlsd::model {
namespace {

constexpr int64_t kZeroedAtOnce = int64_t{1} << 20; /* floats: 1 ms where the memory is new */

}  // namespace

Model::Model(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads, uint64_t memory_limit,
             const Config& c, int64_t tokens, bool again)
    : config(c),
      layout(make_layout(c)),
      adapters(make_adapter_layout(c)),
      batch_tokens(tokens),
      recompute(again),
      device(table, ordinal, threads, memory_limit),
      cache(&device, config),
      prefixes(&cache) {
  device.reclaim = [this] {
    if (packed.drop()) return true;
    while (prefixes.drop_oldest()) {
      if (cache.trim()) return true;
    }
    return false;
  };
}

rlsd_status Model::create(const float* frequencies, int32_t dtype) {
  RLSD_CHECK(device.check_entries());
  const rlsd_context& place = *device.context();
  auto made = std::make_shared<Weights>(place, &device.table(), device.available(), layout);
  RLSD_CHECK(told(made->create(frequencies, config.frequencies(), dtype), *made));
  return take(std::move(made));
}

/* The words of the weights' own device become this model's. */
rlsd_status Model::told(rlsd_status status, Weights& of) {
  if (status != RLSD_OK) {
    std::memcpy(device.context()->error, of.device.context()->error, RLSD_ERROR_BYTES);
  }
  return status;
}

rlsd_tensor Model::weight(int64_t offset, int64_t rows, int64_t columns) const {
  rlsd_tensor t = matrix(static_cast<const float*>(weights->address(offset)), rows, columns);
  t.dtype = weights->type_at(offset);
  return t;
}

rlsd_status Model::take(std::shared_ptr<Weights> from) {
  const uint64_t bytes = from->device.used();
  if (bytes > device.available()) {
    return device.fail(RLSD_OUT_OF_MEMORY,
                       "The weights that are shared have %llu bytes; %llu may be used.",
                       static_cast<unsigned long long>(bytes),
                       static_cast<unsigned long long>(device.available()));
  }
  weights = std::move(from);
  device.charge(static_cast<int64_t>(bytes));
  return RLSD_OK;
}

rlsd_status Model::share(const Model& other) {
  RLSD_CHECK(device.check_entries());
  if (other.weights == nullptr || other.layout.count != layout.count) {
    return device.fail(RLSD_INVALID_ARGUMENT, "Expected the weights of a model of the same shape.");
  }
  RLSD_CHECK(take(other.weights));
  const rlsd_status status = add_adapters();
  if (status != RLSD_OK) release(); /* else the weights would have a reader that nobody knows of */
  return status;
}

rlsd_status Model::add_adapters() {
  if (!config.has_adapters()) return RLSD_OK;
  const uint64_t bytes = static_cast<uint64_t>(adapters.count) * sizeof(float);
  RLSD_CHECK(device.allocate(&adapter, bytes, "The adapters"));
  return device.zero(adapter.floats(), adapters.count);
}

void Model::weights_change() {
  packed.drop();
  prefixes.clear();
  cache.trim();
}

void Model::keep_prefixes(uint64_t bytes) {
  prefixes.limit(bytes);
  cache.trim();
}

void Model::release() {
  weights_change();
  for (Buffer* buffer : {&adapter, &gradient, &first_moment, &second_moment, &activations.memory,
                         &integers, &scores, &copies, &said, &staging_}) {
    buffer->reset();
  }
  if (weights != nullptr) device.charge(-static_cast<int64_t>(weights->device.used()));
  weights.reset();
  activations.tokens = 0;
  device.release();
}

rlsd_status Model::check_own() {
  if (config.has_adapters() || weights.use_count() == 1) return RLSD_OK;
  return device.fail(RLSD_INVALID_ARGUMENT,
                     "Other policies read these weights, so that they cannot be changed: train the "
                     "adapters that stand on them, or dispose of those policies first.");
}

rlsd_status Model::widen() {
  const uint64_t before = weights->device.used();
  weights->device.context()->cancel = device.context()->cancel;
  const rlsd_status status = told(weights->widen(device.available()), *weights);
  weights->device.context()->cancel = nullptr;
  device.charge(static_cast<int64_t>(weights->device.used() - before));
  return status;
}

/* Before the first of them is changed for good. */
rlsd_status Model::check_room_to_train() {
  if (weights->dtype == RLSD_F32 || !gradient.empty()) return RLSD_OK;
  const uint64_t needed = weights->bytes_as(RLSD_F32) + trained_bytes();
  const uint64_t may = device.available() + weights->block.bytes();
  if (needed <= may) return RLSD_OK;
  return device.fail(RLSD_OUT_OF_MEMORY,
                     "The weights as float32, in which they are trained, and their gradient need "
                     "%llu bytes; %llu may be used.",
                     static_cast<unsigned long long>(needed), static_cast<unsigned long long>(may));
}

rlsd_status Model::need_gradient() {
  RLSD_CHECK(check_own());
  weights_change(); /* soon */
  if (!config.has_adapters()) {
    RLSD_CHECK(check_room_to_train());
    RLSD_CHECK(widen());
  }
  if (gradient.empty()) {
    clear_gradient();
    RLSD_CHECK(device.allocate(&gradient, trained_bytes(), "The model's gradient"));
  }
  return gradient_cleared_ ? zero_gradient() : RLSD_OK;
}

rlsd_status Model::zero_gradient() {
  for (int64_t begin = 0, count; begin < trained().count; begin += count) {
    if (is_raised(device.context()->cancel)) return RLSD_CANCELLED;
    count = std::min(kZeroedAtOnce, trained().count - begin);
    RLSD_CHECK(device.zero(gradient_at(begin), count));
  }
  gradient_cleared_ = false;
  return RLSD_OK;
}

rlsd_status Model::need_moments() {
  for (Buffer* moment : {&first_moment, &second_moment}) {
    if (!moment->empty()) continue;
    RLSD_CHECK(device.allocate(moment, trained_bytes(), "AdamW's moments"));
    RLSD_CHECK(device.zero(moment->floats(), trained().count));
  }
  return RLSD_OK;
}

rlsd_status upload_rows(Model* model, const PackedRows& packed, Buffer* memory, DeviceRows* out) {
  const int64_t rows = packed.rows(), sequences = packed.sequences;
  std::vector<int32_t> host(static_cast<size_t>(2 * rows + sequences + 1));
  std::copy(packed.ids, packed.ids + rows, host.begin());
  int32_t* position = host.data() + rows;
  for (int64_t b = 0; b < sequences; ++b) {
    for (int32_t i = packed.cu_seqlens[b]; i < packed.cu_seqlens[b + 1]; ++i)
      *position++ = i - packed.cu_seqlens[b];
  }
  std::copy(packed.cu_seqlens, packed.cu_seqlens + sequences + 1, position);
  RLSD_CHECK(model->device.reserve(memory, host.size() * sizeof(int32_t), "Token ids"));
  RLSD_CHECK(model->device.upload(memory->ints(), host.data(), host.size() * sizeof(int32_t)));
  *out = {memory->ints(), memory->ints() + rows, memory->ints() + 2 * rows, rows, sequences, {}};
  return RLSD_OK;
}

}  // namespace rlsd::model
