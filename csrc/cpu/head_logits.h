/* Logits made from hidden states and an LM head, a chunk of tokens at a time: z = hidden head^T + bias.
 *
 * Rows are gathered first, so that only those that are needed are multiplied. The logits of a chunk are float32
 * (rows, vocab) and the only array of that width: chunks are cut so that it stays below kHeadChunkBytes. */
#ifndef RLSD_CPU_HEAD_LOGITS_H_
#define RLSD_CPU_HEAD_LOGITS_H_

#include "cpu/logits_view.h"
#include "cpu/matmul.h"
#include "cpu/workspace.h"

namespace rlsd::cpu {

/* A smaller chunk reads the head more often: at V = 151936 this is 110 rows, 220 operations for each float read. */
constexpr int64_t kHeadChunkBytes = int64_t{64} << 20;

struct HeadView {
  rlsd_tensor hidden; /* (rows, width) */
  rlsd_tensor head;   /* (V, width) */
  rlsd_tensor bias;   /* (V) or (1, V), or no data */
  int64_t vocab;      /* rows of the head at or beyond are padding */
  const int32_t* row_of;

  int64_t width() const { return hidden.shape[1]; }
  int64_t row(int64_t token) const { return row_of != nullptr ? row_of[token] : token; }
};

/* `scores` must be at the level of hidden states. */
HeadView head_view(const rlsd_scores& scores);

/* As check_logits: `owner` (rows of hidden) receives the token of each row. */
rlsd_status check_head(rlsd_context* context, const char* name, const HeadView& view, const TokenIds& tokens,
                       int32_t* owner);

/* Arrays that hold one chunk. Views may take turns with them. */
struct HeadChunk {
  int64_t rows;   /* the most tokens of a chunk */
  int64_t stride; /* floats between rows of logits */
  float* logits;  /* (rows, stride) */
  char* hidden;   /* (rows, width), the gathered rows in their own dtype */
  char* scratch;  /* of matmul_parallel */
};

/* Cuts a chunk for `tokens` tokens of each of the views from a workspace; `share`: chunks alive at once. */
HeadChunk cut_head_chunk(const rlsd_context* context, const HeadView* views, int count, int64_t tokens, int64_t share,
                         Workspace* workspace);

/* The logits of `count` tokens. */
rlsd_status head_logits(rlsd_context* context, const HeadView& view, const int32_t* tokens, int64_t count,
                        const HeadChunk& chunk);

/* The chunk's logits as a view whose row i is token i of the chunk. */
LogitsView chunk_view(const HeadView& view, const HeadChunk& chunk);

/* log P (and entropy, unless NULL) of the listed tokens, written at [token]. */
rlsd_status head_log_probs(rlsd_context* context, const HeadView& view, const TokenIds& ids, const int32_t* tokens,
                           int64_t count, const RowOptions& options, const HeadChunk& chunk, float* log_probs,
                           float* entropy);

}  // namespace rlsd::cpu

#endif
