/* The context's workspace. */
#ifndef RLSD_CPU_WORKSPACE_H_
#define RLSD_CPU_WORKSPACE_H_

#include <cstddef>
#include <cstdint>

#include "core/error.h"
#include "core/workspace.h"
#include "rlsd/rlsd.h"

namespace rlsd::cpu {

/* Arrays are cut at multiples of 64 bytes from its start: that must suit what they hold, as malloc's memory does. */
inline rlsd_status check_workspace(rlsd_context* context, uint64_t needed) {
  if (reinterpret_cast<uintptr_t>(context->workspace) % alignof(std::max_align_t) != 0) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected a workspace at a multiple of %zu bytes.",
                alignof(std::max_align_t));
  }
  if (context->workspace_bytes >= needed && (needed == 0 || context->workspace != nullptr)) return RLSD_OK;
  return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected a workspace of %llu bytes but received %llu.",
              static_cast<unsigned long long>(needed), static_cast<unsigned long long>(context->workspace_bytes));
}

}  // namespace rlsd::cpu

#endif
