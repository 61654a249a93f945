/* C is cut into blocks of at most 512 columns, each computed by one thread with scratch of its own:
 *
 *   for each kBlockK deep block of the sums:
 *     pack the block's part of B                      (stays in the second-level cache)
 *     for each sliver of rows: pack A                 (stays in the first-level cache)
 *       for each sliver of columns: one register tile of C
 *
 * Packing is repeated by neighbouring blocks instead of being shared, so that threads never wait for each other. */
#include "cpu/matmul.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/error.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kMaxTileColumns = 32;
/* Multiply-adds below which waking a thread costs more than it brings (about 10 us of one core). */
constexpr int64_t kSerialWork = int64_t{1} << 19;
/* Rows below which packing B again for another block of rows would be felt (more than a tenth of the work). */
constexpr int64_t kFewRows = 112;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* Floats of C that a block works on through several passes over K: half a megabyte, so that they stay in cache. */
constexpr int64_t kBlockFloats = int64_t{1} << 17;

/* One thread's scratch, in floats; every part starts at a cache line. */
struct Scratch {
  float* sliver;  /* of A */
  float* b;       /* (block columns, kBlockK), in slivers */
  float* bias;    /* (block columns) */
  float* edge;    /* a tile of C that is narrower than a register tile */
  float* c;       /* (rows, block columns) where C is a 16-bit type */
};

constexpr int64_t kSliverPart = kSliverFloats;
constexpr int64_t kBPart = kMatmulBlockColumns * kBlockK;
constexpr int64_t kBiasPart = kMatmulBlockColumns;
constexpr int64_t kEdgePart = kMaxTileRows * kMaxTileColumns;
static_assert(kSliverPart % 16 == 0, "scratch parts are whole cache lines");

int64_t temporary_floats(const MatmulProblem& p) {
  if (p.c_dtype == RLSD_F32) return 0;
  return std::min(kMatmulBlockRows, p.m) * kMatmulBlockColumns;
}

Scratch split_scratch(void* scratch) {
  float* at = static_cast<float*>(scratch);
  Scratch s;
  s.sliver = at;
  s.b = s.sliver + kSliverPart;
  s.bias = s.b + kBPart;
  s.edge = s.bias + kBiasPart;
  s.c = s.edge + kEdgePart;
  return s;
}

MatrixView from_line(const MatrixView& view, int64_t line, int64_t k) {
  const int64_t width = view.dtype == RLSD_F32 ? 4 : 2;
  MatrixView part = view;
  part.data = static_cast<const char*>(view.data) + (line * view.line_stride + k * view.k_stride) * width;
  return part;
}

/* A tile narrower than the register tile goes through a padded copy of C: the same instructions, same bits. */
void edge_tile(TileFn fn, const float* a, const float* b, int64_t depth, const TileTarget& target, int64_t rows,
               int64_t width, int64_t columns, float* edge, Ahead* ahead) {
  float bias[kMaxTileColumns] = {};
  if (target.bias != nullptr) std::copy_n(target.bias, width, bias);
  for (int64_t i = 0; i < rows; ++i) {
    std::fill_n(edge + i * columns, columns, 0.0f);
    if (target.beta != 0) std::copy_n(target.c + i * target.stride, width, edge + i * columns);
  }
  fn(a, b, depth, {edge, columns, target.beta, target.bias != nullptr ? bias : nullptr}, ahead);
  for (int64_t i = 0; i < rows; ++i) std::copy_n(edge + i * columns, width, target.c + i * target.stride);
}

/* The cache lines that packing `lines` lines of `depth` will read. */
Ahead lines_of(const MatrixView& view, int64_t line, int64_t lines, int64_t k, int64_t depth) {
  const int64_t width = view.dtype == RLSD_F32 ? 4 : 2;
  const bool by_line = view.k_stride == 1;
  Ahead ahead = {};
  ahead.row = static_cast<const char*>(from_line(view, line, k).data);
  ahead.row_bytes = (by_line ? depth : lines) * width;
  ahead.row_stride = (by_line ? view.line_stride : view.k_stride) * width;
  ahead.lines = (by_line ? lines : depth) * ceil_div(ahead.row_bytes, 64);
  return ahead;
}

/* One block of C in float32: rows [0, rows) of c. */
struct Block {
  const MatmulProblem& p;
  int64_t row, rows, column, columns;
  float* c;
  int64_t c_stride;
  const float* bias;
  const Scratch& s;

  bool cancelled() const { return p.cancel != nullptr && *p.cancel != 0; }

  void pack_b(int64_t k, int64_t depth) const {
    const int64_t width = matmul_kernels().columns;
    for (int64_t j = 0; j < columns; j += width) {
      matmul_kernels().pack_b[p.b.dtype](s.b + j * kBlockK, from_line(p.b, column + j, k),
                                         std::min(width, columns - j), depth);
    }
  }

  /* Rows [i, i + height) of the block; s.sliver holds their part of A. */
  void tiles(int64_t i, int64_t height, int64_t k, int64_t depth, Ahead* next_a, Ahead* next_b) const {
    const MatmulKernels& kernels = matmul_kernels();
    const TileFn fn = kernels.tile[p.a.k_stride == 1 ? 1 : 0][height - 1];
    for (int64_t j = 0; j < columns; j += kernels.columns) {
      const int64_t width = std::min<int64_t>(kernels.columns, columns - j);
      const TileTarget target = {c + i * c_stride + j, c_stride, k == 0 ? p.beta : 1.0f,
                                 k == 0 && bias != nullptr ? bias + j : nullptr};
      Ahead* ahead = next_a->lines > 0 ? next_a : next_b;
      if (width == kernels.columns) {
        fn(s.sliver, s.b + j * kBlockK, depth, target, ahead);
      } else {
        edge_tile(fn, s.sliver, s.b + j * kBlockK, depth, target, height, width, kernels.columns, s.edge, ahead);
      }
    }
  }

  void deep_block(int64_t k) const {
    const int64_t tile_rows = matmul_kernels().rows;
    const int64_t depth = std::min(kBlockK, p.k - k), next_depth = std::min(kBlockK, p.k - k - depth);
    pack_b(k, depth);
    Ahead next_b = lines_of(p.b, column, columns, k + depth, next_depth);
    const int64_t share = ceil_div(next_b.lines, ceil_div(rows, tile_rows));
    for (int64_t i = 0; i < rows && !cancelled(); i += tile_rows) {
      const int64_t height = std::min(tile_rows, rows - i), next = i + height;
      matmul_kernels().pack_a[p.a.dtype](s.sliver, from_line(p.a, row + i, k), height, depth);
      Ahead next_a = next < rows ? lines_of(p.a, row + next, std::min(tile_rows, rows - next), k, depth)
                                 : lines_of(p.a, row, std::min(tile_rows, rows), k + depth, next_depth);
      next_b.lines = share;
      tiles(i, height, k, depth, &next_a, &next_b);
    }
  }
};

void sum_blocks(const Block& block) {
  int64_t k = 0;
  do {
    block.deep_block(k);
    k += kBlockK;
  } while (k < block.p.k && !block.cancelled());
}

struct Grid {
  int64_t height, width;
  int64_t rows, columns; /* blocks */
};

Grid plan(const MatmulProblem& p, int64_t slots) {
  const int64_t tile_columns = matmul_kernels().columns;
  const bool small = p.m * p.n < kSerialWork && p.m * p.n * std::max<int64_t>(p.k, 1) < kSerialWork;
  const int64_t wanted = slots == 1 || small ? 1 : 3 * slots;
  int64_t columns = ceil_div(p.n, kMatmulBlockColumns);
  int64_t rows = std::clamp<int64_t>(ceil_div(wanted, columns), 1, ceil_div(p.m, kFewRows));
  if (p.c_dtype != RLSD_F32) rows = std::max(rows, ceil_div(p.m, kMatmulBlockRows));
  if (wanted > 1 && rows * columns < slots) {
    columns = std::min(ceil_div(slots, rows), ceil_div(p.n, tile_columns));
  }
  Grid grid;
  grid.width = round_up(ceil_div(p.n, columns), tile_columns);
  grid.height = round_up(ceil_div(p.m, rows), matmul_kernels().rows);
  if (p.c_dtype != RLSD_F32) grid.height = std::min(grid.height, kMatmulBlockRows);
  if (p.k > kBlockK) {
    const int64_t rows_in_cache = std::max(kMatmulBlockRows, kBlockFloats / grid.width);
    grid.height = std::min(grid.height, round_up(rows_in_cache, matmul_kernels().rows));
  }
  grid.columns = ceil_div(p.n, grid.width);
  grid.rows = ceil_div(p.m, grid.height);
  return grid;
}

bool is_float(int32_t dtype) { return dtype == RLSD_F32 || dtype == RLSD_F16 || dtype == RLSD_BF16; }

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

}  // namespace

int64_t matmul_scratch_bytes(const MatmulProblem& problem) {
  const int64_t floats = kSliverPart + kBPart + kBiasPart + kEdgePart + temporary_floats(problem);
  return round_up(floats * static_cast<int64_t>(sizeof(float)), 64);
}

int64_t matmul_slots(const rlsd_context* context) {
  const int64_t pool = pool_size();
  return context->threads > 0 ? std::min<int64_t>(context->threads, pool) : pool;
}

void matmul_block(const MatmulProblem& p, int64_t row, int64_t rows, int64_t column, int64_t columns, void* scratch) {
  const MatmulKernels& kernels = matmul_kernels();
  const Scratch s = split_scratch(scratch);
  const float* bias = nullptr;
  if (p.bias != nullptr) {
    const int64_t width = p.bias_dtype == RLSD_F32 ? 4 : 2;
    kernels.widen[p.bias_dtype](s.bias, static_cast<const char*>(p.bias) + column * width, columns);
    bias = s.bias;
  }
  if (p.c_dtype == RLSD_F32) {
    float* c = static_cast<float*>(p.c) + row * p.c_stride + column;
    sum_blocks({p, row, rows, column, columns, c, p.c_stride, bias, s});
    return;
  }
  uint16_t* c = static_cast<uint16_t*>(p.c) + row * p.c_stride + column;
  if (p.beta != 0) {
    for (int64_t i = 0; i < rows; ++i) kernels.widen[p.c_dtype](s.c + i * columns, c + i * p.c_stride, columns);
  }
  sum_blocks({p, row, rows, column, columns, s.c, columns, bias, s});
  for (int64_t i = 0; i < rows; ++i) kernels.narrow[p.c_dtype](c + i * p.c_stride, s.c + i * columns, columns);
}

rlsd_status matmul_parallel(rlsd_context* context, const MatmulProblem& given, void* scratch) {
  if (given.m == 0 || given.n == 0) return RLSD_OK;
  MatmulProblem problem = given;
  problem.cancel = context->cancel;
  const int64_t slots = matmul_slots(context);
  const Grid grid = plan(problem, slots);
  const int64_t blocks = grid.rows * grid.columns, bytes = matmul_scratch_bytes(problem);
  /* A task is a scratch, not a block: threads take blocks as they come, and no element minds which. */
  std::atomic<int64_t> next{0};
  const rlsd_status status = parallel_for(context, std::min(slots, blocks), [&](int64_t slot) {
    for (int64_t block = next++; block < blocks; block = next++) {
      const int64_t row = block / grid.columns * grid.height, column = block % grid.columns * grid.width;
      matmul_block(problem, row, std::min(grid.height, problem.m - row), column,
                   std::min(grid.width, problem.n - column), static_cast<char*>(scratch) + slot * bytes);
    }
  });
  return status == RLSD_OK && problem.cancel != nullptr && *problem.cancel != 0 ? RLSD_CANCELLED : status;
}

rlsd_status matmul_workspace(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, int32_t transpose_a,
                             int32_t transpose_b, uint64_t* bytes) {
  MatmulProblem problem;
  const rlsd_status status = make_problem(context, c, a, b, transpose_a != 0, transpose_b != 0, &problem);
  if (status != RLSD_OK) return status;
  *bytes = static_cast<uint64_t>(matmul_slots(context) * matmul_scratch_bytes(problem));
  return RLSD_OK;
}

rlsd_status matmul(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias,
                   int32_t transpose_a, int32_t transpose_b, double beta) {
  MatmulProblem problem;
  const rlsd_status status = make_problem(context, c, a, b, transpose_a != 0, transpose_b != 0, &problem);
  if (status != RLSD_OK) return status;
  if (bias.data != nullptr && (bias.rank != 1 || bias.shape[0] != problem.n || !is_float(bias.dtype))) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "matmul: expected a bias of %lld floats but received %lld.",
                static_cast<long long>(problem.n), static_cast<long long>(bias.shape[0]));
  }
  problem.bias = bias.data;
  problem.bias_dtype = bias.dtype;
  problem.beta = static_cast<float>(beta);
  const uint64_t needed = static_cast<uint64_t>(matmul_slots(context) * matmul_scratch_bytes(problem));
  if (context->workspace_bytes < needed) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "matmul: expected a workspace of %llu bytes but received %llu.",
                static_cast<unsigned long long>(needed), static_cast<unsigned long long>(context->workspace_bytes));
  }
  return matmul_parallel(context, problem, context->workspace);
}

}  // namespace rlsd::cpu
