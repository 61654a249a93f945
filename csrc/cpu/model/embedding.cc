/* out (N, H) = table[ids]; the gradient adds each row of d_out to its id's row of d_table. */
#include "core/memory.h"
#include "cpu/matmul_kernels.h"
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {

rlsd_status embedding(rlsd_context* context, rlsd_tensor out, rlsd_tensor table,
                      const int32_t* ids) {
  if (!is_f32(out, 2) || !is_float(table.dtype) || table.rank != 2 || table.stride[1] != 1) {
    return fail(context, RLSD_UNSUPPORTED, -1, "embedding: expected a table of floats for f32.");
  }
  const int64_t width = out.shape[1], row_bytes = table.stride[0] * element_bytes(table.dtype);
  const auto widen = matmul_kernels().widen[table.dtype];
  return parallel_rows(context, out.shape[0], width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      widen(f32(out) + i * out.stride[0], static_cast<const char*>(table.data) + ids[i] * row_bytes,
            width);
    }
  });
}

/* Threads share the columns, so that equal ids are added in the order of the rows. */
rlsd_status embedding_backward(rlsd_context* context, rlsd_tensor d_table, rlsd_tensor d_out,
                               const int32_t* ids) {
  if (!is_f32(d_table, 2) || !is_f32(d_out, 2)) {
    return fail(context, RLSD_UNSUPPORTED, -1, "embedding_backward: expected f32 matrices.");
  }
  const int64_t rows = d_out.shape[0];
  return parallel_rows(context, d_out.shape[1], rows, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < rows; ++i) {
      float* to = f32(d_table) + ids[i] * d_table.stride[0];
      const float* from = f32(d_out) + i * d_out.stride[0];
      for (int64_t c = begin; c < end; ++c) to[c] += from[c];
    }
  });
}

}  // namespace rlsd::cpu
