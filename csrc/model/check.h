#ifndef RLSD_MODEL_CHECK_H_
#define RLSD_MODEL_CHECK_H_

#include "rlsd/rlsd.h"

/* Leave the function with the status of a call that did not succeed. */
#define RLSD_CHECK(call)                              \
  do {                                                \
    const rlsd_status rlsd_status_ = (call);          \
    if (rlsd_status_ != RLSD_OK) return rlsd_status_; \
  } while (0)

#endif
