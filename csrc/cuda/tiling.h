/* How a row of V columns is cut. Integers only, so that host tests reach every case.
 *
 * A vector is 8 columns: 16 bytes of a 16-bit type, 32 of float32. A row's vectors are dealt to the blocks of a cluster
 * in one run each; inside a run, thread t takes vectors t, t + kThreads, ... Which thread sums a column thus depends on
 * V and the cluster's size alone, never on an address: two views of one shape are summed in one order. */
#ifndef RLSD_CUDA_TILING_H_
#define RLSD_CUDA_TILING_H_

#include <cstdint>

#include "core/memory.h"
#include "rlsd/rlsd.h"

namespace rlsd::cuda {

constexpr int kVector = 8; /* columns */

/* Bytes of shared memory: of a multiprocessor, and the most that one block may ask for. Each resident block costs
 * kSharedReserved besides its own. */
struct SharedLimits {
  int64_t per_processor, per_block;
};
constexpr SharedLimits kHopperShared = {228 * 1024, 227 * 1024}; /* compute capability 9.0 */
constexpr int64_t kSharedReserved = 1024;
constexpr int kLargestCluster = 8; /* the largest that every device with clusters can place */
/* Rows in flight on a multiprocessor: while one computes, the others load and store. */
constexpr int kResidentBlocks = 3;
/* A slice is copied in at most so many pieces, and summed as they arrive. */
constexpr int kPieces = 4;

/* The widest row: places inside a row are ints, places of a row are 64 bits wide. */
constexpr int64_t kMostColumns = (int64_t{1} << 31) - 1 - 64 * kVector * 256;

RLSD_HD int vectors_of(int64_t columns) { return static_cast<int>((columns + kVector - 1) / kVector); }

struct Slice {
  int begin, end; /* vectors */
};

/* The vectors of block `rank` of `cluster`; later ranks may have none. */
RLSD_HD Slice slice_of(int64_t columns, int rank, int cluster) {
  const int vectors = vectors_of(columns);
  const int share = (vectors + cluster - 1) / cluster;
  const int begin = rank * share < vectors ? rank * share : vectors;
  return {begin, begin + share < vectors ? begin + share : vectors};
}

/* Bytes of shared memory for the largest slice. */
RLSD_HD int64_t slice_bytes(int64_t vocab, int cluster, int32_t dtype) {
  return static_cast<int64_t>((vectors_of(vocab) + cluster - 1) / cluster) * kVector * element_bytes(dtype);
}

/* Bytes of a slice's vectors that are columns of the row. */
RLSD_HD int64_t column_bytes(int64_t columns, Slice slice, int32_t dtype) {
  const int64_t begin = int64_t{slice.begin} * kVector, end = int64_t{slice.end} * kVector;
  return end <= begin ? 0 : ((end < columns ? end : columns) - begin) * element_bytes(dtype);
}

/* What of them is asked for ahead, at most `most`: whole lines of 16 bytes. */
RLSD_HD uint32_t bytes_ahead(int64_t columns, Slice slice, int32_t dtype, int32_t most) {
  const int64_t bytes = column_bytes(columns, slice, dtype) / 16 * 16;
  return static_cast<uint32_t>(bytes < most ? bytes : most);
}

/* Vectors of each piece of a slice but the last: a multiple of `step`, so that the pieces deal a thread the vectors that
 * the whole slice would. */
RLSD_HD int piece_vectors(Slice slice, int step) {
  return (slice.end - slice.begin + kPieces * step - 1) / (kPieces * step) * step;
}

RLSD_HD Slice piece_of(Slice slice, int step, int piece) {
  const int share = piece_vectors(slice, step);
  const int begin = slice.begin + piece * share < slice.end ? slice.begin + piece * share : slice.end;
  return {begin, begin + share < slice.end ? begin + share : slice.end};
}

/* Whether one block's slice of a row fits in its shared memory beside `control` bytes. */
inline bool holds_slice(int64_t vocab, int cluster, int32_t dtype, int64_t control, SharedLimits shared) {
  return slice_bytes(vocab, cluster, dtype) + control <= shared.per_block;
}

/* Blocks that share a row resident in shared memory beside `control` bytes each: the fewest that leave room for
 * kResidentBlocks on a multiprocessor, else the most; 0 when even those cannot hold it. */
inline int cluster_for(int64_t vocab, int32_t dtype, int64_t control, SharedLimits shared) {
  const int64_t comfortable = shared.per_processor / kResidentBlocks - kSharedReserved;
  for (int cluster = 1; cluster <= kLargestCluster; cluster *= 2) {
    const bool fits = holds_slice(vocab, cluster, dtype, control, shared);
    if (fits && slice_bytes(vocab, cluster, dtype) + control <= comfortable) return cluster;
  }
  return holds_slice(vocab, kLargestCluster, dtype, control, shared) ? kLargestCluster : 0;
}

/* Where a device has no room for `cluster` blocks side by side: half of them, with larger slices; 0 where those do not
 * fit in a block. */
inline int smaller_cluster(int64_t vocab, int cluster, int32_t dtype, int64_t control, SharedLimits shared) {
  const int half = cluster / 2;
  return half > 0 && holds_slice(vocab, half, dtype, control, shared) ? half : 0;
}

/* True when every row starts at a multiple of 16 bytes. */
inline bool has_aligned_rows(const void* data, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride_bytes % 16 == 0;
}

}  // namespace rlsd::cuda

#endif
