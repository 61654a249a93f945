#include "model/weights.h"

#include <algorithm>
#include <utility>

#include "core/memory.h"

namespace rlsd::model {

rlsd_tensor typed(const void* data, int64_t count, int32_t dtype) {
  rlsd_tensor t = vector(static_cast<const float*>(data), count);
  t.dtype = dtype;
  return t;
}

Weights::Weights(const rlsd_context& place, const rlsd_backend_v1* table, uint64_t memory_limit,
                 const ParameterBlock& layout)
    : device(table, place.device, place.threads, memory_limit),
      matrices(layout.decaying),
      count(layout.count) {}

uint64_t Weights::bytes_as(int32_t type) const {
  return static_cast<uint64_t>(matrices * element_bytes(type) +
                               (count - matrices) * element_bytes(RLSD_F32));
}

void* Weights::address(int64_t offset) const {
  const int64_t narrow = std::min(offset, matrices), wide = offset - narrow;
  return static_cast<char*>(block.data()) + narrow * element_bytes(dtype) +
         wide * element_bytes(RLSD_F32);
}

int64_t Weights::alike(int64_t offset, int64_t most) const {
  if (dtype == RLSD_F32 || offset >= matrices) return most;
  return std::min(most, matrices - offset);
}

rlsd_status Weights::create(const float* frequencies, int64_t frequency_count, int32_t type) {
  const uint64_t bytes = static_cast<uint64_t>(frequency_count) * sizeof(float);
  /* The small block first: glibc gives a thread's very first block, if large, an arena that it
   * never gives back. */
  RLSD_CHECK(device.allocate(&inverse_frequencies, bytes, "Rotary frequencies"));
  RLSD_CHECK(device.allocate(&block, bytes_as(type), "The model's weights"));
  dtype = type;
  RLSD_CHECK(device.upload(inverse_frequencies.floats(), frequencies, bytes));
  return device.table().fill_zero(device.context(), block.data(), block.bytes());
}

rlsd_status Weights::widen(uint64_t bytes) {
  if (dtype == RLSD_F32) return RLSD_OK;
  const uint64_t needed = bytes_as(RLSD_F32);
  if (needed > bytes) {
    return device.fail(RLSD_OUT_OF_MEMORY,
                       "The weights need %llu bytes as float32, in which they are trained; %llu "
                       "are free.",
                       static_cast<unsigned long long>(needed),
                       static_cast<unsigned long long>(bytes));
  }
  Buffer whole;
  RLSD_CHECK(device.allocate(&whole, needed, "The model's weights"));
  RLSD_CHECK(device.table().convert(device.context(), vector(whole.floats(), matrices),
                                    range(0, matrices)));
  RLSD_CHECK(device.copy(whole.floats() + matrices, static_cast<float*>(address(matrices)),
                         count - matrices));
  block = std::move(whole);
  dtype = RLSD_F32;
  return RLSD_OK;
}

}  // namespace rlsd::model
