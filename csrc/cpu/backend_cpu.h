#ifndef RLSD_CPU_BACKEND_CPU_H_
#define RLSD_CPU_BACKEND_CPU_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

const rlsd_backend_v1* backend();

}  // namespace rlsd::cpu

#endif
