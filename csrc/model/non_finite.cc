#include "model/non_finite.h"

namespace rlsd::model {

rlsd_status NonFinite::report(Device* device, const Sequences& s, const char* what) const {
  if (count == 0) return RLSD_OK;
  int64_t sequence = 0, token = first;
  while (token >= s.completion(sequence)) token -= s.completion(sequence++);
  device->context()->error_index = first;
  device->context()->error_count = count;
  return device->fail(RLSD_NON_FINITE,
                      "Expected %s at every token but token %lld of completion %lld has none (%lld "
                      "tokens in all).",
                      what, static_cast<long long>(token), static_cast<long long>(sequence),
                      static_cast<long long>(count));
}

}  // namespace rlsd::model
