#include "cpu/matmul_few_rows.h"

#include <algorithm>

#include "core/cancel.h"
#include "core/memory.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {
namespace {

/* Elements of op(B) that a thread reads between two looks at the flag, and below which it is not joined by others: some
 * 100 us, and some 10. */
constexpr int64_t kBlockWork = int64_t{1} << 20, kSerialWork = int64_t{1} << 17;

int64_t least_lines() { return matmul_kernels().columns / 2; }

int64_t packed_floats(const MatmulProblem& p) { return ceil_div(p.k, kBlockK) * kSliverFloats; }

/* The most lines of a part, whose bias a thread keeps on its stack. */
constexpr int64_t kPartLines = 2048;

/* Parts of op(B)'s lines, each of at least the kernels' width. */
int64_t count_parts(const MatmulProblem& p, int64_t slots) {
  const int64_t work = p.n * std::max<int64_t>(p.k, 1);
  const int64_t wanted = work < kSerialWork ? 1 : std::max(3 * slots, ceil_div(work, kBlockWork));
  return std::clamp(wanted, ceil_div(p.n, kPartLines), p.n / least_lines());
}

const void* elements_from(const MatrixView& view, int64_t elements) {
  return static_cast<const char*>(view.data) + elements * element_bytes(view.dtype);
}

}  // namespace

bool has_few_rows(const MatmulProblem& p) {
  return p.packed == nullptr && p.m <= kMostFewRows && p.n >= least_lines() && p.a.k_stride == 1 && p.b.k_stride == 1 &&
         p.c_dtype == RLSD_F32;
}

int64_t few_rows_scratch_bytes(const MatmulProblem& p) {
  if (p.m > kMostFewRows) return 0;
  return round_up(packed_floats(p) * static_cast<int64_t>(sizeof(float)), 64);
}

rlsd_status multiply_few_rows(rlsd_context* context, const MatmulProblem& p, void* scratch) {
  auto* const packed = static_cast<float*>(scratch);
  for (int64_t k = 0; k < p.k; k += kBlockK) {
    MatrixView rows = p.a;
    rows.data = elements_from(p.a, k);
    float* const sliver = packed + k / kBlockK * kSliverFloats;
    p.kernels->pack_a[p.a.dtype](sliver, rows, p.m, std::min(kBlockK, p.k - k));
    std::fill(sliver + p.m * kSliverStride, sliver + kSliverFloats, 0.0f);
  }
  const int64_t parts = count_parts(p, loop_threads(context));
  const FewRowsFn multiply = p.kernels->few_rows[p.b.dtype][p.m - 1];
  const auto cancelled = [&p] { return is_raised(p.cancel); };
  const rlsd_status status = parallel_for(context, parts, [&](int64_t i) {
    if (cancelled()) return;
    const int64_t first = p.n * i / parts, end = p.n * (i + 1) / parts;
    MatrixView lines = p.b;
    lines.data = elements_from(p.b, first * p.b.line_stride);
    float bias[kPartLines];
    if (p.bias != nullptr) {
      const void* from = static_cast<const char*>(p.bias) + first * element_bytes(p.bias_dtype);
      p.kernels->widen[p.bias_dtype](bias, from, end - first);
    }
    multiply({packed, static_cast<int>(p.m), lines, p.k, p.beta, p.bias == nullptr ? nullptr : bias,
              static_cast<float*>(p.c) + first, p.c_stride, end - first});
  });
  return status == RLSD_OK && cancelled() ? RLSD_CANCELLED : status;
}

}  // namespace rlsd::cpu
