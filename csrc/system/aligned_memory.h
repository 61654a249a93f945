/* Memory at a multiple of `alignment`, a power of two that divides `bytes`. On Windows free() does not take it back. */
#ifndef RLSD_SYSTEM_ALIGNED_MEMORY_H_
#define RLSD_SYSTEM_ALIGNED_MEMORY_H_

#include <cstddef>
#include <cstdlib>

#if defined(_WIN32)
#include <malloc.h>
#endif

namespace rlsd {

#if defined(_WIN32)
inline void* aligned_allocate(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }
inline void aligned_release(void* data) { _aligned_free(data); }
#else
inline void* aligned_allocate(size_t alignment, size_t bytes) { return std::aligned_alloc(alignment, bytes); }
inline void aligned_release(void* data) { std::free(data); }
#endif

}  // namespace rlsd

#endif
