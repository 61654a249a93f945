/* The pool under loops from many threads, nested loops, cancellation and forks. Meant for the thread sanitizer. */
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "cpu/thread_pool.h"

namespace {

int failures = 0;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what);
  ++failures;
}

rlsd_context make_context(int32_t threads) {
  rlsd_context context{};
  context.struct_size = sizeof(context);
  context.threads = threads;
  return context;
}

/* Every task runs exactly once, whatever the number of threads, also from several callers at once. */
void every_task_runs_once() {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([caller] {
      rlsd_context context = make_context(1 + caller * 3);
      for (int round = 0; round < 200; ++round) {
        std::atomic<int> seen[67] = {};
        rlsd::cpu::parallel_for(&context, 67, [&](int64_t task) { seen[task].fetch_add(1); });
        for (const auto& count : seen) expect(count.load() == 1, "a task ran once");
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void nested_loops_run_inline() {
  rlsd_context context = make_context(4);
  std::atomic<int> sum{0};
  rlsd::cpu::parallel_for(&context, 8, [&](int64_t) {
    rlsd_context inner = make_context(4);
    rlsd::cpu::parallel_for(&inner, 8, [&](int64_t) { sum.fetch_add(1); });
  });
  expect(sum.load() == 64, "nested loops ran every task");
}

void a_loop_has_no_more_threads_than_the_pool() {
  rlsd_context context = make_context(200);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  rlsd::cpu::parallel_for(&context, 200, [&](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::lock_guard<std::mutex> lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  expect(seen.size() > 1, "a loop had several threads");
  expect(seen.size() <= 10, "a loop had no more threads than the pool");
}

void cancel_stops_a_loop() {
  volatile int32_t cancel = 0;
  rlsd_context context = make_context(2);
  context.cancel = &cancel;
  std::atomic<int> ran{0};
  const rlsd_status status = rlsd::cpu::parallel_for(&context, 1000000, [&](int64_t task) {
    if (task == 10) __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
    ran.fetch_add(1);
  });
  expect(status == RLSD_CANCELLED, "a cancelled loop says so");
  expect(ran.load() < 1000, "a cancelled loop stops soon");
}

/* The child of a fork has no threads but its own: its first loop must not wait for the parent's. */
[[maybe_unused]] void a_forked_child_has_its_own_pool() {
  const pid_t child = fork();
  if (child == 0) {
    rlsd_context context = make_context(3);
    std::atomic<int> ran{0};
    rlsd::cpu::parallel_for(&context, 100, [&](int64_t) { ran.fetch_add(1); });
    _exit(ran.load() == 100 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a loop ran in the forked child");
}

}  // namespace

int main() {
  setenv("RLSD_NUM_THREADS", "10", 1); /* of which callers ask for some, whatever this computer has */
  every_task_runs_once();
  nested_loops_run_inline();
  a_loop_has_no_more_threads_than_the_pool();
  cancel_stops_a_loop();
#if !defined(__SANITIZE_THREAD__) /* which refuses threads after a fork */
  a_forked_child_has_its_own_pool();
#endif
  if (failures == 0) std::puts("thread pool: ok");
  return failures == 0 ? 0 : 1;
}
