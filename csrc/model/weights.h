/* The parameters of a model in one block: matrices in float32 or in the 16-bit type of the files
 * they came from, then norms and biases in float32. Products widen as they read, exactly, so that
 * the type decides how much memory is held and read, and no bit of a result. While it is a 16-bit
 * type, that type has every parameter exactly, norms and biases too. */
#ifndef RLSD_MODEL_WEIGHTS_H_
#define RLSD_MODEL_WEIGHTS_H_

#include <cstdint>

#include "model/device.h"
#include "model/layout.h"

namespace rlsd::model {

/* A view of `count` elements of some type. */
rlsd_tensor typed(const void* data, int64_t count, int32_t dtype);

/* Several models may read it; its memory is given back with the last of them. */
struct Weights {
  Weights(const rlsd_context& place, const rlsd_backend_v1* table, uint64_t memory_limit,
          const ParameterBlock& layout);

  /* Memory of `type` for the matrices, all 0, and the rotary frequencies. */
  rlsd_status create(const float* frequencies, int64_t frequency_count, int32_t type);
  /* Makes the matrices float32; `bytes`: what may be taken for that. */
  rlsd_status widen(uint64_t bytes);

  /* What all of them take with matrices of that type. */
  uint64_t bytes_as(int32_t type) const;
  int32_t type_at(int64_t offset) const { return offset < matrices ? dtype : RLSD_F32; }
  void* address(int64_t offset) const;
  /* Elements from `offset` on, of at most `most`, that have its type. */
  int64_t alike(int64_t offset, int64_t most) const;
  /* Elements of one type. */
  rlsd_tensor range(int64_t offset, int64_t elements) const {
    return typed(address(offset), elements, type_at(offset));
  }

  Device device; /* owns the buffers: they go first */
  Buffer inverse_frequencies, block;
  const int64_t matrices, count; /* elements, gaps included */
  int32_t dtype = RLSD_F32;      /* of the matrices */
};

}  // namespace rlsd::model

#endif
