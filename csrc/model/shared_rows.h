/* Sequences that begin alike share the rows of their common beginning: a row depends on the ids up
 * to it and on nothing else, so all but attention's keys is computed once for each distinct row. */
#ifndef RLSD_MODEL_SHARED_ROWS_H_
#define RLSD_MODEL_SHARED_ROWS_H_

#include <cstdint>
#include <vector>

#include "model/batch.h"

namespace rlsd::model {

/* Host memory. U distinct rows of N packed ones. */
struct SharedRows {
  std::vector<int32_t> ids, positions; /* (U) */
  std::vector<int32_t> cu_queries;  /* (sequences + 1): each one's own rows, its last positions */
  std::vector<int32_t> distinct_of; /* (N): the distinct row that a packed row is */

  int64_t distinct() const { return static_cast<int64_t>(ids.size()); }
  int64_t packed() const { return static_cast<int64_t>(distinct_of.size()); }
};

/* Shares what each sequence has in common with the one before it: completions of one prompt lie
 * side by side. */
SharedRows share_rows(const MicroBatch& batch);

}  // namespace rlsd::model

#endif
