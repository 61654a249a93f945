/* How csrc/cuda cuts rows, over every width and dtype that matters: each column belongs to one block, slices fit in
 * shared memory, vectors stay aligned, and nothing depends on more than width, dtype and cluster. */
#include "cuda/tiling.h"

#include <cstdio>
#include <vector>

namespace {

using namespace rlsd::cuda;

constexpr int64_t kWidths[] = {1, 2, 3, 7, 8, 9, 255, 4096, 32000, 32001, 50257, 128256, 151936, 152064, 201088, 262144};
constexpr int32_t kDtypes[] = {RLSD_F32, RLSD_F16, RLSD_BF16};
constexpr int64_t kControl = 832; /* the most that row_team.cuh may take */

int failures = 0;

void expect(bool holds, const char* what, int64_t width, int cluster) {
  if (holds) return;
  ++failures;
  std::printf("%s: %lld columns, cluster of %d\n", what, static_cast<long long>(width), cluster);
}

void test_slices_cover_a_row_once(int64_t width, int cluster) {
  std::vector<int> owners(static_cast<size_t>(vectors_of(width)), 0);
  int last = 0;
  for (int rank = 0; rank < cluster; ++rank) {
    const Slice slice = slice_of(width, rank, cluster);
    expect(slice.begin == last && slice.end >= slice.begin, "slices follow one another", width, cluster);
    for (int vector = slice.begin; vector < slice.end; ++vector) ++owners[static_cast<size_t>(vector)];
    last = slice.end;
  }
  bool once = last == vectors_of(width);
  for (int count : owners) once = once && count == 1;
  expect(once, "each vector has one block", width, cluster);
  expect(int64_t{vectors_of(width)} * kVector >= width && int64_t{vectors_of(width) - 1} * kVector < width,
         "vectors cover the row and no more", width, cluster);
}

void test_slices_fit(int64_t width, int32_t dtype, SharedLimits shared) {
  const int cluster = cluster_for(width, dtype, kControl, shared);
  const int64_t row = width * rlsd::element_bytes(dtype);
  if (cluster == 0) {
    expect(row > kLargestCluster * (shared.per_block - kControl - 64), "a row that fits is kept", width, cluster);
    return;
  }
  const int64_t bytes = slice_bytes(width, cluster, dtype);
  expect(bytes + kControl <= shared.per_block, "a slice fits in a block's shared memory", width, cluster);
  for (int rank = 0; rank < cluster; ++rank) {
    const Slice slice = slice_of(width, rank, cluster);
    const int64_t needed = int64_t{slice.end - slice.begin} * kVector * rlsd::element_bytes(dtype);
    expect(needed <= bytes, "slice_bytes holds every slice", width, cluster);
    expect(int64_t{slice.begin} * kVector * rlsd::element_bytes(dtype) % 16 == 0, "slices start aligned", width, cluster);
  }
  if (cluster < kLargestCluster) {
    expect(kResidentBlocks * (bytes + kControl + kSharedReserved) <= shared.per_processor, "blocks are co-resident", width,
           cluster);
  }
}

/* Pieces of each slice follow one another, and deal a thread the vectors that the whole slice would. */
void test_pieces(int64_t width, int cluster) {
  constexpr int kStep = 1024, kTurn = 256;
  for (int rank = 0; rank < cluster; ++rank) {
    const Slice slice = slice_of(width, rank, cluster);
    int last = slice.begin;
    for (int piece = 0; piece < kPieces; ++piece) {
      const Slice part = piece_of(slice, kStep, piece);
      expect(part.begin == last && part.end >= part.begin, "pieces follow one another", width, cluster);
      expect(part.begin == part.end || (part.begin - slice.begin) % kTurn == 0, "pieces start a turn", width, cluster);
      last = part.end;
    }
    expect(last == slice.end, "pieces cover the slice", width, cluster);
  }
}

/* What is read ahead lies in the slice, also in rows of more bytes than an int counts. */
void test_bytes_ahead(int64_t width, int32_t dtype, int cluster) {
  int64_t all = 0;
  for (int rank = 0; rank < cluster; ++rank) {
    const Slice slice = slice_of(width, rank, cluster);
    const int64_t bytes = column_bytes(width, slice, dtype);
    const int64_t ahead = bytes_ahead(width, slice, dtype, 1 << 20);
    all += bytes;
    expect(ahead % 16 == 0 && ahead <= bytes && (ahead > bytes - 16 || ahead == 1 << 20), "what is read ahead", width, cluster);
  }
  expect(all == width * rlsd::element_bytes(dtype), "slices have the row's bytes", width, cluster);
}

/* Where a device has no room for a cluster, half of it holds the row or nothing does. */
void test_smaller_clusters(int64_t width, int32_t dtype, SharedLimits shared) {
  for (int cluster = kLargestCluster; cluster > 0;) {
    const int smaller = smaller_cluster(width, cluster, dtype, kControl, shared);
    expect(smaller == 0 || smaller == cluster / 2, "half a cluster", width, cluster);
    const bool fits = cluster > 1 && slice_bytes(width, cluster / 2, dtype) + kControl <= shared.per_block;
    expect((smaller > 0) == fits, "half a cluster holds the row", width, cluster);
    cluster = smaller;
  }
}

void test_known_clusters() {
  expect(cluster_for(32000, RLSD_BF16, kControl, kHopperShared) == 1, "32000 bf16 columns", 32000, 1);
  expect(cluster_for(128256, RLSD_BF16, kControl, kHopperShared) == 4, "128256 bf16 columns", 128256, 4);
  expect(cluster_for(151936, RLSD_BF16, kControl, kHopperShared) == 4, "151936 bf16 columns", 151936, 4);
  expect(cluster_for(262144, RLSD_BF16, kControl, kHopperShared) == 8, "262144 bf16 columns", 262144, 8);
  expect(cluster_for(1 << 20, RLSD_F32, kControl, kHopperShared) == 0, "a row too wide for shared memory", 1 << 20, 0);
}

void test_alignment() {
  alignas(16) char row[64] = {};
  expect(has_aligned_rows(row, 32) && !has_aligned_rows(row + 2, 32) && !has_aligned_rows(row, 34), "alignment", 0, 0);
}

}  // namespace

int main() {
  for (int64_t width : kWidths) {
    for (int cluster : {1, 2, 4, 8}) {
      test_slices_cover_a_row_once(width, cluster);
      test_pieces(width, cluster);
    }
    for (int32_t dtype : kDtypes) {
      for (int cluster : {1, 4, 8}) test_bytes_ahead(width, dtype, cluster);
      test_smaller_clusters(width, dtype, kHopperShared);
      test_slices_fit(width, dtype, kHopperShared);
      test_slices_fit(width, dtype, {100 * 1024, 99 * 1024}); /* compute capability 12.0 */
    }
  }
  test_bytes_ahead(600000000, RLSD_F32, 1);
  test_bytes_ahead(kMostColumns, RLSD_F32, 1);
  test_known_clusters();
  test_alignment();
  std::printf("%s\n", failures == 0 ? "passed" : "failed");
  return failures == 0 ? 0 : 1;
}
