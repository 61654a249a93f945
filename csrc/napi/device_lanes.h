/* Copies between memory of the host that may go or change and a device's, through two pinned blocks that take turns: while
 * the device copies one, this side empties or fills the other. Only pinned memory is sure to be read and written when the
 * stream comes to it and not before or after. */
#ifndef RLSD_NAPI_DEVICE_LANES_H_
#define RLSD_NAPI_DEVICE_LANES_H_

#include <cstdint>

#include "rlsd/rlsd.h"

namespace rlsd::addon {

/* On the context's stream. `from` may change when this returns; the copy is then enqueued, and done but for 16 MiB. */
rlsd_status copy_up(const rlsd_backend_v1* backend, rlsd_context* context, void* to, const void* from, uint64_t bytes);

/* On the context's stream, and done when this returns. RLSD_CANCELLED as soon as the context's cancel flag is set: `to` is
 * not written after that. */
rlsd_status copy_down(const rlsd_backend_v1* backend, rlsd_context* context, void* to, const void* from, uint64_t bytes);

}  // namespace rlsd::addon

#endif
