/* Runs a grid's threads as fibers, one cluster of blocks at a time. */
#include <csetjmp>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include <ucontext.h>

#include "state.h"

uint3 threadIdx, blockIdx, gridDim;

namespace emulation {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr unsigned kWarp = 32;

/* Opens when all of `expected` have come. */
struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
  int any = 0, result = 0;

  void open_if_full() {
    if (arrived < expected || arrived == 0) return;
    arrived = 0;
    ++generation;
    result = any;
    any = 0;
  }
};

struct Warp {
  Barrier barrier;
  uint64_t slots[2][kWarp];
};

/* Copies that one barrier of shared memory was told of. */
struct BulkLoads {
  struct Load {
    void* to;
    const void* from;
    uint32_t bytes;
  };
  std::vector<Load> waiting;
  uint64_t expected = 0, coming = 0;
};

struct Block {
  uint3 index;
  unsigned rank;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<uint64_t> shared;
  std::map<const uint64_t*, BulkLoads> loads;
};

struct Fiber {
  Block* block;
  unsigned thread;
  unsigned turn = 0; /* of the warp's slots */
  unsigned cluster_generation = 0;
  const Barrier* waits_for = nullptr;
  unsigned generation = 0;
  bool finished = false, started = false;
  std::unique_ptr<char[]> stack;
  ucontext_t entry;
  jmp_buf state;
};

struct Cluster {
  Barrier barrier;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Fiber> fibers;
  const std::function<void()>* body;
  ucontext_t scheduler;
  jmp_buf home;
  Fiber* current = nullptr;
};

Cluster* cluster = nullptr;

bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

BulkLoads& loads_of(const uint64_t* barrier) {
  auto& loads = cluster->current->block->loads;
  const auto found = loads.find(barrier);
  if (found == loads.end()) give_up("a barrier is used that was not initialised");
  return found->second;
}

void enter(Fiber* f) {
  cluster->current = f;
  threadIdx = {f->thread, 0, 0};
  blockIdx = f->block->index;
  if (_setjmp(cluster->home) != 0) return;
  if (f->started) _longjmp(f->state, 1);
  f->started = true;
  setcontext(&f->entry);
}

void leave() {
  Fiber* const f = cluster->current;
  if (_setjmp(f->state) == 0) _longjmp(cluster->home, 1);
}

void wait_at(const Barrier& barrier, unsigned generation) {
  Fiber* const f = cluster->current;
  if (barrier.generation != generation) return;
  f->waits_for = &barrier;
  f->generation = generation;
  leave();
  f->waits_for = nullptr;
}

void arrive_and_wait(Barrier* barrier) {
  const unsigned generation = barrier->generation;
  ++barrier->arrived;
  barrier->open_if_full();
  wait_at(*barrier, generation);
}

/* A thread that has returned is no longer waited for. */
void retire(Fiber* f) {
  f->finished = true;
  for (Barrier* b : {&f->block->barrier, &f->block->warps[f->thread / kWarp].barrier, &cluster->barrier}) {
    --b->expected;
    b->open_if_full();
  }
}

void fiber_main() {
  (*cluster->body)();
  retire(cluster->current);
  _longjmp(cluster->home, 1);
}

void prepare(Fiber* f) {
  if (f->stack == nullptr) f->stack.reset(new char[kStackBytes]);
  getcontext(&f->entry);
  f->entry.uc_stack.ss_sp = f->stack.get();
  f->entry.uc_stack.ss_size = kStackBytes;
  f->entry.uc_link = nullptr;
  makecontext(&f->entry, fiber_main, 0);
}

/* One turn of the fibers first .. first + count - 1: whether one of them came on. */
bool visit(size_t first, size_t count, bool reverse, size_t* left) {
  bool progress = false;
  for (size_t i = 0; i < count; ++i) {
    Fiber* const f = &cluster->fibers[first + (reverse ? count - 1 - i : i)];
    if (f->finished || (f->waits_for != nullptr && f->waits_for->generation == f->generation)) continue;
    enter(f);
    progress = true;
    *left -= f->finished;
  }
  return progress;
}

/* In turns, in the order of threads. RLSD_EMULATION_ORDER: "reverse", or "blocks" or "warps": one of these goes on as long as
 * it can, so that it is as far as it may be in front of the others. */
void run_cluster() {
  const char* const order = std::getenv("RLSD_EMULATION_ORDER");
  const bool reverse = order != nullptr && std::strcmp(order, "reverse") == 0;
  const bool by_block = order != nullptr && std::strcmp(order, "blocks") == 0;
  const bool by_warp = order != nullptr && std::strcmp(order, "warps") == 0;
  const size_t all = cluster->fibers.size(), count = by_block ? all / cluster->blocks.size() : by_warp ? kWarp : all;
  for (size_t left = all; left > 0;) {
    bool progress = false;
    for (size_t first = 0; first < all; first += count) {
      while (visit(first, count, reverse, &left)) {
        progress = true;
        if (count == all) break;
      }
    }
    if (progress) continue;
    give_up("threads wait for a barrier that others do not reach");
  }
}

}  // namespace

void* shared_memory() { return cluster->current->block->shared.data(); }
unsigned cluster_rank() { return cluster->current->block->rank; }
void cluster_arrive() {
  cluster->current->cluster_generation = cluster->barrier.generation;
  ++cluster->barrier.arrived;
  cluster->barrier.open_if_full();
}
void cluster_wait() { wait_at(cluster->barrier, cluster->current->cluster_generation); }

const void* peer_shared(const void* mine, unsigned rank) {
  if (cluster->blocks[rank]->barrier.expected == 0) give_up("the shared memory of a block that has ended is read");
  const auto offset = static_cast<const char*>(mine) - static_cast<const char*>(shared_memory());
  return reinterpret_cast<const char*>(cluster->blocks[rank]->shared.data()) + offset;
}

void barrier_init(uint64_t* barrier) { cluster->current->block->loads[barrier] = {}; }
void barrier_expect(uint64_t* barrier, uint32_t bytes) { loads_of(barrier).expected += bytes; }
void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  if (!is_aligned(to) || !is_aligned(from) || bytes % 16 != 0 || bytes == 0) give_up("a bulk copy is misaligned");
  BulkLoads& loads = loads_of(barrier);
  loads.waiting.push_back({to, from, bytes});
  loads.coming += bytes;
}
void barrier_wait(uint64_t* barrier) {
  BulkLoads& loads = loads_of(barrier);
  if (loads.coming != loads.expected) give_up("a barrier expects other bytes than are copied");
  for (const BulkLoads::Load& load : loads.waiting) std::memcpy(load.to, load.from, load.bytes);
  loads.waiting.clear();
}

void warp_barrier() {
  Fiber* const f = cluster->current;
  arrive_and_wait(&f->block->warps[f->thread / kWarp].barrier);
}

void block_barrier() { arrive_and_wait(&cluster->current->block->barrier); }

int block_or(int value) {
  Barrier* const barrier = &cluster->current->block->barrier;
  barrier->any |= value;
  arrive_and_wait(barrier);
  return barrier->result;
}

uint64_t shuffle_xor(uint64_t bits, int mask) {
  Fiber* const f = cluster->current;
  Warp& warp = f->block->warps[f->thread / kWarp];
  const unsigned lane = f->thread % kWarp, turn = f->turn++ % 2;
  warp.slots[turn][lane] = bits;
  arrive_and_wait(&warp.barrier);
  return warp.slots[turn][lane ^ static_cast<unsigned>(mask)];
}

int run(unsigned blocks, unsigned threads, unsigned cluster_size, size_t shared, const std::function<void()>& body) {
  if (blocks % cluster_size != 0 || threads % kWarp != 0 || shared > 227 * 1024) return cudaErrorInvalidValue;
  gridDim = {blocks, 1, 1};
  Cluster c;
  cluster = &c;
  c.body = &body;
  c.fibers.resize(static_cast<size_t>(cluster_size) * threads);
  for (unsigned first = 0; first < blocks; first += cluster_size) {
    c.blocks.clear();
    c.barrier = Barrier{cluster_size * threads};
    for (unsigned rank = 0; rank < cluster_size; ++rank) {
      auto block = std::make_unique<Block>();
      block->index = {first + rank, 0, 0};
      block->rank = rank;
      block->barrier.expected = threads;
      block->warps.resize(threads / kWarp);
      for (Warp& warp : block->warps) warp.barrier.expected = kWarp;
      block->shared.assign(shared / 8 + 1, 0xDEADBEEFDEADBEEFu); /* nothing may rely on zeros */
      for (unsigned t = 0; t < threads; ++t) {
        Fiber& f = c.fibers[rank * threads + t];
        std::unique_ptr<char[]> stack = std::move(f.stack);
        f = Fiber{};
        f.block = block.get();
        f.thread = t;
        f.stack = std::move(stack);
      }
      c.blocks.push_back(std::move(block));
    }
    for (Fiber& f : c.fibers) prepare(&f);
    run_cluster();
    for (const auto& block : c.blocks) {
      for (const auto& [_, loads] : block->loads) {
        if (!loads.waiting.empty()) give_up("a block ends before its bulk copies");
      }
    }
  }
  cluster = nullptr;
  return cudaSuccess;
}

}  // namespace emulation
