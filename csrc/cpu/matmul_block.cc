#include "cpu/matmul_block.h"

#include <algorithm>

#include "core/cancel.h"
#include "core/memory.h"
#include "cpu/packed_weight.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kMaxTileColumns = 32;
/* Floats of B that a block packs at a time, and of C that it works on through several passes over K: half a megabyte
 * each, so that they stay in cache. */
constexpr int64_t kBlockFloats = int64_t{1} << 17;
constexpr int64_t kMaxColumns = 2048;
/* Slivers of A packed at once where its rows lie across k: a sliver alone would use a fraction of each cache line. */
constexpr int64_t kPanelSlivers = 4;
/* Where C is a 16-bit type, the rows of a block, and the columns. */
constexpr int64_t kNarrowRows = 512, kNarrowColumns = 512;

/* One thread's scratch, in floats; every part starts at a cache line. */
struct Scratch {
  float* panel; /* of A */
  float* b;     /* (block columns, depth), in slivers */
  float* bias;  /* (block columns) */
  float* edge;  /* a tile of C that is narrower than a register tile */
  float* c;     /* the block, where C is a 16-bit type */
};

constexpr int64_t kPanelPart = kPanelSlivers * kSliverFloats;
constexpr int64_t kEdgePart = kMaxTileRows * kMaxTileColumns;
static_assert(kSliverFloats % 16 == 0, "scratch parts are whole cache lines");

Scratch split_scratch(void* scratch) {
  Scratch s;
  s.panel = static_cast<float*>(scratch);
  s.b = s.panel + kPanelPart;
  s.bias = s.b + kBlockFloats;
  s.edge = s.bias + kMaxColumns;
  s.c = s.edge + kEdgePart;
  return s;
}

/* A tile narrower than the register tile goes through a padded copy of C: the same instructions, same bits. */
void edge_tile(TileFn fn, const float* a, const float* b, int64_t steps, const TileTarget& target, int64_t rows,
               int64_t width, int64_t columns, float* edge, Ahead* ahead) {
  float bias[kMaxTileColumns] = {};
  if (target.bias != nullptr) std::copy_n(target.bias, width, bias);
  for (int64_t i = 0; i < rows; ++i) {
    std::fill_n(edge + i * columns, columns, 0.0f);
    if (target.beta != 0) std::copy_n(target.c + i * target.stride, width, edge + i * columns);
  }
  fn(a, b, steps, {edge, columns, target.beta, target.bias != nullptr ? bias : nullptr}, ahead);
  for (int64_t i = 0; i < rows; ++i) std::copy_n(edge + i * columns, width, target.c + i * target.stride);
}

/* The cache lines that packing `lines` lines of `depth` will read. */
Ahead lines_of(const MatrixView& view, int64_t line, int64_t lines, int64_t k, int64_t depth) {
  const int64_t width = element_bytes(view.dtype);
  const bool by_line = view.k_stride == 1;
  Ahead ahead = {};
  ahead.row = static_cast<const char*>(matrix_from(view, line, k).data);
  ahead.row_bytes = (by_line ? depth : lines) * width;
  ahead.row_stride = (by_line ? view.line_stride : view.k_stride) * width;
  ahead.lines = (by_line ? lines : depth) * ceil_div(ahead.row_bytes, 64);
  return ahead;
}

/* The cache lines of slivers that lie packed. */
Ahead lines_of(const float* slivers, int64_t floats) {
  const int64_t bytes = floats * static_cast<int64_t>(sizeof(float));
  return {reinterpret_cast<const char*>(slivers), 0, bytes, 0, ceil_div(bytes, 64)};
}

/* A block of C in float32, its first element at c. */
struct Block {
  const MatmulProblem& p;
  MatmulBlock at;
  float* c;
  int64_t c_stride;
  const float* bias;
  const Scratch& s;

  bool cancelled() const { return is_raised(p.cancel); }
  int64_t depth_at(int64_t k) const { return std::min(kBlockK, p.k - k); }

  /* The slivers of B from k on, packed here where they are not yet. */
  const float* slivers_at(int64_t k) const {
    if (p.packed != nullptr) return packed_sliver(*p.kernels, p.packed, p.n, p.k, at.column, k);
    pack_slivers(*p.kernels, matrix_from(p.b, at.column, k), at.columns, depth_at(k), s.b);
    return s.b;
  }

  /* What the next slivers of B will be read from. */
  Ahead lines_from(int64_t k) const {
    const int64_t depth = depth_at(k);
    if (p.packed == nullptr || depth == 0) return lines_of(p.b, at.column, at.columns, k, depth);
    const int64_t floats = sliver_floats(*p.kernels, depth) * ceil_div(at.columns, p.kernels->columns);
    return lines_of(packed_sliver(*p.kernels, p.packed, p.n, p.k, at.column, k), floats);
  }

  /* Rows [i, i + height) of the block; `sliver` holds their part of A, `b` the slivers of B. */
  void tiles(int64_t i, int64_t height, const float* sliver, const float* b, int64_t k, Ahead* next_a,
             Ahead* next_b) const {
    const MatmulKernels& kernels = *p.kernels;
    const int64_t steps = ceil_div(depth_at(k), kernels.step), half = kernels.columns / 2;
    for (int64_t j = 0; j < at.columns; j += kernels.columns, b += steps * kernels.columns) {
      const int64_t width = std::min<int64_t>(kernels.columns, at.columns - j);
      const TileTarget target = {c + i * c_stride + j, c_stride, k == 0 ? p.beta : 1.0f,
                                 k == 0 && bias != nullptr ? bias + j : nullptr};
      Ahead* ahead = next_a->lines > 0 ? next_a : next_b;
      const TileFn fn = kernels.tile[width > half][p.a.k_stride == 1 ? 1 : 0][height - 1];
      const int64_t tile_width = width > half ? kernels.columns : half;
      if (width == tile_width) {
        fn(sliver, b, steps, target, ahead);
      } else {
        edge_tile(fn, sliver, b, steps, target, height, width, tile_width, s.edge, ahead);
      }
    }
  }

  void deep_block(int64_t k) const {
    const int64_t tile = p.kernels->rows, panel = p.a.k_stride == 1 ? tile : kPanelSlivers * tile;
    const int64_t depth = depth_at(k), next_depth = depth_at(k + depth);
    const float* const b = slivers_at(k);
    Ahead next_b = lines_from(k + depth);
    const int64_t share = ceil_div(next_b.lines, ceil_div(at.rows, tile));
    for (int64_t i = 0; i < at.rows && !cancelled(); i += panel) {
      const int64_t height = std::min(panel, at.rows - i), next = i + height;
      p.kernels->pack_a[p.a.dtype](s.panel, matrix_from(p.a, at.row + i, k), height, depth);
      Ahead next_a = next < at.rows ? lines_of(p.a, at.row + next, std::min(panel, at.rows - next), k, depth)
                                    : lines_of(p.a, at.row, std::min(panel, at.rows), k + depth, next_depth);
      for (int64_t r = 0; r < height; r += tile) {
        next_b.lines = share;
        tiles(i + r, std::min(tile, height - r), s.panel + r / tile * kSliverFloats, b, k, &next_a, &next_b);
      }
    }
  }

  void multiply() const {
    int64_t k = 0;
    do {
      deep_block(k);
      k += kBlockK;
    } while (k < p.k && !cancelled());
  }
};

/* The bias of a block's columns in float32; NULL where there is none. */
const float* read_bias(const MatmulProblem& p, const MatmulBlock& at, float* to) {
  if (p.bias == nullptr) return nullptr;
  matmul_kernels().widen[p.bias_dtype](
      to, static_cast<const char*>(p.bias) + at.column * element_bytes(p.bias_dtype), at.columns);
  return to;
}

}  // namespace

int64_t most_block_columns(const MatmulProblem& p) {
  if (p.c_dtype != RLSD_F32) return kNarrowColumns;
  const MatmulKernels& kernels = matmul_kernels();
  const int64_t depth = std::clamp<int64_t>(p.k, 1, kBlockK);
  return std::min(kMaxColumns, kBlockFloats / depth) / kernels.columns * kernels.columns;
}

int64_t most_block_rows(const MatmulProblem& p) {
  if (p.c_dtype != RLSD_F32) return kNarrowRows;
  /* Several passes over a block of C: it should stay in cache. */
  const int64_t tile = matmul_kernels().rows;
  return p.k > kBlockK ? round_up(kBlockFloats / std::min(p.n, most_block_columns(p)), tile) : round_up(p.m, tile);
}

int64_t block_scratch_bytes(const MatmulProblem& p) {
  int64_t floats = kPanelPart + kBlockFloats + kMaxColumns + kEdgePart;
  if (p.c_dtype != RLSD_F32) floats += std::min(kNarrowRows, p.m) * kNarrowColumns;
  return round_up(floats * static_cast<int64_t>(sizeof(float)), 64);
}

void multiply_block(const MatmulProblem& p, const MatmulBlock& at, void* scratch) {
  const Scratch s = split_scratch(scratch);
  const float* bias = read_bias(p, at, s.bias);
  if (p.c_dtype == RLSD_F32) {
    float* c = static_cast<float*>(p.c) + at.row * p.c_stride + at.column;
    return Block{p, at, c, p.c_stride, bias, s}.multiply();
  }
  const MatmulKernels& kernels = matmul_kernels();
  uint16_t* c = static_cast<uint16_t*>(p.c) + at.row * p.c_stride + at.column;
  if (p.beta != 0) {
    for (int64_t i = 0; i < at.rows; ++i) kernels.widen[p.c_dtype](s.c + i * at.columns, c + i * p.c_stride, at.columns);
  }
  Block{p, at, s.c, at.columns, bias, s}.multiply();
  for (int64_t i = 0; i < at.rows; ++i) kernels.narrow[p.c_dtype](c + i * p.c_stride, s.c + i * at.columns, at.columns);
}

}  // namespace rlsd::cpu
