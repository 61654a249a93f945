/* Cuts the context's workspace into arrays. The same cuts over no memory say how many bytes it must have. */
#ifndef RLSD_CPU_WORKSPACE_H_
#define RLSD_CPU_WORKSPACE_H_

#include <cstdint>

#include "cpu/error.h"
#include "rlsd/rlsd.h"

namespace rlsd::cpu {

class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}

  /* `count` elements at the start of a cache line; NULL while only counting. */
  template <class T>
  T* cut(int64_t count) {
    T* part = base_ != nullptr ? reinterpret_cast<T*>(base_ + bytes_) : nullptr;
    bytes_ += (static_cast<uint64_t>(count) * sizeof(T) + 63) / 64 * 64;
    return part;
  }

  uint64_t bytes() const { return bytes_; }

 private:
  char* base_;
  uint64_t bytes_ = 0;
};

inline rlsd_status check_workspace(rlsd_context* context, uint64_t needed) {
  if (context->workspace_bytes >= needed && (needed == 0 || context->workspace != nullptr)) return RLSD_OK;
  return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected a workspace of %llu bytes but received %llu.",
              static_cast<unsigned long long>(needed), static_cast<unsigned long long>(context->workspace_bytes));
}

}  // namespace rlsd::cpu

#endif
