#ifndef RLSD_NAPI_ENGINE_CONFIG_H_
#define RLSD_NAPI_ENGINE_CONFIG_H_

#include <node_api.h>

#include <vector>

#include "model/layout.h"
#include "napi/engine_job.h"

namespace rlsd::addon {

/* As lib/policy/config.ts encodes it; a wrong one makes the call invalid. */
model::Config read_config(EngineArgs* args, size_t at);

napi_value number_array(napi_env env, const std::vector<double>& values);

}  // namespace rlsd::addon

#endif
