/* Threads of the library's own. */
#ifndef RLSD_SYSTEM_THREAD_H_
#define RLSD_SYSTEM_THREAD_H_

#include <pthread.h>

#include <cstddef>

namespace rlsd {

/* A kernel keeps blocks of up to 129 KiB on the stack. A thread has 128 KiB by musl's default, what `ulimit -s` says by
 * glibc's, 512 KiB on macOS: so it is said here. */
constexpr size_t kThreadStack = size_t{8} << 20;

/* Starts a thread that nobody joins. False when the system has none to give. */
inline bool start_thread(void* (*entry)(void*), void* argument) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_t thread;
  const bool started = pthread_attr_setstacksize(&attributes, kThreadStack) == 0 &&
                       pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
                       pthread_create(&thread, &attributes, entry, argument) == 0;
  pthread_attr_destroy(&attributes);
  return started;
}

}  // namespace rlsd

#endif
