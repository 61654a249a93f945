/* Borrowed memory of the addon (csrc/napi/device_blocks.cc) over a backend that counts. Prints "passed". */
#include <cstdio>
#include <cstdlib>

#include "napi/device_blocks.cc"

namespace {

using namespace rlsd::addon;

constexpr uint64_t kMiB = uint64_t{1} << 20;

int allocations = 0, releases = 0, waits = 0;
bool passes = true; /* whether the work behind every event is done */

rlsd_status allocate(rlsd_context*, uint64_t, void** data) {
  ++allocations;
  *data = std::malloc(1);
  return RLSD_OK;
}
rlsd_status release(rlsd_context*, void* data) {
  ++releases;
  std::free(data);
  return RLSD_OK;
}
rlsd_status synchronize(rlsd_context*) {
  ++waits;
  return RLSD_OK;
}
rlsd_status event_create(rlsd_context*, void** event) {
  *event = std::malloc(1);
  return RLSD_OK;
}
rlsd_status event_destroy(rlsd_context*, void* event) {
  std::free(event);
  return RLSD_OK;
}
rlsd_status event_call(rlsd_context*, void*) { return RLSD_OK; }
rlsd_status event_query(rlsd_context*, void*, int32_t* done) {
  *done = passes;
  return RLSD_OK;
}

rlsd_backend_v1 make_backend() {
  rlsd_backend_v1 b{};
  b.allocate = b.allocate_host = allocate;
  b.release = b.release_host = release;
  b.synchronize = synchronize;
  b.event_create = event_create;
  b.event_destroy = event_destroy;
  b.event_record = b.event_wait = event_call;
  b.event_query = event_query;
  return b;
}

const rlsd_backend_v1 backend = make_backend();

void borrow(uint64_t bytes) {
  rlsd_context context{};
  DeviceBlock block;
  if (block.borrow(&backend, &context, BlockKind::kDevice, bytes) != RLSD_OK) std::abort();
}

void expect(const char* what, int got, int expected) {
  if (got == expected) return;
  std::printf("%s: %d, not %d\n", what, got, expected);
  std::exit(1);
}

}  // namespace

int main() {
  borrow(60 * kMiB);
  borrow(60 * kMiB);
  expect("a block is lent again", allocations, 1);

  for (uint64_t bytes : {61, 62, 63}) borrow(bytes * kMiB); /* 246 MiB in all */
  expect("each size is allocated", allocations, 4);
  expect("what fits is kept", releases, 0);

  borrow(100 * kMiB);
  expect("the oldest two make room for the new one", releases, 2);
  borrow(100 * kMiB);
  expect("which is lent again", allocations, 5);
  borrow(63 * kMiB);
  expect("as the newer ones are", allocations, 5);

  passes = false;
  rlsd_context context{};
  context.stream = &context; /* another stream: its work is not ordered behind that of the blocks that are kept */
  {
    DeviceBlock block;
    if (block.borrow(&backend, &context, BlockKind::kDevice, 200 * kMiB) != RLSD_OK) std::abort();
  }
  expect("what is in use makes no room", releases, 3);
  expect("so that the new one is waited for and freed", waits, 1);

  passes = true;
  borrow(300 * kMiB);
  expect("a block of more than is ever kept makes no room either", releases, 4);
  std::printf("passed\n");
  return 0;
}
