#ifndef RLSD_NAPI_DEVICE_ROWS_H_
#define RLSD_NAPI_DEVICE_ROWS_H_

#include <node_api.h>

namespace rlsd::addon {

void init_device_rows(napi_env env, napi_value exports);

}  // namespace rlsd::addon

#endif
