/* Scores that are not finite, said with the completion that they are of. */
#ifndef RLSD_MODEL_NON_FINITE_H_
#define RLSD_MODEL_NON_FINITE_H_

#include "model/batch.h"

namespace rlsd::model {

/* Such targets of a whole batch, found a micro-batch at a time, in order. */
struct NonFinite {
  int64_t first = -1, count = 0;

  /* Target `at` of the batch, and so many in all from there on. */
  void add(int64_t at, int64_t found) {
    if (count == 0) first = at;
    count += found;
  }

  /* RLSD_NON_FINITE in the device's words; RLSD_OK where there is none. */
  rlsd_status report(Device* device, const Sequences& sequences, const char* what) const;
};

}  // namespace rlsd::model

#endif
