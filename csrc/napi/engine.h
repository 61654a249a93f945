#ifndef RLSD_NAPI_ENGINE_H_
#define RLSD_NAPI_ENGINE_H_

#include <node_api.h>

namespace rlsd::addon {

void init_engine(napi_env env, napi_value exports);

/* What a shape says. */
void init_engine_shape(napi_env env, napi_value exports);

/* Scoring, training and sampling. */
void init_engine_batch(napi_env env, napi_value exports);

}  // namespace rlsd::addon

#endif
