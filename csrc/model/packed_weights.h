/* A model's matrices as its backend's products read them, beside the weights, while it draws: a
 * step reads all of them for a few rows, which cannot pay for laying them out each time. No bit of
 * a result depends on whether they are here. */
#ifndef RLSD_MODEL_PACKED_WEIGHTS_H_
#define RLSD_MODEL_PACKED_WEIGHTS_H_

#include <cstdint>
#include <unordered_map>

#include "model/device.h"

namespace rlsd::model {

struct Model;

class PackedWeights {
 public:
  /* Packs what hidden states are multiplied by, where steps of `rows` rows gain by it and memory
   * is plenty. Weights that are packed already stay so. */
  rlsd_status make(Model* model, int64_t rows);
  /* By the matrix's place in the weights; NULL: it is not packed. */
  const void* at(int64_t offset) const;
  /* Gives the memory back; false: there was none. */
  bool drop();

  uint64_t bytes() const { return memory_.bytes(); }

 private:
  struct Matrix {
    rlsd_tensor weight;
    uint64_t at; /* bytes from the beginning of the memory */
  };
  using Matrices = std::unordered_map<int64_t, Matrix>;

  static rlsd_status measure(Model* model, int64_t rows, Matrices* matrices, uint64_t* bytes);
  rlsd_status pack(Model* model);

  Buffer memory_;
  Matrices matrices_; /* by offset in the weights */
};

}  // namespace rlsd::model

#endif
