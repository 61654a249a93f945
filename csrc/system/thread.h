/* Threads of the library's own. */
#ifndef RLSD_SYSTEM_THREAD_H_
#define RLSD_SYSTEM_THREAD_H_

#if defined(_WIN32)
#include "system/windows_api.h"
#else
#include <pthread.h>
#endif

#include <cstddef>

namespace rlsd {

/* A kernel keeps blocks of up to 129 KiB on the stack. A thread has 128 KiB by musl's default, what `ulimit -s` says by
 * glibc's, 512 KiB on macOS, what node.exe says on Windows: so it is said here. */
constexpr size_t kThreadStack = size_t{8} << 20;

/* Starts a thread that nobody joins, in entry(argument). False when the system has none to give. */
template <void (*entry)(void*)>
bool start_thread(void* argument) {
#if defined(_WIN32)
  const auto start = [](void* a) -> DWORD {
    entry(a);
    return 0;
  };
  const HANDLE thread = CreateThread(nullptr, kThreadStack, start, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
  if (thread == nullptr) return false;
  CloseHandle(thread);
  return true;
#else
  const auto start = [](void* a) -> void* {
    entry(a);
    return nullptr;
  };
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_t thread;
  const bool started = pthread_attr_setstacksize(&attributes, kThreadStack) == 0 &&
                       pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
                       pthread_create(&thread, &attributes, start, argument) == 0;
  pthread_attr_destroy(&attributes);
  return started;
#endif
}

}  // namespace rlsd

#endif
