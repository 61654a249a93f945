/* The resident row kernel: as the plain one, by the blocks of a cluster, for compute capability 9.0.
 *
 * Each block keeps its slice of the student's row in shared memory, copied there in bulk while the teacher is being
 * summed: student and teacher are read once, the gradient is written once, 6 bytes per element of 16 bits. Slices are
 * small enough for kResidentBlocks on a multiprocessor: rows overlap in their loads, sums and stores. Rows must start at
 * multiples of 16 bytes; any V. */
#include "cuda/run_row.cuh"

namespace rlsd::cuda {
namespace {

/* ---- helpers ------------------------------------------------------------------------------ */

#if RLSD_HAS_CLUSTERS
/* Starts the copy of the block's slice of the student's row; what is left below 16 bytes is copied by hand. */
template <class Team>
__device__ void start_copy(const RowCall& c, const Team& team, const RowTask& task) {
  const View& v = c.views[kStudent];
  const Slice slice = slice_of(v.vocab, team.rank(c), team.size(c));
  const int64_t width = element_bytes(v.dtype), begin = int64_t{slice.begin} * kVector, end = int64_t{slice.end} * kVector;
  const auto bytes = static_cast<int>(((end < v.vocab ? end : v.vocab) - begin) * width);
  const int bulk = bytes > 0 ? bytes / 16 * 16 : 0;
  const char* const from = v.data + v.row(task.token) * v.stride + begin * width;
  char* const to = team.template slice<char>();
  if (threadIdx.x == 0) {
    barrier_init(&team.shared()->barrier);
    barrier_expect(&team.shared()->barrier, static_cast<uint32_t>(bulk));
    if (bulk > 0) bulk_load(to, from, static_cast<uint32_t>(bulk), &team.shared()->barrier);
  }
  for (int i = bulk + 2 * static_cast<int>(threadIdx.x); i < bytes; i += 2 * kThreads) {
    *reinterpret_cast<uint16_t*>(to + i) = *reinterpret_cast<const uint16_t*>(from + i);
  }
  __syncthreads(); /* the barrier is there, and the rest of the slice */
}
#endif

/* ---- kernels ------------------------------------------------------------------------------ */

/* The blocks that a multiprocessor is to hold bound the registers; softcap needs them more than rows in flight. */
template <bool kShaped>
__global__ void __launch_bounds__(kThreads, kShaped ? 2 : kResidentBlocks)
    resident_rows_kernel(const __grid_constant__ RowCall c) {
#if RLSD_HAS_CLUSTERS
  if (c.control->error != kNoKey) return;
  const Team<true, kShaped> team;
  RowTask task;
  if (!find_task(c, team, blockIdx.x / static_cast<unsigned>(c.cluster), &task)) return;
  start_copy(c, team, task);
  run_row(c, team, task);
  barrier_wait(&team.shared()->barrier); /* also where the row was not read: no copy may outlive its block */
  if (c.cluster > 1) { /* a peer may still be reading this block's sums */
    cluster_arrive();
    cluster_wait();
  }
#endif
}

}  // namespace

/* ---- launchers ---------------------------------------------------------------------------- */

int resident_cluster(const RowCall& call) {
  const View& student = call.views[kStudent];
  if (student.data == nullptr || !student.aligned) return 0;
  return cluster_for(student.vocab, student.dtype, kControlBytes);
}

rlsd_status launch_resident_rows(rlsd_context* context, const RowCall& call) {
  const View& student = call.views[kStudent];
  auto* const kernel = call.options.is_shaped() ? resident_rows_kernel<true> : resident_rows_kernel<false>;
  const size_t shared = kControlBytes + static_cast<size_t>(slice_bytes(student.vocab, call.cluster, student.dtype));
  const auto* const function = reinterpret_cast<const void*>(kernel);
  RLSD_CUDA_CHECK(context,
                  cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                  "Could not reserve shared memory");
  /* All of it: with the default split a multiprocessor may hold fewer blocks than its memory has room for. */
  RLSD_CUDA_CHECK(context,
                  cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                       cudaSharedmemCarveoutMaxShared),
                  "Could not prefer shared memory");
  const Grid grid{static_cast<unsigned>(call.rows * call.cluster), static_cast<unsigned>(call.cluster), shared};
  return launch(context, "resident_rows_kernel", grid, kernel, call);
}

}  // namespace rlsd::cuda
