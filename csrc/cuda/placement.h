/* By how many blocks a device keeps rows of one shape: asked of it once, remembered for the process. */
#ifndef RLSD_CUDA_PLACEMENT_H_
#define RLSD_CUDA_PLACEMENT_H_

#include <cstdint>

namespace rlsd::cuda {

/* What decides it. A process's share of a device (MIG, MPS) is fixed when its context is made. */
struct RowShape {
  int32_t device, dtype;
  int64_t vocab;
  bool shaped; /* softcap or rounding: another kernel */

  bool operator==(const RowShape& o) const {
    return device == o.device && dtype == o.dtype && vocab == o.vocab && shaped == o.shaped;
  }
};

struct Placement {
  int32_t cluster;   /* blocks that share a row; 0: rows cannot be kept */
  int32_t at_once;   /* rows on the device at a time */
  int32_t preferred; /* the cluster that tiling.h chose; 0: the row fits in none */
};

/* False where nothing is remembered of the shape. */
bool recall_placement(const RowShape& shape, Placement* placement);
void remember_placement(const RowShape& shape, const Placement& placement);

}  // namespace rlsd::cuda

#endif
