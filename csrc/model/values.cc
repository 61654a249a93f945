/* A model's values as others have them: written, read, copied, blended and merged. */
#include <algorithm>
#include <cstring>

#include "core/memory.h"
#include "model/model.h"

namespace rlsd::model {
namespace {

/* Elements that are widened at a time where there is room for some alone. */
constexpr int64_t kChunk = int64_t{1} << 20;

uint64_t bytes_of(int64_t count, int32_t dtype) {
  return static_cast<uint64_t>(count * element_bytes(dtype));
}

}  // namespace

const Buffer& Model::block_of(Block block) const {
  switch (block) {
    case Block::kWeights:
      return adapter;
    case Block::kGradient:
      return gradient;
    case Block::kFirstMoment:
      return first_moment;
    default:
      return second_moment;
  }
}

/* Host elements of some type into memory of that type, or of float32. */
rlsd_status Model::store(rlsd_tensor to, int32_t dtype, const void* from) {
  const uint64_t bytes = bytes_of(to.shape[0], dtype);
  if (to.dtype == dtype) return device.upload(to.data, from, bytes);
  RLSD_CHECK(device.reserve(&staging_, bytes, "Staging memory"));
  RLSD_CHECK(device.upload(staging_.data(), from, bytes));
  return device.table().convert(device.context(), to, typed(staging_.data(), to.shape[0], dtype));
}

/* Memory of some type as host elements of any: a 16-bit type becomes another one by way of
 * float32. */
rlsd_status Model::fetch(rlsd_tensor from, int32_t dtype, void* to) {
  const int64_t count = from.shape[0];
  const uint64_t bytes = bytes_of(count, dtype);
  if (from.dtype == dtype) return device.download(to, from.data, bytes);
  const bool twice = from.dtype != RLSD_F32 && dtype != RLSD_F32;
  const uint64_t wide = twice ? bytes_of(count, RLSD_F32) : 0;
  RLSD_CHECK(device.reserve(&staging_, wide + bytes, "Staging memory"));
  if (twice) {
    const rlsd_tensor floats = vector(staging_.floats(), count);
    RLSD_CHECK(device.table().convert(device.context(), floats, from));
    from = floats;
  }
  const rlsd_tensor result = typed(static_cast<char*>(staging_.data()) + wide, count, dtype);
  RLSD_CHECK(device.table().convert(device.context(), result, from));
  return device.download(to, result.data, bytes);
}

rlsd_status Model::write(Block block, int64_t offset, int64_t count, int32_t dtype,
                         const void* from) {
  if (block == Block::kWeights && !config.has_adapters()) {
    RLSD_CHECK(check_own());
    weights_change();
    const bool as_held = weights->dtype == dtype && weights->alike(offset, count) == count;
    if (!as_held) RLSD_CHECK(widen());
    return store(weights->range(offset, count), dtype, from);
  }
  if (block == Block::kWeights) weights_change();
  if (block == Block::kFirstMoment || block == Block::kSecondMoment) RLSD_CHECK(need_moments());
  if (block == Block::kGradient) RLSD_CHECK(need_gradient());
  return store(vector(block_of(block).floats() + offset, count), dtype, from);
}

rlsd_status Model::read(Block block, int64_t offset, int64_t count, int32_t dtype, void* to) {
  if (block == Block::kWeights && !config.has_adapters()) {
    const int64_t first = weights->alike(offset, count);
    RLSD_CHECK(fetch(weights->range(offset, first), dtype, to));
    if (first == count) return RLSD_OK;
    void* const rest = static_cast<char*>(to) + bytes_of(first, dtype);
    return fetch(weights->range(offset + first, count - first), dtype, rest);
  }
  const bool cleared = block == Block::kGradient && gradient_cleared_;
  if (cleared || block_of(block).empty()) { /* nothing was accumulated yet */
    std::memset(to, 0, bytes_of(count, dtype));
    return RLSD_OK;
  }
  return fetch(vector(block_of(block).floats() + offset, count), dtype, to);
}

/* own rate + theirs (1 - rate) = (own rate / (1 - rate) + theirs) (1 - rate) */
rlsd_status Model::blend(float* own, const float* theirs, int64_t count, double rate) {
  if (rate == 0.0) return device.copy(own, theirs, count);
  const rlsd_backend_v1& table = device.table();
  RLSD_CHECK(table.scale(device.context(), vector(own, count), rate / (1.0 - rate)));
  RLSD_CHECK(table.residual_add(device.context(), vector(own, count), vector(theirs, count)));
  return table.scale(device.context(), vector(own, count), 1.0 - rate);
}

rlsd_status Model::copy_from(Model& other, double rate) {
  RLSD_CHECK(check_own());
  if (rate == 1.0) return RLSD_OK;
  weights_change();
  if (!config.has_adapters()) return copy_weights(*other.weights, rate);
  return blend(adapter.floats(), other.adapter.floats(), adapters.count, rate);
}

/* Weights = from (1 - rate) + own rate; of the same type they are copied as they are. */
rlsd_status Model::copy_weights(const Weights& from, double rate) {
  if (rate == 0.0 && weights->dtype == from.dtype) {
    return device.table().copy(device.context(), weights->block.data(), from.block.data(),
                               from.block.bytes(), RLSD_DEVICE_TO_DEVICE);
  }
  RLSD_CHECK(widen());
  float* const own = weights->block.floats();
  int64_t begin = 0;
  for (int64_t n; from.dtype != RLSD_F32 && begin < from.matrices; begin += n) {
    n = std::min(kChunk, from.matrices - begin);
    RLSD_CHECK(device.reserve(&staging_, bytes_of(n, RLSD_F32), "Staging memory"));
    RLSD_CHECK(device.table().convert(device.context(), vector(staging_.floats(), n),
                                      from.range(begin, n)));
    RLSD_CHECK(blend(own + begin, staging_.floats(), n, rate));
  }
  const auto* const rest = static_cast<const float*>(from.address(begin));
  return blend(own + begin, rest, from.count - begin, rate);
}

rlsd_status Model::merge(Model& source) {
  RLSD_CHECK(check_own());
  weights_change();
  RLSD_CHECK(copy_weights(*source.weights, 0.0));
  RLSD_CHECK(widen());
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
  return device.matmul(weight(w.weight, w.out, w.in), matrix(scaled, w.out, rank),
                       matrix(source.adapter_at(at.a), rank, w.in), false, false, 1.0);
}

}  // namespace rlsd::model
