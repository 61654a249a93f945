#include "cpu/packed_weight.h"

#include <algorithm>

#include "core/cancel.h"
#include "core/error.h"
#include "core/memory.h"
#include "cpu/matmul.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {
namespace {

/* Elements that a thread packs at a time, some 100 us of work: a look at the flag before each. */
constexpr int64_t kTaskElements = int64_t{1} << 19;

rlsd_status check_weight(rlsd_context* context, const rlsd_tensor& w) {
  if (w.rank == 2 && is_float(w.dtype)) return RLSD_OK;
  return fail(context, RLSD_INVALID_ARGUMENT, -1,
              "pack_weight: expected a matrix of floats but received rank %d, dtype %d.", w.rank, w.dtype);
}

}  // namespace

MatrixView matrix_from(const MatrixView& view, int64_t line, int64_t k) {
  MatrixView part = view;
  part.data = static_cast<const char*>(view.data) +
              (line * view.line_stride + k * view.k_stride) * element_bytes(view.dtype);
  return part;
}

int64_t sliver_floats(const MatmulKernels& kernels, int64_t depth) {
  return ceil_div(depth, kernels.step) * kernels.columns;
}

void pack_slivers(const MatmulKernels& kernels, const MatrixView& b, int64_t lines, int64_t depth, float* to) {
  const int64_t floats = sliver_floats(kernels, depth);
  for (int64_t j = 0; j < lines; j += kernels.columns, to += floats) {
    kernels.pack_b[b.dtype](to, matrix_from(b, j, 0), std::min<int64_t>(kernels.columns, lines - j), depth);
  }
}

const float* packed_sliver(const MatmulKernels& kernels, const float* packed, int64_t n, int64_t depth, int64_t line,
                           int64_t k) {
  const int64_t slivers = ceil_div(n, kernels.columns);
  return packed + k / kBlockK * slivers * sliver_floats(kernels, kBlockK) +
         line / kernels.columns * sliver_floats(kernels, std::min(kBlockK, depth - k));
}

rlsd_status packed_weight_bytes(rlsd_context* context, rlsd_tensor w, int64_t rows, uint64_t* bytes) {
  const rlsd_status status = check_weight(context, w);
  if (status != RLSD_OK) return status;
  const MatmulKernels& kernels = matmul_kernels_of(context);
  /* More rows are limited by packing; few of them by what they read, which should be narrower then. */
  const int64_t width = static_cast<int64_t>(sizeof(float)) / kernels.step, held = element_bytes(w.dtype);
  const bool gains = rows > kMostFewRows || width < held;
  const int64_t blocks = w.shape[1] / kBlockK, rest = w.shape[1] % kBlockK;
  const int64_t floats = blocks * sliver_floats(kernels, kBlockK) + sliver_floats(kernels, rest);
  *bytes = gains ? static_cast<uint64_t>(ceil_div(w.shape[0], kernels.columns) * floats) * sizeof(float) : 0;
  return RLSD_OK;
}

rlsd_status pack_weight(rlsd_context* context, void* packed, rlsd_tensor w) {
  const rlsd_status status = check_weight(context, w);
  if (status != RLSD_OK) return status;
  const MatmulKernels& kernels = matmul_kernels_of(context);
  const int64_t n = w.shape[0], depth = w.shape[1];
  if (n == 0 || depth == 0) return RLSD_OK;
  const MatrixView lines = {w.data, w.dtype, w.stride[0], 1};
  const int64_t slivers = std::max<int64_t>(1, kTaskElements / (std::min(depth, kBlockK) * kernels.columns));
  const int64_t height = slivers * kernels.columns, groups = ceil_div(n, height);
  const auto cancelled = [context] { return is_raised(context->cancel); };
  const rlsd_status done = parallel_for(context, groups * ceil_div(depth, kBlockK), [&](int64_t i) {
    if (cancelled()) return;
    const int64_t line = i % groups * height, k = i / groups * kBlockK;
    float* const to = const_cast<float*>(packed_sliver(kernels, static_cast<float*>(packed), n, depth, line, k));
    pack_slivers(kernels, matrix_from(lines, line, k), std::min(height, n - line), std::min(kBlockK, depth - k), to);
  });
  return done == RLSD_OK && cancelled() ? RLSD_CANCELLED : done;
}

}  // namespace rlsd::cpu
