/* Asynchronous calls: first in, first out, on one native thread of the process.
 *
 * A job runs on that thread and completes on the thread of the environment that made it. When an environment goes
 * away its waiting jobs are dropped and its running job is cancelled and waited for: no job outlives the memory of
 * the buffers it works on. With the process's own environment the thread comes to rest, so that it is in no call while
 * exit handlers take down what calls need; what jobs held goes with the process. */
#ifndef RLSD_NAPI_QUEUE_H_
#define RLSD_NAPI_QUEUE_H_

#include <node_api.h>

#include <cstdint>
#include <memory>

namespace rlsd::addon {

class Job {
 public:
  virtual ~Job() = default;
  /* On the queue's thread: no JavaScript. Polls cancel. */
  virtual void run() = 0;
  /* On the environment's thread, with a handle scope: settle the promise, drop references. */
  virtual void complete(napi_env env) = 0;
  /* From any thread, while run() runs: let it end soon. */
  virtual void stop() { __atomic_store_n(&cancel, 1, __ATOMIC_SEQ_CST); }
  /* Whether an environment that goes away waits for run() to end. Asked after stop(), with run() running. */
  virtual bool is_waited_for() const { return true; }

  volatile int32_t cancel = 0;
};

struct EnvQueueState;

class EnvQueue {
 public:
  /* Makes its wake-up function at once: cleanup hooks run last in, first out, and the owner's hook, added later,
   * must close the queue before the environment closes the function. */
  explicit EnvQueue(napi_env env);
  ~EnvQueue();
  EnvQueue(const EnvQueue&) = delete;
  EnvQueue& operator=(const EnvQueue&) = delete;

  /* False when the environment is going away or no thread could be started; the job then stays with the caller. */
  bool enqueue(std::unique_ptr<Job>& job);

  /* Takes no job from here on, and ends those there are as the comment above says. */
  void close();
  bool is_closed() const;

 private:
  std::shared_ptr<EnvQueueState> state_;
};

}  // namespace rlsd::addon

#endif
