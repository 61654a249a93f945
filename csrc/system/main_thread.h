/* Whether a thread is the one that the process began with. */
#ifndef RLSD_SYSTEM_MAIN_THREAD_H_
#define RLSD_SYSTEM_MAIN_THREAD_H_

#if defined(_WIN32)
#include "system/windows_api.h"
#include <tlhelp32.h>
#elif defined(__APPLE__)
#include <pthread.h>
#else
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rlsd {

#if defined(_WIN32)

/* When a thread of this process was made, in units of 100 ns; all ones for one that does not say. */
inline ULONGLONG made_at(DWORD thread) {
  const HANDLE handle = OpenThread(THREAD_QUERY_LIMITED_INFORMATION, FALSE, thread);
  FILETIME made, ended, kernel, user;
  const bool known = handle != nullptr && GetThreadTimes(handle, &made, &ended, &kernel, &user) != 0;
  if (handle != nullptr) CloseHandle(handle);
  return known ? (ULONGLONG{made.dwHighDateTime} << 32) | made.dwLowDateTime : ~ULONGLONG{0};
}

/* Windows does not say which thread was the first: of all that there are, the one that was made first. Asked once, when
 * the addon is loaded, while the first one lives. */
inline DWORD first_thread() {
  const DWORD process = GetCurrentProcessId();
  const HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
  DWORD first = 0;
  ULONGLONG earliest = ~ULONGLONG{0};
  THREADENTRY32 entry;
  entry.dwSize = sizeof(entry);
  for (BOOL more = Thread32First(all, &entry); more; more = Thread32Next(all, &entry)) {
    if (entry.th32OwnerProcessID != process) continue;
    const ULONGLONG made = made_at(entry.th32ThreadID);
    if (made >= earliest) continue;
    earliest = made;
    first = entry.th32ThreadID;
  }
  CloseHandle(all);
  return first;
}

#endif

inline bool is_main_thread() {
#if defined(_WIN32)
  static const DWORD first = first_thread();
  return GetCurrentThreadId() == first;
#elif defined(__APPLE__) /* whose gettid is another thing */
  return pthread_main_np() != 0;
#elif defined(SYS_gettid)
  return getpid() == static_cast<pid_t>(syscall(SYS_gettid));
#else
  return false;
#endif
}

}  // namespace rlsd

#endif
