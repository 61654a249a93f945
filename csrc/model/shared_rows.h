/* Sequences that begin alike share the rows of their common beginning. A row depends on the ids up
 * to it and on nothing else, so all but attention is computed once for each distinct row; attention
 * reads them expanded to packed sequences. */
#ifndef RLSD_MODEL_SHARED_ROWS_H_
#define RLSD_MODEL_SHARED_ROWS_H_

#include <cstdint>
#include <vector>

#include "model/batch.h"

namespace rlsd::model {

/* Host memory. U distinct rows of N packed ones. */
struct SharedRows {
  std::vector<int32_t> ids, positions; /* (U) */
  std::vector<int32_t> distinct_of;    /* (N): the distinct row that a packed row is */
  std::vector<int32_t> packed_of;      /* (U): the first packed row that it is */
  std::vector<int32_t> common; /* (sequences): rows that each has of the sequence before it */

  int64_t distinct() const { return static_cast<int64_t>(ids.size()); }
  int64_t packed() const { return static_cast<int64_t>(distinct_of.size()); }
};

/* Shares what each sequence has in common with the one before it: completions of one prompt lie
 * side by side. */
SharedRows share_rows(const MicroBatch& batch);

/* What attention needs beside the distinct rows. Device memory; q, k, v, out and lse are scratch of
 * N rows. */
struct Expansion {
  const int32_t *distinct_of, *packed_of, *cu_seqlens, *first_query;
  int64_t packed, sequences;
  float *q, *k, *v, *out, *lse;
};

/* Of the scratch, and of the hidden states of `targets` rows. */
uint64_t expansion_bytes(const Config& config, int64_t packed, int64_t targets);

/* Uploads the rows into the model's integers and takes the scratch from `staging`. */
rlsd_status expand(Model* model, const MicroBatch& batch, const SharedRows& shared,
                   Staging* staging, DeviceRows* rows, Expansion* out);

/* Final hidden states of the distinct rows into activations.hidden; nothing is kept for a backward
 * pass. */
rlsd_status forward_shared(Model* model, const DeviceRows& rows, const Expansion& expansion,
                           Activations* a);

}  // namespace rlsd::model

#endif
