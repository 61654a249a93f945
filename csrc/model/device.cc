#include "model/device.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

namespace rlsd::model {

void Buffer::reset() {
  if (data_ != nullptr) {
    device_->table_->release(&device_->context_, data_);
    device_->used_ -= bytes_;
  }
  device_ = nullptr;
  data_ = nullptr;
  bytes_ = 0;
}

void Buffer::swap(Buffer& other) {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
}

Device::Device(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads,
               uint64_t memory_limit)
    : table_(table), limit_(memory_limit) {
  std::memset(&context_, 0, sizeof(context_));
  context_.struct_size = sizeof(context_);
  context_.device = ordinal;
  context_.threads = threads;
  context_.error_index = -1;
}

rlsd_status Device::check_entries() {
  struct Entry {
    const char* name;
    bool present;
  };
#define RLSD_HAS(entry) {#entry, table_->entry != nullptr}
  const Entry entries[] = {RLSD_HAS(allocate),
                           RLSD_HAS(release),
                           RLSD_HAS(copy),
                           RLSD_HAS(fill_zero),
                           RLSD_HAS(synchronize),
                           RLSD_HAS(policy_loss),
                           RLSD_HAS(policy_loss_workspace),
                           RLSD_HAS(token_log_probs),
                           RLSD_HAS(token_log_probs_workspace),
                           RLSD_HAS(embedding),
                           RLSD_HAS(rms_norm),
                           RLSD_HAS(rope),
                           RLSD_HAS(attention),
                           RLSD_HAS(attention_decode),
                           RLSD_HAS(cache_append),
                           RLSD_HAS(glu),
                           RLSD_HAS(residual_add),
                           RLSD_HAS(matmul),
                           RLSD_HAS(matmul_workspace),
                           RLSD_HAS(convert),
                           RLSD_HAS(embedding_backward),
                           RLSD_HAS(rms_norm_backward),
                           RLSD_HAS(attention_backward),
                           RLSD_HAS(attention_backward_workspace),
                           RLSD_HAS(glu_backward),
                           RLSD_HAS(bias_backward),
                           RLSD_HAS(adamw),
                           RLSD_HAS(squared_norm),
                           RLSD_HAS(scale),
                           RLSD_HAS(sample),
                           RLSD_HAS(sample_workspace)};
#undef RLSD_HAS
  for (const Entry& entry : entries) {
    if (!entry.present) {
      return fail(RLSD_UNSUPPORTED, "The backend \"%s\" has no %s.", table_->name, entry.name);
    }
  }
  return RLSD_OK;
}

rlsd_status Device::fail(rlsd_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(context_.error, sizeof(context_.error), format, arguments);
  va_end(arguments);
  return status;
}

rlsd_status Device::allocate(Buffer* buffer, uint64_t bytes, const char* what) {
  buffer->reset();
  rlsd_status status = try_allocate(buffer, bytes, what);
  while (status == RLSD_OUT_OF_MEMORY && reclaim != nullptr && reclaim()) {
    status = try_allocate(buffer, bytes, what);
  }
  return status;
}

rlsd_status Device::try_allocate(Buffer* buffer, uint64_t bytes, const char* what) {
  if (bytes > available()) {
    return fail(RLSD_OUT_OF_MEMORY,
                "%s need %llu bytes; %llu of the %llu that this model may use are free.", what,
                static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(available()),
                static_cast<unsigned long long>(limit_));
  }
  void* data = nullptr;
  RLSD_CHECK(table_->allocate(&context_, bytes, &data));
  buffer->device_ = this;
  buffer->data_ = data;
  buffer->bytes_ = bytes;
  used_ += bytes;
  return RLSD_OK;
}

rlsd_status Device::reserve(Buffer* buffer, uint64_t bytes, const char* what) {
  return !buffer->empty() && buffer->bytes() >= bytes ? RLSD_OK : allocate(buffer, bytes, what);
}

rlsd_status Device::upload(void* to, const void* from, uint64_t bytes) {
  return table_->copy(&context_, to, from, bytes, RLSD_HOST_TO_DEVICE);
}

rlsd_status Device::download(void* to, const void* from, uint64_t bytes) {
  RLSD_CHECK(table_->copy(&context_, to, from, bytes, RLSD_DEVICE_TO_HOST));
  return table_->synchronize(&context_);
}

rlsd_status Device::copy(float* to, const float* from, int64_t count) {
  return table_->copy(&context_, to, from, static_cast<uint64_t>(count) * sizeof(float),
                      RLSD_DEVICE_TO_DEVICE);
}

rlsd_status Device::zero(float* data, int64_t count) {
  return table_->fill_zero(&context_, data, static_cast<uint64_t>(count) * sizeof(float));
}

rlsd_status Device::workspace(uint64_t bytes) {
  if (bytes <= workspace_.bytes()) return RLSD_OK;
  context_.workspace = nullptr;
  context_.workspace_bytes = 0;
  RLSD_CHECK(allocate(&workspace_, bytes, "Temporary results"));
  context_.workspace = workspace_.floats();
  context_.workspace_bytes = bytes;
  return RLSD_OK;
}

rlsd_status Device::gather(rlsd_tensor to, rlsd_tensor from, const int32_t* rows) {
  return table_->embedding(&context_, to, from, rows);
}

rlsd_status Device::scatter(rlsd_tensor to, rlsd_tensor from, const int32_t* rows) {
  RLSD_CHECK(zero(static_cast<float*>(to.data), to.shape[0] * to.shape[1]));
  return table_->embedding_backward(&context_, to, from, rows);
}

rlsd_status Device::matmul_room(rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, bool transpose_a,
                                bool transpose_b) {
  uint64_t bytes = 0;
  RLSD_CHECK(table_->matmul_workspace(&context_, c, a, b, transpose_a, transpose_b, &bytes));
  return workspace(bytes);
}

rlsd_status Device::matmul_packed(rlsd_tensor c, rlsd_tensor a, rlsd_tensor w, const void* packed,
                                  double beta, const float* bias) {
  return table_->matmul_packed(&context_, c, a, w, packed,
                               vector(bias, bias != nullptr ? c.shape[1] : 0), beta);
}

rlsd_status Device::matmul(rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, bool transpose_a,
                           bool transpose_b, double beta, const float* bias) {
  RLSD_CHECK(matmul_room(c, a, b, transpose_a, transpose_b));
  return table_->matmul(&context_, c, a, b, vector(bias, bias != nullptr ? c.shape[1] : 0),
                        transpose_a, transpose_b, beta);
}

void Device::release() {
  workspace_.reset();
  context_.workspace = nullptr;
  context_.workspace_bytes = 0;
}

rlsd_tensor contiguous(const float* data, int32_t rank, const int64_t* shape) {
  rlsd_tensor t;
  std::memset(&t, 0, sizeof(t));
  t.data = const_cast<float*>(data);
  t.dtype = RLSD_F32;
  t.rank = rank;
  int64_t stride = 1;
  for (int32_t i = rank - 1; i >= 0; --i) {
    t.shape[i] = shape[i];
    t.stride[i] = stride;
    stride *= shape[i];
  }
  return t;
}

rlsd_tensor vector(const float* data, int64_t count) { return contiguous(data, 1, &count); }

rlsd_tensor matrix(const float* data, int64_t rows, int64_t columns) {
  const int64_t shape[] = {rows, columns};
  return contiguous(data, 2, shape);
}

rlsd_tensor cube(const float* data, int64_t rows, int64_t heads, int64_t dim) {
  const int64_t shape[] = {rows, heads, dim};
  return contiguous(data, 3, shape);
}

rlsd_tensor heads_up_to(rlsd_tensor cube, int64_t most) {
  cube.shape[2] = most;
  return cube;
}

}  // namespace rlsd::model
