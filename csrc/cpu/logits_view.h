/* One view of N tokens as rows of logits, and the checks that make reading it safe. */
#ifndef RLSD_CPU_LOGITS_VIEW_H_
#define RLSD_CPU_LOGITS_VIEW_H_

#include "cpu/softmax_row.h"

namespace rlsd::cpu {

struct LogitsView {
  const char* data; /* (rows, columns) */
  int32_t dtype;
  int64_t rows, columns;
  int64_t stride;          /* bytes from row to row */
  int64_t vocab;           /* columns at or beyond are padding */
  const int32_t* row_of;   /* (N); NULL: token i is row i */
  const char* noun = "logits"; /* what errors call the rows */

  int64_t row(int64_t token) const { return row_of != nullptr ? row_of[token] : token; }
  const char* at(int64_t row) const { return data + row * stride; }
};

/* `scores` must be at logits level. */
LogitsView logits_view(const rlsd_scores& scores);

/* The tokens of a batch that its views must be able to serve. */
struct TokenIds {
  int64_t tokens;
  const int32_t* ids;             /* (N) */
  const uint8_t* completion_mask; /* NULL: all 1 */

  bool masked(int64_t i) const { return completion_mask != nullptr && completion_mask[i] == 0; }
};

constexpr int32_t kNoToken = -1;     /* no token names this row */
constexpr int32_t kMaskedToken = -2; /* only masked tokens do */

/* Checks the view's shape, and of every unmasked token its id and its row, each row at most once. Fills `owner`
 * (rows): the token that a row predicts, kMaskedToken or kNoToken. Masked tokens may hold anything. */
rlsd_status check_logits(rlsd_context* context, const char* name, const LogitsView& view, const TokenIds& tokens,
                         int32_t* owner);

/* Scores one token's row. */
RowScore score_token(const LogitsView& view, const TokenIds& tokens, int64_t token, const RowOptions& options,
                     float* scratch);

}  // namespace rlsd::cpu

#endif
