#ifndef RLSD_NAPI_DEVICE_TOKEN_LOG_PROBS_H_
#define RLSD_NAPI_DEVICE_TOKEN_LOG_PROBS_H_

#include <node_api.h>

namespace rlsd::addon {

void init_device_token_log_probs(napi_env env, napi_value exports);

}  // namespace rlsd::addon

#endif
