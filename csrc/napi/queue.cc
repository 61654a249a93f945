#include "napi/queue.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "system/main_thread.h"
#include "system/thread.h"

namespace rlsd::addon {

struct EnvQueueState {
  napi_env env = nullptr;
  napi_threadsafe_function wake = nullptr; /* released by the environment */
  std::deque<std::unique_ptr<Job>> done; /* guarded by the queue's mutex */
  int64_t pending = 0;                   /* jobs not completed yet; touched on the environment's thread only */
  bool closing = false;
};

namespace {

struct Entry {
  std::shared_ptr<EnvQueueState> owner;
  std::unique_ptr<Job> job;
};

/* Never destroyed, so that its thread may wait on it while the process exits. */
class Queue {
 public:
  bool push(const std::shared_ptr<EnvQueueState>& owner, std::unique_ptr<Job>& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (owner->closing) return false;
    if (!started_) {
      if (!start_thread<&Queue::entry_point>(this)) return false;
      started_ = true;
    }
    waiting_.push_back({owner, std::move(job)});
    wake_.notify_one();
    return true;
  }

  /* Drops what waits, cancels what runs, and waits until nothing of this environment runs any more. */
  void close(EnvQueueState* owner, bool process_ends) {
    std::deque<std::unique_ptr<Job>> left;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      owner->closing = true;
      rests_ = rests_ || process_ends;
      left.swap(owner->done);
      for (auto it = waiting_.begin(); it != waiting_.end();) {
        if (it->owner.get() == owner) {
          left.push_back(std::move(it->job));
          it = waiting_.erase(it);
        } else {
          ++it;
        }
      }
      if (running_owner_ == owner) running_->stop();
      idle_.wait(lock, [&] { return running_owner_ != owner || !running_->is_waited_for(); });
      for (auto& job : owner->done) left.push_back(std::move(job));
      owner->done.clear();
    }
    /* Letting go of device memory waits for the device. */
    for (auto& job : left) {
      if (process_ends) job.release();
    }
  }

  /* The main thread has a new environment, as some hosts give it: the process goes on. */
  void go_on() {
    std::lock_guard<std::mutex> lock(mutex_);
    rests_ = false;
    wake_.notify_one();
  }

  bool is_closed(const EnvQueueState& owner) {
    std::lock_guard<std::mutex> lock(mutex_);
    return owner.closing;
  }

  std::unique_ptr<Job> take_done(EnvQueueState* owner) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (owner->done.empty()) return nullptr;
    std::unique_ptr<Job> job = std::move(owner->done.front());
    owner->done.pop_front();
    return job;
  }

 private:
  static void entry_point(void* self) { static_cast<Queue*>(self)->serve(); }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !waiting_.empty() && !rests_; });
      Entry entry = std::move(waiting_.front());
      waiting_.pop_front();
      running_owner_ = entry.owner.get();
      running_ = entry.job.get();
      lock.unlock();
      entry.job->run();
      lock.lock();
      running_owner_ = nullptr;
      running_ = nullptr;
      entry.owner->done.push_back(std::move(entry.job));
      /* Under the lock: after close() has seen the owner idle, its function may be gone. */
      if (!entry.owner->closing &&
          napi_call_threadsafe_function(entry.owner->wake, nullptr, napi_tsfn_nonblocking) == napi_closing) {
        entry.owner->closing = true;
      }
      idle_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Entry> waiting_;
  EnvQueueState* running_owner_ = nullptr;
  Job* running_ = nullptr;
  bool started_ = false, rests_ = false;
};

Queue& queue() {
  static Queue* const instance = new Queue();
  return *instance;
}

/* Runs on the environment's thread; env is NULL while the environment is torn down. */
void deliver(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;
  auto* state = static_cast<EnvQueueState*>(context);
  while (std::unique_ptr<Job> job = queue().take_done(state)) {
    if (--state->pending == 0) napi_unref_threadsafe_function(env, state->wake);
    napi_handle_scope scope;
    if (napi_open_handle_scope(env, &scope) != napi_ok) return;
    job->complete(env);
    napi_close_handle_scope(env, scope);
  }
}

}  // namespace

EnvQueue::EnvQueue(napi_env env) : state_(std::make_shared<EnvQueueState>()) {
  state_->env = env;
  if (is_main_thread()) queue().go_on();
  napi_value name;
  if (napi_create_string_utf8(env, "rlsd", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, state_.get(), deliver,
                                      &state_->wake) != napi_ok) {
    state_->closing = true;
    return;
  }
  napi_unref_threadsafe_function(env, state_->wake);
}

EnvQueue::~EnvQueue() { close(); }

void EnvQueue::close() { queue().close(state_.get(), is_main_thread()); }

bool EnvQueue::is_closed() const { return queue().is_closed(*state_); }

bool EnvQueue::enqueue(std::unique_ptr<Job>& job) {
  if (!queue().push(state_, job)) return false;
  if (state_->pending++ == 0) napi_ref_threadsafe_function(state_->env, state_->wake);
  return true;
}

}  // namespace rlsd::addon
