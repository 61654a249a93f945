/* What a model says of tokens: their log-probs, or the logits of every row. */
#ifndef RLSD_MODEL_SCORE_H_
#define RLSD_MODEL_SCORE_H_

#include "model/batch.h"

namespace rlsd::model {

/* Log-probs of all targets into host memory (N), at `temperature`. */
rlsd_status score(Model* model, const Sequences& sequences, double temperature, float* log_probs);

/* Logits (rows, V) of every row of one sequence into host memory. */
rlsd_status all_logits(Model* model, const int32_t* ids, int64_t count, float* logits);

}  // namespace rlsd::model

#endif
