/* The one export of librlsd_cpu.so. */
#include "cpu/backend_cpu.h"

extern "C" __attribute__((visibility("default"))) const rlsd_backend_v1* rlsd_backend_get(uint32_t abi_version) {
  return abi_version == RLSD_ABI_VERSION ? rlsd::cpu::backend() : nullptr;
}
