/* The resident row kernel: as the plain one, by the blocks of a cluster, for compute capability 9.0 and newer.
 *
 * Each block keeps its slice of the student's row in shared memory, copied there in bulk while the teacher is being
 * summed: student and teacher are read once, the gradient is written once, 6 bytes per element of 16 bits. Slices are
 * small enough for kResidentBlocks on a multiprocessor: rows overlap in their loads, sums and stores. A block that has
 * its own row asks the L2 cache for the start of the row that comes next, so that memory has work while sums and scores
 * are found. Rows must start at multiples of 16 bytes; any V. */
#include <algorithm>
#include <cstdlib>

#include "cuda/placement.h"
#include "cuda/run_row.cuh"

namespace rlsd::cuda {
namespace {

/* ---- helpers ------------------------------------------------------------------------------ */

#if RLSD_HAS_CLUSTERS

/* Of a slice that fits in shared memory. */
__device__ __forceinline__ int bytes_of(const View& v, Slice slice) {
  return static_cast<int>(column_bytes(v.vocab, slice, v.dtype));
}

__device__ __forceinline__ int64_t vector_bytes(const View& v) { return kVector * element_bytes(v.dtype); }

/* The blocks of a cluster, each of which keeps a slice of the student's row. */
template <bool kShaped>
struct ResidentTeam : Team<true, kShaped> {
  using Base = Team<true, kShaped>;

  /* Starts the copies of the block's slice of the student's row; what is left below 16 bytes is copied by hand. */
  __device__ static void start(const RowCall& c, int64_t row) {
    const View& v = c.views[kStudent];
    const Slice slice = Base::slice_of(c, v.vocab);
    const char* const from = row_address(v, row) + slice.begin * vector_bytes(v);
    char* const to = Base::template kept<char>();
    if (threadIdx.x == 0) copy_pieces(v, slice, from, to);
    const int bytes = bytes_of(v, slice);
    for (int i = bytes / 16 * 16 + 2 * static_cast<int>(threadIdx.x); i < bytes; i += 2 * kThreads) {
      *reinterpret_cast<uint16_t*>(to + i) = *reinterpret_cast<const uint16_t*>(from + i);
    }
    plan_next_row(c, row);
  }

  __device__ static void copy_pieces(const View& v, Slice slice, const char* from, char* to) {
    RowShared* const s = Base::shared();
    for (int piece = 0; piece < kPieces; ++piece) barrier_init(&s->barriers[piece]);
    barriers_ready();
    for (int piece = 0; piece < kPieces; ++piece) {
      const Slice part = piece_of(slice, kPieceStep, piece);
      if (part.begin == part.end) break;
      const int64_t offset = (part.begin - slice.begin) * vector_bytes(v);
      const auto bulk = static_cast<uint32_t>(bytes_of(v, part) / 16 * 16);
      barrier_expect(&s->barriers[piece], bulk);
      if (bulk > 0) bulk_load(to + offset, from + offset, bulk, &s->barriers[piece]);
    }
  }

  /* This thread has used what it read of its peers' sums. Said before the gradient, so that nobody waits at the end. */
  __device__ __forceinline__ static void release_peers(const RowCall& c) {
    if (c.cluster == 1) return;
    __syncwarp(); /* the cluster's barrier takes whole warps */
    cluster_arrive_relaxed();
  }

  /* No copy may outlive its block, and no block a peer that reads its sums. */
  __device__ static void finish(const RowCall& c) {
    const Slice slice = Base::slice_of(c, c.views[kStudent].vocab);
    for (int piece = 0; piece < kPieces; ++piece) {
      const Slice part = piece_of(slice, kPieceStep, piece);
      if (part.begin != part.end) barrier_wait(&Base::shared()->barriers[piece]);
    }
    if (c.cluster == 1) return;
    __syncwarp();
    cluster_wait();
  }

  /* A warp finds each view's row of the task that comes next on these multiprocessors; the caller's barrier makes it known. */
  __device__ static void plan_next_row(const RowCall& c, int64_t row) {
    const int view = static_cast<int>(threadIdx.x) - 3 * kWarp;
    if (view < 0 || view >= kViews) return;
    int32_t next = -1;
    if (c.prefetch_bytes > 0 && row + c.rows_at_once < c.rows && scores_view(c, view) && c.views[view].aligned) {
      const RowTask task = c.tasks[row + c.rows_at_once];
      const bool read = task.token != kNoToken && task.token != kMaskedToken && task.skipped == 0;
      if (read) next = static_cast<int32_t>(c.views[view].row(task.token));
    }
    Base::shared()->next_rows[view] = next;
  }

  /* The block's own row has arrived. */
  __device__ __forceinline__ static void next_row(const RowCall& c) {
    const int view = static_cast<int>(threadIdx.x) - 3 * kWarp;
    if (view < 0 || view >= kViews || Base::shared()->next_rows[view] < 0) return;
    const View& v = c.views[view];
    const Slice slice = Base::slice_of(c, v.vocab);
    const uint32_t ahead = bytes_ahead(v.vocab, slice, v.dtype, c.prefetch_bytes);
    if (ahead > 0) bulk_prefetch(row_address(v, Base::shared()->next_rows[view]) + slice.begin * vector_bytes(v), ahead);
  }
};

#endif

/* ---- kernels ------------------------------------------------------------------------------ */

/* The blocks that a multiprocessor is to hold bound the registers. */
template <bool kShaped>
__global__ void __launch_bounds__(kThreads, kResidentBlocks) resident_rows_kernel(const __grid_constant__ RowCall c) {
#if RLSD_HAS_CLUSTERS
  const int64_t row = blockIdx.x / static_cast<unsigned>(c.cluster);
  const RowTask task = c.tasks[row];
  if (c.control->error != kNoKey) return;
  const ResidentTeam<kShaped> team;
  if (leave_row(c, team, row, task)) return;
  if (run_row(c, team, row, task)) team.finish(c);
#endif
}

using RowKernel = void (*)(RowCall);

RowKernel kernel_of(const RowCall& call) {
  return call.options.is_shaped() ? resident_rows_kernel<true> : resident_rows_kernel<false>;
}

size_t shared_bytes(const RowCall& call) {
  const View& student = call.views[kStudent];
  return kControlBytes + static_cast<size_t>(slice_bytes(student.vocab, call.cluster, student.dtype));
}

/* Bytes of each view's slice that a block asks the L2 cache for ahead: what memory can bring while a block finds its
 * scores, and little enough that the cache keeps it. RLSD_CUDA_PREFETCH_KIB: another number of KiB, 0 to 1024. */
int32_t prefetch_bytes() {
  constexpr long kDefaultKib = 16, kMostKib = 1024;
  const char* const given = std::getenv("RLSD_CUDA_PREFETCH_KIB");
  const long kib = given != nullptr ? std::strtol(given, nullptr, 10) : kDefaultKib;
  return static_cast<int32_t>(std::clamp(kib, 0L, kMostKib) * 1024);
}

rlsd_status read_limits(rlsd_context* context, SharedLimits* limits) {
  int per_processor = 0, per_block = 0;
  const auto ask = [&](cudaDeviceAttr attribute, int* value) {
    return to_status(context, cudaDeviceGetAttribute(value, attribute, context->device), "Could not read the device");
  };
  rlsd_status status = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor, &per_processor);
  if (status == RLSD_OK) status = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin, &per_block);
  *limits = {per_processor, per_block};
  return status;
}

/* The function's attributes are the device's limits, not this call's needs: other threads launch it with other sizes. Set
 * by each call: another library of the process may have reset the device. */
rlsd_status prepare_function(rlsd_context* context, const void* function, int64_t per_block) {
  RLSD_CUDA_CHECK(context,
                  cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(per_block)),
                  "Could not reserve shared memory");
  /* All of it: with the default split a multiprocessor may hold fewer blocks than its memory has room for. */
  RLSD_CUDA_CHECK(context,
                  cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                       cudaSharedmemCarveoutMaxShared),
                  "Could not prefer shared memory");
  return RLSD_OK;
}

Grid grid_of(const RowCall& call) {
  return {static_cast<unsigned>(call.rows * call.cluster), static_cast<unsigned>(call.cluster), shared_bytes(call)};
}

/* Rows of call.cluster blocks that the device, or the part of it that this process has, holds at a time; 0: none. The
 * runtime's answer; where it has none, an estimate that leaves the decision to the launch. */
rlsd_status rows_at_once(rlsd_context* context, const RowCall& call, SharedLimits limits, int32_t* at_once) {
  int processors = 0, found = 0;
  RLSD_CUDA_CHECK(context, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, context->device),
                  "Could not read the device");
  const cudaError_t error = active_clusters(kernel_of(call), grid_of(call), processors, &found);
  if (error != cudaSuccess) cudaGetLastError();
  if (poisons(error)) return to_status(context, error, "Could not ask how many rows fit");
  const int64_t fit = limits.per_processor / (static_cast<int64_t>(shared_bytes(call)) + kSharedReserved);
  const int64_t estimate = processors * std::clamp<int64_t>(fit, 1, kResidentBlocks) / call.cluster;
  *at_once = error == cudaSuccess ? found : has_no_room(error) ? 0 : static_cast<int32_t>(std::max<int64_t>(1, estimate));
  return RLSD_OK;
}

RowShape shape_of(const rlsd_context* context, const RowCall& call) {
  const View& student = call.views[kStudent];
  return {context->device, student.dtype, student.vocab, call.options.is_shaped()};
}

/* The largest cluster from `cluster` blocks down that the device has room for. */
rlsd_status fit_cluster(rlsd_context* context, RowCall call, int cluster, SharedLimits limits, Placement* placement) {
  const View& student = call.views[kStudent];
  for (call.cluster = cluster; call.cluster > 0;
       call.cluster = smaller_cluster(student.vocab, call.cluster, student.dtype, kControlBytes, limits)) {
    const rlsd_status status = rows_at_once(context, call, limits, &placement->at_once);
    if (status != RLSD_OK || placement->at_once > 0) {
      placement->cluster = call.cluster;
      return status;
    }
  }
  placement->cluster = 0;
  return RLSD_OK;
}

rlsd_status find_placement(rlsd_context* context, const RowCall& call, SharedLimits limits, Placement* placement) {
  const View& student = call.views[kStudent];
  *placement = {};
  cudaFuncAttributes attributes{};
  RLSD_CUDA_CHECK(context, cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel_of(call))),
                  "Could not read what the kernel was compiled for");
  if (attributes.ptxVersion < 90) return RLSD_OK; /* its body is empty: there were no clusters to compile for */
  placement->preferred = cluster_for(student.vocab, student.dtype, kControlBytes, limits);
  return fit_cluster(context, call, placement->preferred, limits, placement);
}

/* After a launch that was refused: what else the device may have room for, for this call and those that follow. */
rlsd_status shrink_cluster(rlsd_context* context, RowCall* call) {
  const View& student = call->views[kStudent];
  SharedLimits limits;
  rlsd_status status = read_limits(context, &limits);
  if (status != RLSD_OK) return status;
  const int smaller = smaller_cluster(student.vocab, call->cluster, student.dtype, kControlBytes, limits);
  Placement placement{0, 0, call->preferred_cluster};
  status = fit_cluster(context, *call, smaller, limits, &placement);
  if (status != RLSD_OK) return status;
  call->cluster = placement.cluster;
  call->rows_at_once = placement.at_once;
  remember_placement(shape_of(context, *call), placement);
  return RLSD_OK;
}

}  // namespace

/* ---- launchers ---------------------------------------------------------------------------- */

rlsd_status plan_resident_rows(rlsd_context* context, RowCall* call) {
  const View& student = call->views[kStudent];
  call->cluster = 0;
  if (student.data == nullptr || !student.aligned) return RLSD_OK;
  SharedLimits limits;
  rlsd_status status = read_limits(context, &limits);
  if (status == RLSD_OK) {
    status = prepare_function(context, reinterpret_cast<const void*>(kernel_of(*call)), limits.per_block);
  }
  if (status != RLSD_OK) return status;
  const RowShape shape = shape_of(context, *call);
  Placement placement;
  if (!recall_placement(shape, &placement)) {
    status = find_placement(context, *call, limits, &placement);
    if (status != RLSD_OK) return status;
    remember_placement(shape, placement);
  }
  call->cluster = placement.cluster;
  call->preferred_cluster = placement.preferred;
  call->rows_at_once = placement.at_once;
  call->prefetch_bytes = prefetch_bytes();
  return RLSD_OK;
}

rlsd_status launch_resident_rows(rlsd_context* context, RowCall* call) {
  while (call->cluster > 0) {
    const cudaError_t error = try_launch(context, grid_of(*call), kernel_of(*call), *call);
    if (!has_no_room(error)) return to_status(context, error, "resident_rows_kernel");
    cudaGetLastError();
    const rlsd_status status = shrink_cluster(context, call);
    if (status != RLSD_OK) return status;
  }
  return RLSD_OK;
}

}  // namespace rlsd::cuda
