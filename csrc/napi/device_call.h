/* What the calls of every op on a device share. A call is enqueued on the thread that makes it, so that it has its place
 * in its stream at once; who wants its results on the host waits for it, on that thread or on the queue's. */
#ifndef RLSD_NAPI_DEVICE_CALL_H_
#define RLSD_NAPI_DEVICE_CALL_H_

#include <memory>
#include <vector>

#include "napi/device_copy.h"
#include "napi/device_object.h"
#include "napi/op_call.h"

namespace rlsd::addon {

/* A view of the tokens: level, rows, V, vocabSize, dtype; the array is log-probs or logits. */
constexpr int kDeviceScoreFields = 5;

class DeviceCall : public OpCall {
 public:
  /* False unless the ordinal and stream (absent: the device's default) are of the backend. */
  bool bind_device(int32_t backend_index, int32_t device, const DeviceArg& stream);

  /* Each is false when the argument is neither an array of `count` elements nor memory of the device with room for them.
   * The pointer is set when the call is enqueued; an absent argument leaves NULL. */
  template <class T>
  bool input(const T** pointer, const DeviceArg& arg, napi_typedarray_type type, size_t count) {
    return place(reinterpret_cast<void**>(const_cast<T**>(pointer)), arg, type, count, sizeof(T), &inputs_);
  }
  template <class T>
  bool output(T** pointer, const DeviceArg& arg, napi_typedarray_type type, size_t count) {
    return place(reinterpret_cast<void**>(pointer), arg, type, count, sizeof(T), &outputs_);
  }
  /* A contiguous (rows, columns) tensor in the device's memory. */
  bool tensor(rlsd_tensor* tensor, const DeviceArg& arg, int32_t dtype, int64_t rows, int64_t columns, bool written);
  /* Five fields, and the two arguments: scores and rows. */
  bool scores(rlsd_scores* scores, const double* fields, const DeviceArg* args, size_t tokens);
  /* Memory for the report; absent: this call's own, whose statistics go to `stats` (NULL: nowhere). */
  bool report(const DeviceArg& arg, double* stats);

  /* Copies the host's inputs up, enqueues the op and the copies of results for the host. */
  rlsd_status enqueue();

 protected:
  virtual rlsd_status op_workspace(uint64_t* bytes) = 0;
  virtual rlsd_status op_enqueue() = 0;
  /* The report's places on the device, while the two above run. */
  DeviceReport* device_report() const { return static_cast<DeviceReport*>(report_at_); }

  /* OpCall's part is waiting for what was enqueued. */
  rlsd_status workspace_bytes(uint64_t* bytes) final;
  rlsd_status compute() final;

 private:
  /* A host array's place in the call's block, or nothing where the memory is the device's own. */
  struct Place {
    void** pointer;
    void* host; /* NULL: device memory, already at *pointer */
    uint64_t bytes, offset;
  };

  bool place(void** pointer, const DeviceArg& arg, napi_typedarray_type type, size_t count, size_t size,
             std::vector<Place>* places);
  bool use(const DeviceArg& arg, uint64_t bytes, bool written);
  void point_into(char* block);
  rlsd_status borrow();
  rlsd_status enqueue_all();

  std::shared_ptr<DeviceObject> stream_; /* before the blocks, which are given back behind its work */
  std::vector<std::shared_ptr<DeviceObject>> read_, written_;
  std::vector<Place> inputs_, outputs_;
  uint64_t inputs_end_ = 0, outputs_end_ = 0;
  DeviceReport found_{};
  double* stats_ = nullptr;
  void* report_at_ = nullptr;
  DeviceBlock scratch_, staging_;
  std::shared_ptr<DeviceEvent> done_;
};

/* The status of a call whose arguments could not be read. */
napi_value refuse_device_args(napi_env env);

/* How a call ends: on this thread, on the queue, or not here at all. */
enum class DeviceMode { kWait = 0, kQueue = 1, kEnqueue = 2 };

/* A status, or a promise of an outcome; the arrays of `held` stay alive until then. */
napi_value run_device_call(napi_env env, std::unique_ptr<DeviceCall> call, DeviceMode mode, const DeviceArg* held,
                           size_t held_count);

}  // namespace rlsd::addon

#endif
