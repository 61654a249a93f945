/* Libraries that are opened while the process runs, by path or by the name that the system's loader knows. */
#ifndef RLSD_SYSTEM_LIBRARY_H_
#define RLSD_SYSTEM_LIBRARY_H_

#include <cstdio>
#include <string>

#if defined(_WIN32)
#include "system/windows_api.h"
#else
#include <dlfcn.h>
#endif

namespace rlsd {

#if defined(_WIN32)

inline std::wstring to_wide(const char* utf8) {
  const int length = MultiByteToWideChar(CP_UTF8, 0, utf8, -1, nullptr, 0);
  std::wstring wide(length > 0 ? static_cast<size_t>(length) : 1, L'\0');
  MultiByteToWideChar(CP_UTF8, 0, utf8, -1, wide.data(), length);
  return wide;
}

/* NULL with `error` set. Nobody closes it: what it started may go on for as long as the process does. */
inline void* open_library(const char* path, std::string* error) {
  void* const library = reinterpret_cast<void*>(LoadLibraryW(to_wide(path).c_str()));
  if (library == nullptr) *error = std::string(path) + ": Windows error " + std::to_string(GetLastError());
  return library;
}

inline void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

#else

#if !defined(RTLD_NODELETE)
#define RTLD_NODELETE 0
#endif

inline void* open_library(const char* path, std::string* error) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) *error = dlerror();
  return library;
}

inline void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

#endif

}  // namespace rlsd

#endif
