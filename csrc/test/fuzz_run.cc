/* The fuzzer's calls of librlsd_cpu.so (argv[1]) on repeatable bytes, for where there is no fuzzer. Prints how many
 * were not refused. */
#include <dlfcn.h>

#include "core/philox.h"
#include "test/fuzz_losses.cc"

namespace {

constexpr uint64_t kInputs = 400, kBytes = 8192;

rlsd_backend_get_fn get;

}  // namespace

extern "C" const rlsd_backend_v1* rlsd_backend_get(uint32_t abi_version) { return get(abi_version); }

int main(int argc, char** argv) {
  void* const library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : nullptr;
  if (library == nullptr) return 2;
  get = reinterpret_cast<rlsd_backend_get_fn>(dlsym(library, "rlsd_backend_get"));
  std::vector<uint8_t> bytes(kBytes);
  for (uint64_t i = 0; i < kInputs; ++i) {
    for (uint64_t at = 0; at < kBytes; at += sizeof(rlsd::PhiloxBlock)) {
      const rlsd::PhiloxBlock block = rlsd::philox(i, at, 0);
      std::memcpy(bytes.data() + at, &block, sizeof(block));
    }
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%lld\n", static_cast<long long>(finished));
  return 0;
}
