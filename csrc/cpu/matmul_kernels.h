/* Register-tile kernels of the matrix product, one set per instruction set, chosen once at run time.
 *
 * A product is cut in tiles of at most `rows` x `columns` elements of C. The operands of a tile are packed
 * first: A as a sliver of `rows` rows, B as a sliver of `columns` columns, both kBlockK deep, in float32, or in pairs
 * of bfloat16 where a product may be that exact alone.
 *
 * Contract that the decoder relies on: element (i, j) is the result of one fixed sequence of operations
 * that depends on row i of op(a), column j of op(b) and K alone. Within a block of kBlockK it is one chain
 * of multiply-adds from 0 in the order of k; the blocks are added to beta * c + bias in their order. Tile
 * height, neighbours, padding and threads do not enter. */
#ifndef RLSD_CPU_MATMUL_KERNELS_H_
#define RLSD_CPU_MATMUL_KERNELS_H_

#include <cstdint>

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

/* Depth of one block of sums. Part of the contract above: changing it changes results in the last bits.
 * 256 keeps a sliver of B (32 KiB at 32 columns) in the first-level cache. */
constexpr int64_t kBlockK = 256;
/* Floats between rows of a row-major sliver of A: not a power of two, so that the rows of a sliver do not
 * fall into one cache set. */
constexpr int64_t kSliverStride = kBlockK + 16;
/* Floats between columns of a column-major sliver of A. */
constexpr int64_t kSliverRows = 16;
constexpr int64_t kSliverFloats = kSliverRows * kSliverStride;

/* An operand: element (line, k), where a line is a row of op(A) or a column of op(B).
 * One of the two strides, counted in elements, is 1. */
struct MatrixView {
  const void* data;
  int32_t dtype;
  int64_t line_stride;
  int64_t k_stride;
};

/* C tile = beta * C + bias + sliver_a sliver_b. beta 0: C is not read. bias may be NULL. */
struct TileTarget {
  float* c;
  int64_t stride;
  float beta;
  const float* bias;
};

/* Cache lines that a later tile will pack: the next `lines` lines of rows of `row_bytes`, one asked for at every
 * second step of k. The processor's own prefetchers lose the track at the end of each short row. */
struct Ahead {
  const char* row;
  int64_t offset; /* in the row, of the next line */
  int64_t row_bytes;
  int64_t row_stride; /* bytes */
  int64_t lines;
};

using TileFn = void (*)(const float* a, const float* b, int64_t depth, const TileTarget& target, Ahead* ahead);
/* Packs `lines` lines of `depth` elements: of B one sliver, its rest filled with 0; of A one sliver, or several,
 * kSliverFloats apart, where its lines lie across k. */
using PackFn = void (*)(float* sliver, const MatrixView& source, int64_t lines, int64_t depth);

constexpr int kMaxTileRows = 16;

/* C (rows, lines) = beta * C + bias + op(A) op(B) where op(B)'s lines lie along k, with at least as many lines as half a
 * tile has columns. `a`: op(A), packed a block of kBlockK after the other, kSliverFloats apart; rows up to kMaxTileRows
 * are 0. beta 0: C is not read. */
struct FewRows {
  const float* a;
  int rows;
  MatrixView b; /* the lines; k_stride 1 */
  int64_t depth;
  float beta;
  const float* bias; /* (lines); NULL: none */
  float* c;
  int64_t c_stride;
  int64_t lines;
};

using FewRowsFn = void (*)(const FewRows& p);
constexpr int kMostFewRows = 8;

struct MatmulKernels {
  int rows;
  int columns;
  /* Elements of k that share one float of a sliver, and one step of a tile: 1, or 2 as a pair of bfloat16. */
  int step;
  /* [1: all `columns` columns, 0: the first half][k-contiguous A ? 1 : 0][rows of the tile - 1]; all are stored. */
  TileFn tile[2][2][kMaxTileRows];
  PackFn pack_a[3];  /* by rlsd_dtype: f32, f16, bf16 */
  PackFn pack_b[3];
  FewRowsFn few_rows[3][kMostFewRows]; /* [op(B)'s dtype][rows - 1] */
  /* to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns. */
  void (*transpose)(float* to, int64_t to_stride, const float* from, int64_t from_stride, int64_t rows,
                    int64_t columns);
  /* `count` floats to or from the 16-bit type at `data`. */
  void (*widen[3])(float* to, const void* from, int64_t count);
  void (*narrow[3])(void* to, const float* from, int64_t count);
};

/* The kernels of the widest instruction set that this processor has. */
const MatmulKernels& matmul_kernels();

/* Those that round factors to bfloat16, of tiles of the same size; matmul_kernels() where the processor cannot multiply
 * them faster. */
const MatmulKernels& bf16_matmul_kernels();

}  // namespace rlsd::cpu

#endif
