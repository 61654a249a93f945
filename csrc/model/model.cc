#include "model/model.h"

#include <algorithm>
#include <cstring>

#include "core/memory.h"

namespace rlsd::model {

Model::Model(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads, uint64_t memory_limit,
             const Config& c, int64_t tokens)
    : config(c),
      layout(make_layout(c)),
      batch_tokens(tokens),
      device(table, ordinal, threads, memory_limit) {}

rlsd_status Model::create(const float* frequencies) {
  RLSD_CHECK(device.check_entries());
  const uint64_t half = static_cast<uint64_t>(config.head_dim / 2) * sizeof(float);
  /* The small block first: glibc gives a thread's very first block, if large, an arena that it
   * never gives back. */
  RLSD_CHECK(device.allocate(&inverse_frequencies, half, "Rotary frequencies"));
  RLSD_CHECK(device.allocate(&weights, static_cast<uint64_t>(layout.count) * sizeof(float),
                             "The model's weights"));
  RLSD_CHECK(device.upload(inverse_frequencies.floats(), frequencies, half));
  return device.zero(weights.floats(), layout.count);
}

void Model::release() {
  for (Buffer* buffer : {&weights, &gradient, &first_moment, &second_moment, &inverse_frequencies,
                         &activations.memory, &integers, &scores, &staging_}) {
    buffer->reset();
  }
  activations.tokens = 0;
  device.release();
}

rlsd_status Model::need_gradient() {
  if (!gradient.empty()) return RLSD_OK;
  RLSD_CHECK(device.allocate(&gradient, weights.bytes(), "The model's gradient"));
  return clear_gradient();
}

rlsd_status Model::clear_gradient() {
  return gradient.empty() ? RLSD_OK : device.zero(gradient.floats(), layout.count);
}

rlsd_status Model::need_moments() {
  for (Buffer* moment : {&first_moment, &second_moment}) {
    if (!moment->empty()) continue;
    RLSD_CHECK(device.allocate(moment, weights.bytes(), "AdamW's moments"));
    RLSD_CHECK(device.zero(moment->floats(), layout.count));
  }
  return RLSD_OK;
}

Buffer* Model::block_of(Block block) {
  switch (block) {
    case Block::kWeights:
      return &weights;
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
  float* const own = weights.floats();
  if (rate == 0.0) return device.copy(own, other.weights.floats(), layout.count);
  if (rate == 1.0) return RLSD_OK;
  /* own rate + other (1 - rate) = (own rate / (1 - rate) + other) (1 - rate) */
  const rlsd_backend_v1& table = device.table();
  RLSD_CHECK(table.scale(device.context(), vector(own, layout.count), rate / (1.0 - rate)));
  RLSD_CHECK(table.residual_add(device.context(), vector(own, layout.count),
                                vector(other.weights.floats(), layout.count)));
  return table.scale(device.context(), vector(own, layout.count), 1.0 - rate);
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
