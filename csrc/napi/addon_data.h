/* What one JavaScript environment (main thread or worker) owns. */
#ifndef RLSD_NAPI_ADDON_DATA_H_
#define RLSD_NAPI_ADDON_DATA_H_

#include <node_api.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "napi/queue.h"

namespace rlsd::addon {

struct LastError {
  std::string message;
  int64_t index = -1;
  int64_t count = 0;
};

struct AddonData {
  LastError last_error; /* of the last call that returned a status other than RLSD_OK */
  std::unique_ptr<EnvQueue> queue;
  std::unordered_map<double, volatile int32_t*> cancels; /* of the engine's calls that have not completed, by id */
};

AddonData* addon_data(napi_env env);

/* Define a function property on the module's exports. */
void define(napi_env env, napi_value exports, const char* name, napi_callback function);

/* Keep the words of a failed call for lastError(). */
void remember_error(napi_env env, const char* message, int64_t index, int64_t count);

}  // namespace rlsd::addon

#endif
