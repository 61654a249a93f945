#include "cpu/head_logits.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "cpu/row_tasks.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kLineFloats = 16;

/* Rows of chunks that are alike in size, in whole register tiles where there is more than one. */
int64_t chunk_rows(int64_t tokens, int64_t stride, int64_t share) {
  const int64_t tile = matmul_kernels().rows;
  const int64_t row_bytes = stride * static_cast<int64_t>(sizeof(float)) * share;
  const int64_t most = std::max<int64_t>(kHeadChunkBytes / std::max<int64_t>(row_bytes, 1), 1);
  if (tokens <= most) return std::max<int64_t>(tokens, 1);
  const int64_t even = ceil_div(tokens, ceil_div(tokens, most));
  return std::max<int64_t>(std::min(round_up(even, tile), most / tile * tile), std::min(most, tile));
}

/* The most scratch that a product needs: the logits of few tokens, or a gradient in a 16-bit type. */
int64_t product_scratch_bytes(const rlsd_context* context, int64_t width) {
  MatmulProblem logits = {};
  logits.m = 1;
  logits.n = INT64_MAX;
  logits.k = width;
  logits.a.k_stride = logits.b.k_stride = 1;
  MatmulProblem narrow = {};
  narrow.m = INT64_MAX;
  narrow.c_dtype = RLSD_BF16;
  return std::max(matmul_scratch_bytes(context, logits), matmul_scratch_bytes(context, narrow));
}

}  // namespace

HeadView head_view(const rlsd_scores& s) { return {s.hidden, s.head, s.bias, s.vocab_size, s.rows}; }

rlsd_status check_head(rlsd_context* c, const char* name, const HeadView& v, const TokenIds& t, int32_t* owner) {
  if (v.hidden.rank != 2 || v.head.rank != 2 || v.head.shape[1] != v.hidden.shape[1] || !is_float(v.hidden.dtype) ||
      !is_float(v.head.dtype)) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected (R, H) and (V, H) floats for %s.hidden and %s.head.", name,
                name);
  }
  if (v.head.data == nullptr && v.head.shape[0] * v.head.shape[1] > 0) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected memory for %s.head.", name);
  }
  /* Row and id checks are those of logits with as many rows as hidden and as many columns as the head has rows. */
  const LogitsView logits = {static_cast<const char*>(v.hidden.data), v.hidden.dtype, v.hidden.shape[0],
                             v.head.shape[0], 0, v.vocab, v.row_of, "hidden"};
  return check_logits(c, name, logits, t, owner);
}

HeadChunk cut_head_chunk(const rlsd_context* context, const HeadView* views, int count, int64_t tokens, int64_t share,
                         Workspace* workspace) {
  int64_t vocab = 0, width = 0, hidden_bytes = 0;
  for (int i = 0; i < count; ++i) {
    vocab = std::max(vocab, views[i].vocab);
    width = std::max(width, views[i].width());
    hidden_bytes = std::max(hidden_bytes, views[i].width() * element_bytes(views[i].hidden.dtype));
  }
  HeadChunk chunk = {};
  chunk.stride = round_up(vocab, kLineFloats);
  chunk.rows = chunk_rows(tokens, chunk.stride, share);
  chunk.logits = workspace->cut<float>(chunk.rows * chunk.stride);
  chunk.hidden = workspace->cut<char>(chunk.rows * hidden_bytes);
  chunk.scratch = workspace->cut<char>(product_scratch_bytes(context, width));
  return chunk;
}

rlsd_status head_logits(rlsd_context* context, const HeadView& v, const int32_t* tokens, int64_t count,
                        const HeadChunk& chunk) {
  const int64_t width = element_bytes(v.hidden.dtype), row_bytes = v.width() * width;
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(chunk.hidden + i * row_bytes,
                static_cast<const char*>(v.hidden.data) + v.row(tokens[i]) * v.hidden.stride[0] * width,
                static_cast<size_t>(row_bytes));
  }
  MatmulProblem p = {};
  p.m = count;
  p.n = v.vocab;
  p.k = v.width();
  p.a = {chunk.hidden, v.hidden.dtype, v.width(), 1};
  p.b = {v.head.data, v.head.dtype, v.head.stride[0], 1};
  p.c = chunk.logits;
  p.c_stride = chunk.stride;
  p.bias = v.bias.data;
  p.bias_dtype = v.bias.dtype;
  return matmul_parallel(context, p, chunk.scratch);
}

LogitsView chunk_view(const HeadView& v, const HeadChunk& chunk) {
  return {reinterpret_cast<const char*>(chunk.logits), RLSD_F32, chunk.rows, v.vocab,
          chunk.stride * static_cast<int64_t>(sizeof(float)), v.vocab, nullptr};
}

rlsd_status head_log_probs(rlsd_context* context, const HeadView& v, const TokenIds& ids, const int32_t* tokens,
                           int64_t count, const RowOptions& options, const HeadChunk& chunk, float* log_probs,
                           float* entropy) {
  const LogitsView logits = chunk_view(v, chunk);
  for (int64_t first = 0; first < count; first += chunk.rows) {
    const int32_t* const part = tokens + first;
    const int64_t rows = std::min(chunk.rows, count - first);
    rlsd_status status = head_logits(context, v, part, rows, chunk);
    if (status != RLSD_OK) return status;
    status = for_rows(context, rows, v.vocab, [&](int64_t i, int64_t) {
      const RowScore score = score_row(logits.at(i), RLSD_F32, v.vocab, ids.ids[part[i]], options, nullptr);
      log_probs[part[i]] = rounded(score.log_prob);
      if (entropy != nullptr) entropy[part[i]] = rounded(score.entropy);
    });
    if (status != RLSD_OK) return status;
  }
  return RLSD_OK;
}

}  // namespace rlsd::cpu
