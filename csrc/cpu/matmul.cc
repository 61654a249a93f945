/* C is cut into blocks, each computed by one thread (matmul_block.h); of few rows, matmul_few_rows.h. */
#include "cpu/matmul.h"

#include <algorithm>
#include <atomic>

#include "core/cancel.h"
#include "core/error.h"
#include "core/memory.h"
#include "cpu/matmul_block.h"
#include "cpu/matmul_few_rows.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {
namespace {

/* Multiply-adds below which waking a thread costs more than it brings (about 10 us of one core). */
constexpr int64_t kSerialWork = int64_t{1} << 19;
/* Rows below which packing B again for another block of rows would be felt (more than a tenth of the work). */
constexpr int64_t kFewRows = 112;
/* Columns below which packing A again for another block of columns would be felt. */
constexpr int64_t kFewColumns = 128;

struct Grid {
  int64_t height, width;
  int64_t rows, columns; /* blocks */
};

/* Blocks that `slots` threads should share: several each, as some may be slower than others. */
int64_t wanted_blocks(const MatmulProblem& p, int64_t slots) {
  const bool small = p.m * p.n < kSerialWork && p.m * p.n * std::max<int64_t>(p.k, 1) < kSerialWork;
  return slots == 1 || small ? 1 : 3 * slots;
}

Grid plan(const MatmulProblem& p, int64_t slots) {
  const int64_t tile_columns = matmul_kernels().columns, wanted = wanted_blocks(p, slots);
  int64_t columns = ceil_div(p.n, most_block_columns(p));
  int64_t rows = std::clamp<int64_t>(ceil_div(wanted, columns), 1, ceil_div(p.m, kFewRows));
  if (rows * columns < wanted) {
    columns = std::max(columns, std::min(ceil_div(wanted, rows), ceil_div(p.n, kFewColumns)));
    if (rows * columns < slots) columns = std::min(ceil_div(slots, rows), ceil_div(p.n, tile_columns));
  }
  Grid grid;
  grid.width = round_up(ceil_div(p.n, columns), tile_columns);
  grid.height = std::min(round_up(ceil_div(p.m, rows), matmul_kernels().rows), most_block_rows(p));
  grid.columns = ceil_div(p.n, grid.width);
  grid.rows = ceil_div(p.m, grid.height);
  return grid;
}

/* op(X) as lines: rows of op(A) when `lines_are_rows`, columns of op(B) otherwise. */
MatrixView view_of(const rlsd_tensor& x, bool lines_are_rows) {
  return lines_are_rows ? MatrixView{x.data, x.dtype, x.stride[0], 1} : MatrixView{x.data, x.dtype, 1, x.stride[0]};
}

rlsd_status make_problem(rlsd_context* context, const rlsd_tensor& c, const rlsd_tensor& a, const rlsd_tensor& b,
                         bool transpose_a, bool transpose_b, MatmulProblem* p) {
  if (c.rank != 2 || a.rank != 2 || b.rank != 2) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "matmul: expected matrices but received ranks %d, %d and %d.",
                c.rank, a.rank, b.rank);
  }
  if (!is_float(c.dtype) || !is_float(a.dtype) || !is_float(b.dtype)) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "matmul: expected float matrices but received dtypes %d, %d, %d.",
                c.dtype, a.dtype, b.dtype);
  }
  *p = {};
  p->m = c.shape[0];
  p->n = c.shape[1];
  p->k = transpose_a ? a.shape[0] : a.shape[1];
  const int64_t a_m = transpose_a ? a.shape[1] : a.shape[0];
  const int64_t b_k = transpose_b ? b.shape[1] : b.shape[0], b_n = transpose_b ? b.shape[0] : b.shape[1];
  if (a_m != p->m || b_k != p->k || b_n != p->n) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1,
                "matmul: expected (%lld, K) times (K, %lld) but received (%lld, %lld) times (%lld, %lld).",
                static_cast<long long>(p->m), static_cast<long long>(p->n), static_cast<long long>(a_m),
                static_cast<long long>(p->k), static_cast<long long>(b_k), static_cast<long long>(b_n));
  }
  p->a = view_of(a, !transpose_a);
  p->b = view_of(b, transpose_b);
  p->c = c.data;
  p->c_dtype = c.dtype;
  p->c_stride = c.stride[0];
  return RLSD_OK;
}

/* The rest of a problem, on the context's workspace. */
rlsd_status add_bias_and_multiply(rlsd_context* context, MatmulProblem* problem, rlsd_tensor bias, double beta) {
  if (bias.data != nullptr && (bias.rank != 1 || bias.shape[0] != problem->n || !is_float(bias.dtype))) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "matmul: expected a bias of %lld floats but received %lld.",
                static_cast<long long>(problem->n), static_cast<long long>(bias.shape[0]));
  }
  const uint64_t needed = static_cast<uint64_t>(matmul_scratch_bytes(context, *problem));
  if (context->workspace_bytes < needed) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "matmul: expected a workspace of %llu bytes but received %llu.",
                static_cast<unsigned long long>(needed), static_cast<unsigned long long>(context->workspace_bytes));
  }
  problem->bias = bias.data;
  problem->bias_dtype = bias.dtype;
  problem->beta = static_cast<float>(beta);
  return matmul_parallel(context, *problem, context->workspace);
}

}  // namespace

const MatmulKernels& matmul_kernels_of(const rlsd_context* context) {
  return context->matmul_dtype == RLSD_BF16 ? bf16_matmul_kernels() : matmul_kernels();
}

int64_t matmul_scratch_bytes(const rlsd_context* context, const MatmulProblem& p) {
  /* Whether rows are few depends on packing too, which who asks for a workspace does not say. */
  return std::max(few_rows_scratch_bytes(p), loop_threads(context) * block_scratch_bytes(p));
}

rlsd_status matmul_parallel(rlsd_context* context, const MatmulProblem& given, void* scratch) {
  if (given.m == 0 || given.n == 0) return RLSD_OK;
  MatmulProblem problem = given;
  problem.cancel = context->cancel;
  problem.kernels = &matmul_kernels_of(context);
  if (has_few_rows(problem)) return multiply_few_rows(context, problem, scratch);
  const int64_t slots = loop_threads(context);
  const Grid grid = plan(problem, slots);
  const int64_t blocks = grid.rows * grid.columns, bytes = block_scratch_bytes(problem);
  char* const own = static_cast<char*>(scratch);
  const auto cancelled = [&problem] { return is_raised(problem.cancel); };
  /* A task is a scratch, not a block: threads take blocks as they come, and no element minds which. A block begins by
   * packing and a 16-bit one ends by being written, neither of which polls: with many blocks left that alone takes long. */
  std::atomic<int64_t> next{0};
  const rlsd_status status = parallel_for(context, std::min(slots, blocks), [&](int64_t slot) {
    for (int64_t i = next++; i < blocks && !cancelled(); i = next++) {
      const int64_t row = i / grid.columns * grid.height, column = i % grid.columns * grid.width;
      const MatmulBlock block = {row, std::min(grid.height, problem.m - row), column,
                                 std::min(grid.width, problem.n - column)};
      multiply_block(problem, block, own + slot * bytes);
    }
  });
  return status == RLSD_OK && cancelled() ? RLSD_CANCELLED : status;
}

rlsd_status matmul_workspace(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, int32_t transpose_a,
                             int32_t transpose_b, uint64_t* bytes) {
  MatmulProblem problem;
  const rlsd_status status = make_problem(context, c, a, b, transpose_a != 0, transpose_b != 0, &problem);
  if (status != RLSD_OK) return status;
  *bytes = static_cast<uint64_t>(matmul_scratch_bytes(context, problem));
  return RLSD_OK;
}

rlsd_status matmul(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias,
                   int32_t transpose_a, int32_t transpose_b, double beta) {
  MatmulProblem problem;
  const rlsd_status status = make_problem(context, c, a, b, transpose_a != 0, transpose_b != 0, &problem);
  return status == RLSD_OK ? add_bias_and_multiply(context, &problem, bias, beta) : status;
}

rlsd_status matmul_packed(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor w, const void* packed,
                          rlsd_tensor bias, double beta) {
  MatmulProblem problem;
  const rlsd_status status = make_problem(context, c, a, w, false, true, &problem);
  problem.packed = static_cast<const float*>(packed);
  return status == RLSD_OK ? add_bias_and_multiply(context, &problem, bias, beta) : status;
}

}  // namespace rlsd::cpu
