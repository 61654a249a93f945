/* A call's rows of logits: what the row kernels are told, and what is launched. */
#ifndef RLSD_CUDA_ROWS_H_
#define RLSD_CUDA_ROWS_H_

#include "core/policy_pass.h"
#include "core/workspace.h"
#include "cuda/outcome.h"
#include "cuda/softmax_row.cuh"

namespace rlsd::cuda {

/* Rows that no token names, and that masked tokens alone do: every byte 0x7F, so that memset can write the first. */
constexpr int32_t kNoToken = 0x7F7F7F7F;
constexpr int32_t kMaskedToken = 0x7F7F7F7E;

/* What a row is for, in one load. Filled with kNoToken, then written by the claims. */
struct alignas(16) RowTask {
  int32_t token; /* kMaskedToken or kNoToken: none is scored here */
  int32_t target;
  int32_t sequence; /* 0 without a loss */
  int32_t skipped;  /* 1: the row is not read */
};

/* One view as rows of logits; data NULL: it is log-probs, or absent. */
struct View {
  const char* data;      /* (rows, columns) */
  int64_t rows, columns;
  int64_t stride;        /* bytes from row to row */
  int64_t vocab;         /* columns at or beyond are padding */
  const int32_t* row_of; /* (N); NULL: token i is row i */
  int32_t* owner;        /* (rows): the token that a row predicts, kMaskedToken or kNoToken */
  float* log_probs;      /* (N), written */
  int32_t dtype;
  bool aligned;

  RLSD_HD int64_t row(int64_t token) const { return row_of != nullptr ? row_of[token] : token; }
  RLSD_HD bool is_inside(int64_t row) const { return row >= 0 && row < rows; }
};

enum class RowMode : int32_t { kScore, kGradient, kScoreAndGradient };

struct RowCall {
  PolicyTokens p;
  rlsd_objective o;
  RowOptions options;
  View views[kViews];
  const int32_t* token_ids;
  Control* control;
  RowTask* tasks;         /* (rows) */
  SequenceTerms* terms;   /* (B); NULL without a loss */
  uint8_t* skipped;       /* (N); NULL: none is */
  float* entropy;         /* (N); NULL: not wanted */
  char* gradient;         /* (rows, columns) of the student's dtype; NULL: not wanted */
  int64_t gradient_stride; /* bytes */
  bool gradient_aligned;
  double loss_scale;
  int64_t rows; /* of the loop: the student's, or the tokens when the student has none */
  RowMode mode;
  int32_t cluster;        /* blocks that share a row resident in shared memory; 0: rows are not kept */
  int32_t preferred_cluster; /* what `cluster` is where the device has room for it; 0: rows do not fit */
  int32_t rows_at_once;   /* resident rows: how many the device holds, so that row + rows_at_once comes next */
  int32_t prefetch_bytes; /* resident rows: what is asked of each view's slice of that row ahead; 0: nothing */
  bool skip_zero_rows, clear_other_rows, whole_sequences;

  /* The row of the loop that token i's task stands at. */
  RLSD_HD int64_t task_row(int64_t i) const {
    return views[kStudent].data != nullptr ? views[kStudent].row(i) : i;
  }
};

/* Fills in how rows are kept in shared memory: `cluster` 0 where they cannot be. The device is asked once for each shape. */
rlsd_status plan_resident_rows(rlsd_context* context, RowCall* call);

/* Checks ids, rows and the small arrays; fills owner and tasks, and with terms also terms (without means) and skipped.
 * `control` was filled with ones. What is wrong with a view is written to `outcome`. */
rlsd_status launch_claims(rlsd_context* context, const RowCall& call, rlsd_outcome* outcome);

/* The terms with their means, from log-probs that have been written. */
rlsd_status launch_means(rlsd_context* context, const RowCall& call);

/* One team per row. */
rlsd_status launch_plain_rows(rlsd_context* context, const RowCall& call);
/* Of a planned call. A cluster that the device refuses after all is halved, for this call and those that follow; `cluster`
 * is 0 afterwards, and nothing was launched, where none is left that holds a row. */
rlsd_status launch_resident_rows(rlsd_context* context, RowCall* call);

/* Writes the outcome of a call that has rows and no pass over tokens. */
rlsd_status launch_row_outcome(rlsd_context* context, const RowCall& call, bool skip_bad, rlsd_outcome* outcome);

}  // namespace rlsd::cuda

#endif
