/* Copies between host and device, and the reports of calls that returned before their work was done. */
#ifndef RLSD_NAPI_DEVICE_COPY_H_
#define RLSD_NAPI_DEVICE_COPY_H_

#include <node_api.h>

#include "napi/device_object.h"

namespace rlsd::addon {

/* What a call writes about itself beside its results. */
struct DeviceReport {
  double stats[RLSD_STAT_COUNT]; /* of a loss */
  rlsd_outcome outcome;
  float loss;
};

void init_device_copy(napi_env env, napi_value exports);

}  // namespace rlsd::addon

#endif
