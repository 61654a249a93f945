/* A backend's table with its context, its memory accounted for, and the views and calls that the
 * model needs. */
#ifndef RLSD_MODEL_DEVICE_H_
#define RLSD_MODEL_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "model/check.h"
#include "rlsd/rlsd.h"

namespace rlsd::model {

class Device;

/* Device memory with one owner. Contents are undefined until written. */
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void reset();
  bool empty() const { return data_ == nullptr; }
  uint64_t bytes() const { return bytes_; }
  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  int32_t* ints() const { return static_cast<int32_t*>(data_); }

 private:
  friend class Device;
  void swap(Buffer& other);

  Device* device_ = nullptr;
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

class Device {
 public:
  /* `memory_limit`: bytes that this device's buffers may hold together. */
  Device(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads, uint64_t memory_limit);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /* RLSD_UNSUPPORTED, naming the first entry that the backend lacks. */
  rlsd_status check_entries();

  const rlsd_backend_v1& table() const { return *table_; }
  rlsd_context* context() { return &context_; }
  uint64_t used() const { return used_; }
  uint64_t available() const { return used_ < limit_ ? limit_ - used_ : 0; }
  /* Counts memory that this device reads and another one owns; negative: no more. */
  void charge(int64_t bytes) { used_ += static_cast<uint64_t>(bytes); }

  rlsd_status fail(rlsd_status status, const char* format, ...)
      __attribute__((format(printf, 3, 4)));

  /* Gives up memory that is kept for later alone; false: there is none. Called where other memory
   * would pass the limit. */
  std::function<bool()> reclaim;

  /* Replaces the buffer's memory; `what` names it in the error. */
  rlsd_status allocate(Buffer* buffer, uint64_t bytes, const char* what);
  /* As allocate, but memory that is large enough is kept. */
  rlsd_status reserve(Buffer* buffer, uint64_t bytes, const char* what);
  rlsd_status upload(void* to, const void* from, uint64_t bytes);
  rlsd_status download(void* to, const void* from, uint64_t bytes);
  rlsd_status copy(float* to, const float* from, int64_t count);
  rlsd_status zero(float* data, int64_t count);

  /* Makes the context carry at least `bytes` of workspace. */
  rlsd_status workspace(uint64_t bytes);

  /* c = op(a) op(b) + beta c + bias */
  rlsd_status matmul(rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, bool transpose_a,
                     bool transpose_b, double beta, const float* bias = nullptr);
  /* The workspace of that product, so that it allocates nothing. */
  rlsd_status matmul_room(rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, bool transpose_a,
                          bool transpose_b);
  /* c = a w^T + beta c + bias with w read from its packed form. There is room for it. */
  rlsd_status matmul_packed(rlsd_tensor c, rlsd_tensor a, rlsd_tensor w, const void* packed,
                            double beta, const float* bias);

  /* to = from[rows], as the embedding's gather does it. */
  rlsd_status gather(rlsd_tensor to, rlsd_tensor from, const int32_t* rows);
  /* to[rows[i]] = sum of the rows of from that go there, in their order; others are 0. */
  rlsd_status scatter(rlsd_tensor to, rlsd_tensor from, const int32_t* rows);

  /* Gives back the workspace. */
  void release();

 private:
  friend class Buffer;

  rlsd_status try_allocate(Buffer* buffer, uint64_t bytes, const char* what);

  const rlsd_backend_v1* table_;
  rlsd_context context_;
  const uint64_t limit_;
  std::atomic<uint64_t> used_{
      0}; /* a collected generation may give back its memory on another thread */
  Buffer workspace_;
};

/* Row-major f32 views. */
rlsd_tensor contiguous(const float* data, int32_t rank, const int64_t* shape);
rlsd_tensor vector(const float* data, int64_t count);
rlsd_tensor matrix(const float* data, int64_t rows, int64_t columns);
rlsd_tensor cube(const float* data, int64_t rows, int64_t heads, int64_t dim);
/* The first `most` numbers of each head of a cube. */
rlsd_tensor heads_up_to(rlsd_tensor cube, int64_t most);

}  // namespace rlsd::model

#endif
