#ifndef RLSD_NAPI_BACKENDS_H_
#define RLSD_NAPI_BACKENDS_H_

#include <node_api.h>

#include "rlsd/rlsd.h"

namespace rlsd::addon {

/* By the index that loadBackend returned; 0 is the CPU. NULL when there is none. */
const rlsd_backend_v1* backend_at(int32_t index);

void init_backends(napi_env env, napi_value exports);

}  // namespace rlsd::addon

#endif
