/* The flag of a context by which another thread asks a call to stop. */
#ifndef RLSD_CORE_CANCEL_H_
#define RLSD_CORE_CANCEL_H_

#include <cstdint>

namespace rlsd {

/* NULL: nobody can ask. */
inline bool is_raised(const volatile int32_t* flag) {
  return flag != nullptr && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}

}  // namespace rlsd

#endif
