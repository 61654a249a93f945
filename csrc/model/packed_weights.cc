#include "model/packed_weights.h"

#include <utility>

#include "model/batch.h"
#include "model/model.h"

namespace rlsd::model {
namespace {

/* Of the memory that may still be used: the rest is for keys, values and activations. */
constexpr uint64_t kShare = 4;

}  // namespace

/* Places for all matrices; 0 bytes where there is nothing to gain. */
rlsd_status PackedWeights::measure(Model* m, int64_t rows, Matrices* matrices, uint64_t* bytes) {
  const rlsd_backend_v1& table = m->device.table();
  const auto add = [&](int64_t offset, rlsd_tensor weight) {
    uint64_t own = 0;
    RLSD_CHECK(table.packed_weight_bytes(m->device.context(), weight, rows, &own));
    if (own == 0) return RLSD_OK;
    (*matrices)[offset] = {weight, *bytes};
    *bytes += Staging::padded(own);
    return RLSD_OK;
  };
  for (const LayerOffsets& layer : m->layout.layers) {
    for (const LinearOffsets& w : layer.linear) {
      RLSD_CHECK(add(w.weight, m->weight(w.weight, w.out, w.in)));
    }
  }
  return add(m->layout.head, m->head());
}

rlsd_status PackedWeights::pack(Model* m) {
  auto* const memory = static_cast<char*>(memory_.data());
  for (const auto& [offset, matrix] : matrices_) {
    RLSD_CHECK(
        m->device.table().pack_weight(m->device.context(), memory + matrix.at, matrix.weight));
  }
  return RLSD_OK;
}

rlsd_status PackedWeights::make(Model* m, int64_t rows) {
  if (!memory_.empty() || m->device.table().pack_weight == nullptr) return RLSD_OK;
  Matrices matrices;
  uint64_t bytes = 0;
  RLSD_CHECK(measure(m, rows, &matrices, &bytes));
  if (bytes == 0 || bytes > m->device.available() / kShare) return RLSD_OK;
  const rlsd_status allocated = m->device.allocate(&memory_, bytes, "Packed weights");
  if (allocated != RLSD_OK) return allocated == RLSD_OUT_OF_MEMORY ? RLSD_OK : allocated;
  matrices_ = std::move(matrices);
  const rlsd_status packed = pack(m);
  if (packed != RLSD_OK) drop();
  return packed;
}

const void* PackedWeights::at(int64_t offset) const {
  const auto found = matrices_.find(offset);
  return found == matrices_.end() ? nullptr
                                  : static_cast<const char*>(memory_.data()) + found->second.at;
}

bool PackedWeights::drop() {
  const bool any = !memory_.empty();
  memory_.reset();
  matrices_.clear();
  return any;
}

}  // namespace rlsd::model
