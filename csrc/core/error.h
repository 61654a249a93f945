/* Writes what went wrong into the context: fixed storage, so recording an error never allocates. */
#ifndef RLSD_CORE_ERROR_H_
#define RLSD_CORE_ERROR_H_

#include <cstdarg>
#include <cstdio>

#include "rlsd/rlsd.h"

namespace rlsd {

__attribute__((format(printf, 4, 5))) inline rlsd_status fail(rlsd_context* context, rlsd_status status, int64_t index,
                                                              const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(context->error, sizeof(context->error), format, arguments);
  va_end(arguments);
  context->error_index = index;
  return status;
}

}  // namespace rlsd

#endif
