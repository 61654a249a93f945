#ifndef RLSD_CUDA_MEMORY_H_
#define RLSD_CUDA_MEMORY_H_

#include "rlsd/rlsd.h"

namespace rlsd::cuda {

/* Fills the table's entries for devices, memory, streams, events and handles between processes. */
void fill_memory_entries(rlsd_backend_v1* table);

}  // namespace rlsd::cuda

#endif
