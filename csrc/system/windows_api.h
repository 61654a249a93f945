/* <windows.h> without the macros that take away names of ours. */
#ifndef RLSD_SYSTEM_WINDOWS_API_H_
#define RLSD_SYSTEM_WINDOWS_API_H_

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#endif
