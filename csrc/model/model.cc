#include "model/model.h"

#include <algorithm>
#include <cstring>

#include "core/memory.h"

namespace rlsd::model {

Model::Model(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads, uint64_t memory_limit,
             const Config& c, int64_t tokens)
    : config(c),
      layout(make_layout(c)),
      adapters(make_adapter_layout(c)),
      batch_tokens(tokens),
      device(table, ordinal, threads, memory_limit) {}

rlsd_status Model::create(const float* frequencies) {
  RLSD_CHECK(device.check_entries());
  rlsd_context* const c = device.context();
  auto made = std::make_shared<Weights>(&device.table(), c->device, c->threads, device.available());
  const uint64_t half = static_cast<uint64_t>(config.head_dim / 2) * sizeof(float);
  const uint64_t bytes = static_cast<uint64_t>(layout.count) * sizeof(float);
  Device& owner = made->device;
  /* The small block first: glibc gives a thread's very first block, if large, an arena that it
   * never gives back. */
  rlsd_status status = owner.allocate(&made->inverse_frequencies, half, "Rotary frequencies");
  if (status == RLSD_OK) status = owner.allocate(&made->block, bytes, "The model's weights");
  if (status != RLSD_OK) {
    std::memcpy(c->error, owner.context()->error, RLSD_ERROR_BYTES);
    return status;
  }
  RLSD_CHECK(device.upload(made->inverse_frequencies.floats(), frequencies, half));
  RLSD_CHECK(device.zero(made->block.floats(), layout.count));
  return take(std::move(made));
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

void Model::release() {
  for (Buffer* buffer : {&adapter, &gradient, &first_moment, &second_moment, &activations.memory,
                         &integers, &scores, &staging_}) {
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

rlsd_status Model::need_gradient() {
  RLSD_CHECK(check_own());
  if (!gradient.empty()) return RLSD_OK;
  RLSD_CHECK(device.allocate(&gradient, trained_weights().bytes(), "The model's gradient"));
  return clear_gradient();
}

rlsd_status Model::clear_gradient() {
  return gradient.empty() ? RLSD_OK : device.zero(gradient.floats(), trained().count);
}

rlsd_status Model::need_moments() {
  for (Buffer* moment : {&first_moment, &second_moment}) {
    if (!moment->empty()) continue;
    RLSD_CHECK(device.allocate(moment, trained_weights().bytes(), "AdamW's moments"));
    RLSD_CHECK(device.zero(moment->floats(), trained().count));
  }
  return RLSD_OK;
}

Buffer* Model::block_of(Block block) {
  switch (block) {
    case Block::kWeights:
      return &trained_weights();
    case Block::kGradient:
      return &gradient;
    case Block::kFirstMoment:
      return &first_moment;
    default:
      return &second_moment;
  }
}

namespace {

rlsd_tensor typed(const void* data, int64_t count, int32_t dtype) {
  rlsd_tensor t = vector(static_cast<const float*>(data), count);
  t.dtype = dtype;
  return t;
}

uint64_t bytes_of(int64_t count, int32_t dtype) {
  return static_cast<uint64_t>(count * element_bytes(dtype));
}

}  // namespace

rlsd_status Model::write(Block block, int64_t offset, int64_t count, int32_t dtype,
                         const void* from) {
  if (block == Block::kWeights) RLSD_CHECK(check_own());
  if (block == Block::kFirstMoment || block == Block::kSecondMoment) RLSD_CHECK(need_moments());
  if (block == Block::kGradient) RLSD_CHECK(need_gradient());
  float* const to = block_of(block)->floats() + offset;
  const uint64_t bytes = bytes_of(count, dtype);
  if (dtype == RLSD_F32) return device.upload(to, from, bytes);
  RLSD_CHECK(device.reserve(&staging_, bytes, "Staging memory"));
  RLSD_CHECK(device.upload(staging_.floats(), from, bytes));
  return device.table().convert(device.context(), vector(to, count),
                                typed(staging_.floats(), count, dtype));
}

rlsd_status Model::read(Block block, int64_t offset, int64_t count, int32_t dtype, void* to) {
  const Buffer* source = block_of(block);
  const uint64_t bytes = bytes_of(count, dtype);
  if (source->empty()) { /* nothing was accumulated yet */
    std::memset(to, 0, bytes);
    return RLSD_OK;
  }
  const float* const from = source->floats() + offset;
  if (dtype == RLSD_F32) return device.download(to, from, bytes);
  RLSD_CHECK(device.reserve(&staging_, bytes, "Staging memory"));
  RLSD_CHECK(device.table().convert(device.context(), typed(staging_.floats(), count, dtype),
                                    vector(from, count)));
  return device.download(to, staging_.floats(), bytes);
}

rlsd_status Model::copy_from(Model& other, double rate) {
  RLSD_CHECK(check_own());
  const int64_t count = trained().count;
  float* const own = trained_weights().floats();
  const float* const theirs = other.trained_weights().floats();
  if (rate == 0.0) return device.copy(own, theirs, count);
  if (rate == 1.0) return RLSD_OK;
  /* own rate + other (1 - rate) = (own rate / (1 - rate) + other) (1 - rate) */
  const rlsd_backend_v1& table = device.table();
  RLSD_CHECK(table.scale(device.context(), vector(own, count), rate / (1.0 - rate)));
  RLSD_CHECK(table.residual_add(device.context(), vector(own, count), vector(theirs, count)));
  return table.scale(device.context(), vector(own, count), 1.0 - rate);
}

rlsd_status Model::merge(Model& source) {
  RLSD_CHECK(check_own());
  RLSD_CHECK(device.copy(weights->block.floats(), source.at(0), layout.count));
  for (int64_t i = 0; i < config.layers; ++i) {
    for (size_t p = 0; p < kProjections; ++p) {
      const AdapterOffsets at = source.adapter_of(i, static_cast<Projection>(p));
      const LinearOffsets& w = layout.layers[static_cast<size_t>(i)].linear[p];
      if (at.a >= 0) RLSD_CHECK(merge_one(source, w, at));
    }
  }
  return RLSD_OK;
}

/* W += (scale B) A */
rlsd_status Model::merge_one(const Model& source, const LinearOffsets& w, AdapterOffsets at) {
  const int64_t rank = source.config.rank, count = w.out * rank;
  RLSD_CHECK(
      device.reserve(&staging_, static_cast<uint64_t>(count) * sizeof(float), "Staging memory"));
  float* const scaled = staging_.floats();
  RLSD_CHECK(device.copy(scaled, source.adapter_at(at.b), count));
  RLSD_CHECK(
      device.table().scale(device.context(), vector(scaled, count), source.config.adapter_scale));
  return device.matmul(matrix(this->at(w.weight), w.out, w.in), matrix(scaled, w.out, rank),
                       matrix(source.adapter_at(at.a), rank, w.in), false, false, 1.0);
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
  *out = {memory->ints(), memory->ints() + rows, memory->ints() + 2 * rows, rows, sequences};
  return RLSD_OK;
}

}  // namespace rlsd::model
