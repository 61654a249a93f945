/* The one pool of the process. Loops run one after another, each on the caller and the pool's threads.
 *
 * A loop is a fixed list of tasks; which thread takes which task is left to chance, so a result may depend on
 * the partition into tasks but never on the number of threads. */
#ifndef RLSD_CPU_THREAD_POOL_H_
#define RLSD_CPU_THREAD_POOL_H_

#include <cstdint>
#include <type_traits>

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

using TaskFn = void (*)(void* body, int64_t task);

/* Run body(task) for task in [0, tasks) and wait. Polls context->cancel before each task. */
rlsd_status run_tasks(rlsd_context* context, int64_t tasks, TaskFn fn, void* body);

struct ThreadChoice {
  int32_t threads;
  char refused[64]; /* what RLSD_NUM_THREADS says where that is no number from 1 to 256 and not used; else empty */
};

/* RLSD_NUM_THREADS, else the CPUs this process may run on; read once. */
const ThreadChoice& thread_choice();

/* Threads that a loop may use, the caller included. */
int32_t pool_size();
/* Those that a loop of this context uses at most. */
int32_t loop_threads(const rlsd_context* context);

template <class Body>
rlsd_status parallel_for(rlsd_context* context, int64_t tasks, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  return run_tasks(
      context, tasks, [](void* self, int64_t task) { (*static_cast<Plain*>(self))(task); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace rlsd::cpu

#endif
