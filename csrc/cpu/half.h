#ifndef RLSD_CPU_HALF_H_
#define RLSD_CPU_HALF_H_

#include "core/half.h"

#endif
