/* For a library whose threads stay: its code must stay for them, whoever closes it. Node closes an addon when the last
 * environment that loaded it ends. */
#ifndef RLSD_SYSTEM_STAY_LOADED_H_
#define RLSD_SYSTEM_STAY_LOADED_H_

#if defined(_WIN32)
#include "system/windows_api.h"
#else
#include <dlfcn.h>
#endif

namespace rlsd {

/* Opens the library that this is compiled into once more, for the rest of the process. */
inline void stay_loaded() {
  static const char inside = 0;
#if defined(_WIN32)
  HMODULE self;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                     reinterpret_cast<const wchar_t*>(&inside), &self);
#else
  Dl_info self;
  if (dladdr(&inside, &self) != 0) dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
#endif
}

}  // namespace rlsd

#endif
