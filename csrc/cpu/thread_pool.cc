#include "cpu/thread_pool.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "core/cancel.h"
#include "system/stay_loaded.h"
#include "system/thread.h"

namespace rlsd::cpu {
namespace {

constexpr int32_t kMaxThreads = 256;

int32_t available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

ThreadChoice choose_threads() {
  ThreadChoice c = {std::min(available_cpus(), kMaxThreads), ""};
  const char* const wanted = std::getenv("RLSD_NUM_THREADS");
  if (wanted == nullptr || *wanted == '\0') return c;
  const char* const end = wanted + std::strlen(wanted);
  int32_t value = 0;
  const auto [stopped, error] = std::from_chars(wanted, end, value);
  if (error == std::errc() && stopped == end && value >= 1 && value <= kMaxThreads) {
    c.threads = value;
  } else {
    std::snprintf(c.refused, sizeof(c.refused), "%s", wanted);
  }
  return c;
}

struct Loop {
  TaskFn fn;
  void* body;
  int64_t tasks;
  const volatile int32_t* cancel;
  std::atomic<int64_t> next{0};
  std::atomic<bool> cancelled{false};
};

void drain(Loop& loop) {
  for (;;) {
    const int64_t task = loop.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= loop.tasks) return;
    if (is_raised(loop.cancel)) {
      loop.cancelled.store(true, std::memory_order_relaxed);
      return;
    }
    loop.fn(loop.body, task);
  }
}

thread_local bool inside_loop = false;

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

/* How long a thread looks out for what it waits for before it sleeps. The loops of a model's layers follow each other
 * within that; to be put to sleep and woken between them took a seventh of a step of drawing, and more. */
constexpr microseconds kLookOut(100);
/* A thread that looks out and does not run for this long was made to give way: others need the processors, and for a
 * while every thread sleeps instead. */
constexpr microseconds kGaveWay(250), kCrowded(200'000);
std::atomic<Clock::time_point> crowded_until{Clock::time_point()};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/* For how long this thread has run; Windows counts that too coarsely, and there no thread is seen to give way. */
Clock::duration thread_time() {
#if defined(_WIN32)
  return Clock::now().time_since_epoch();
#else
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
#endif
}

/* Returns when there() is true, at the latest after kLookOut. */
template <class There>
void look_out(There&& there) {
  if (there()) return;
  const Clock::time_point start = Clock::now();
  if (start < crowded_until.load(std::memory_order_relaxed)) return;
  const Clock::duration before = thread_time();
  Clock::time_point now = start;
  for (bool found = false; !found && now - start < kLookOut; now = Clock::now()) {
    for (int i = 0; i < 16 && !found; ++i) {
      pause();
      found = there();
    }
  }
  const Clock::duration ran = thread_time() - before;
  if (now - start - ran > kGaveWay) crowded_until.store(now + kCrowded, std::memory_order_relaxed);
}

/* Never destroyed: a thread that waits on a static condition variable would hang the exit of the process. */
class Pool {
 public:
  Pool() : size_(thread_choice().threads) {}

  int32_t size() const { return size_; }

  void run(Loop& loop, int32_t helpers) {
    std::lock_guard<std::mutex> one_loop(loop_mutex_);
    start(helpers);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      loop_ = &loop;
      wanted_ = std::min(helpers, started_);
      ++generation_;
    }
    wake_.notify_all();
    inside_loop = true;
    drain(loop);
    inside_loop = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      wanted_ = 0; /* threads that have not joined by now are not needed */
    }
    look_out([&] { return running_ == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0; });
    loop_ = nullptr;
  }

 private:
  void start(int32_t helpers) {
    while (started_ < helpers) {
      if (!start_thread<&Pool::entry>(this)) return; /* fewer threads, same result */
      ++started_;
    }
  }

  static void entry(void* self) { static_cast<Pool*>(self)->serve(); }

  void serve() {
    inside_loop = true;
    uint64_t seen = 0;
    for (;;) {
      look_out([&] { return generation_ != seen; });
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_ != seen && wanted_ > 0; });
      seen = generation_;
      --wanted_;
      ++running_;
      Loop* loop = loop_;
      lock.unlock();
      drain(*loop);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  const int32_t size_;
  int32_t started_ = 0;
  std::mutex loop_mutex_; /* one loop at a time */
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Loop* loop_ = nullptr;
  std::atomic<uint64_t> generation_{0}; /* written under mutex_, as running_ */
  std::atomic<int32_t> running_{0};
  int32_t wanted_ = 0;
};

Pool* the_pool = nullptr;
std::mutex pool_mutex;

#if defined(_WIN32)
void watch_forks() {} /* there are none */
#else
/* The child of a fork has the parent's pool but none of its threads: it makes its own. */
void forget_pool_in_child() {
  the_pool = nullptr;
  new (&pool_mutex) std::mutex();
}

void watch_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_in_child);
  static_cast<void>(registered);
}
#endif

Pool& pool() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (the_pool == nullptr) {
    watch_forks();
    stay_loaded();
    the_pool = new Pool();
  }
  return *the_pool;
}

}  // namespace

const ThreadChoice& thread_choice() {
  static const ThreadChoice choice = choose_threads();
  return choice;
}

int32_t pool_size() { return pool().size(); }

int32_t loop_threads(const rlsd_context* context) {
  return context->threads > 0 ? std::min(context->threads, pool_size()) : pool_size();
}

rlsd_status run_tasks(rlsd_context* context, int64_t tasks, TaskFn fn, void* body) {
  Loop loop{fn, body, tasks, context->cancel};
  int64_t helpers = 0;
  if (tasks > 1 && context->threads != 1 && !inside_loop) {
    helpers = std::min<int64_t>(loop_threads(context), tasks) - 1;
  }
  if (helpers <= 0) {
    drain(loop);
  } else {
    pool().run(loop, static_cast<int32_t>(helpers));
  }
  return loop.cancelled.load(std::memory_order_relaxed) ? RLSD_CANCELLED : RLSD_OK;
}

}  // namespace rlsd::cpu
