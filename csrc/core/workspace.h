/* Cuts a workspace into arrays. The same cuts over no memory say how many bytes it must have. */
#ifndef RLSD_CORE_WORKSPACE_H_
#define RLSD_CORE_WORKSPACE_H_

#include <cstdint>

namespace rlsd {

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

}  // namespace rlsd

#endif
