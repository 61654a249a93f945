/* Streams. Work runs at once on the caller's thread, or, where RLSD_EMULATION_GATE names a file, on a thread of the
 * stream's own that rests before each piece of work for as long as that file exists: a test holds the device still,
 * looks at what the host did without it, and lets it go on. One piece of work runs at a time, on whatever stream. */
#include "streams.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "state.h"

namespace emulation {

struct Stream {
  int device = 0;
  std::deque<std::function<void()>> work;
  bool started = false, busy = false;
};

namespace {

/* Never destroyed: streams' threads may outlive main. */
struct Device {
  std::mutex mutex, one_at_a_time;
  std::condition_variable changed;
  std::vector<Stream*> streams;
  Stream standard;
};

Device& device() {
  static Device* const instance = new Device();
  return *instance;
}

/* 1 and 2 are CUDA's names for the legacy and the per-thread default stream, which other libraries may use. */
Stream* or_default(Stream* stream) { return reinterpret_cast<uintptr_t>(stream) > 2 ? stream : &device().standard; }

/* A gate that says "made" holds the streams that were made, not the default one. */
bool is_held(const char* gate, const Stream* stream) {
  std::ifstream file(gate);
  if (!file.is_open()) return false;
  std::string which;
  file >> which;
  return which != "made" || stream != &device().standard;
}

/* A test that waits for the device while it holds it would wait for ever, with no chance to say so. */
void rest(const Stream* stream) {
  const char* const gate = std::getenv("RLSD_EMULATION_GATE");
  for (int turns = 0; gate != nullptr && is_held(gate, stream); ++turns) {
    usleep(500);
    if (turns > 120000) give_up("the gate was closed for more than a minute");
  }
}

void serve(Stream* stream) {
  Device& d = device();
  std::unique_lock<std::mutex> lock(d.mutex);
  for (;;) {
    d.changed.wait(lock, [&] { return !stream->work.empty(); });
    std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    stream->busy = true;
    lock.unlock();
    rest(stream);
    work();
    work = nullptr; /* the memory that it holds is free before who waits goes on */
    lock.lock();
    stream->busy = false;
    d.changed.notify_all();
  }
}

bool is_idle(const Stream& stream) { return stream.work.empty() && !stream.busy; }

}  // namespace

Stream* make_stream(int on_device) {
  auto* const stream = new Stream(); /* never freed: work may be left on it */
  stream->device = on_device;
  std::lock_guard<std::mutex> lock(device().mutex);
  device().streams.push_back(stream);
  return stream;
}

void enqueue(Stream* given, std::function<void()> work) {
  Device& d = device();
  Stream* const stream = or_default(given);
  if (std::getenv("RLSD_EMULATION_GATE") == nullptr) {
    wait_for(given);
    work();
    return;
  }
  std::lock_guard<std::mutex> lock(d.mutex);
  stream->work.push_back(std::move(work));
  if (!stream->started) std::thread(serve, stream).detach();
  stream->started = true;
  d.changed.notify_all();
}

void alone(const std::function<void()>& work) {
  std::lock_guard<std::mutex> lock(device().one_at_a_time);
  work();
}

void wait_for(Stream* stream) {
  Device& d = device();
  std::unique_lock<std::mutex> lock(d.mutex);
  d.changed.wait(lock, [&] { return is_idle(*or_default(stream)); });
}

void wait_for_device(int which) {
  Device& d = device();
  std::unique_lock<std::mutex> lock(d.mutex);
  d.changed.wait(lock, [&] {
    for (const Stream* stream : d.streams) {
      if (stream->device == which && !is_idle(*stream)) return false;
    }
    return is_idle(d.standard);
  });
}

}  // namespace emulation
