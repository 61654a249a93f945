#include "cpu/head_gradient.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/half.h"
#include "core/loss_arguments.h"
#include "cpu/row_tasks.h"

namespace rlsd::cpu {
namespace {

char* row_of(const rlsd_tensor& t, int64_t row) {
  return static_cast<char*>(t.data) + row * t.stride[0] * element_bytes(t.dtype);
}

rlsd_status check_one(rlsd_context* c, const char* name, const rlsd_tensor& gradient, const rlsd_tensor& of) {
  if (gradient.data == nullptr) return RLSD_OK;
  bool same = gradient.rank == of.rank && (gradient.rank != 2 || is_matrix(gradient));
  for (int32_t i = 0; i < of.rank && same; ++i) same = gradient.shape[i] == of.shape[i];
  if (same && (gradient.dtype == of.dtype || gradient.dtype == RLSD_F32)) return RLSD_OK;
  return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected the shape of %s, and its dtype or f32, for its gradient.", name);
}

constexpr int64_t kBiasColumns = 1024;

}  // namespace

rlsd_status check_apart(rlsd_context* c, const rlsd_tensor& gradient, const rlsd_scores& view) {
  for (const rlsd_tensor* read : {&view.logits, &view.hidden, &view.head, &view.bias}) {
    if (!overlaps(gradient, *read)) continue;
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "A gradient shares its memory with a tensor that is read.");
  }
  return RLSD_OK;
}

rlsd_status HeadGradient::check(rlsd_context* c) const {
  rlsd_status status = check_one(c, "hidden", hidden_, view_.hidden);
  if (status == RLSD_OK) status = check_one(c, "head", head_, view_.head);
  if (status == RLSD_OK && bias_.data != nullptr) status = check_one(c, "bias", bias_, view_.bias);
  if (status != RLSD_OK) return status;
  rlsd_scores own{};
  own.hidden = view_.hidden;
  own.head = view_.head;
  own.bias = view_.bias;
  for (const rlsd_tensor& written : {hidden_, head_, bias_}) {
    if (status == RLSD_OK) status = check_apart(c, written, own);
  }
  return status;
}

void HeadGradient::cut(const HeadChunk& chunk, int64_t tokens, Workspace* w) {
  dropped_ = w->cut<uint8_t>(chunk.rows);
  if (hidden_.data != nullptr) d_hidden_ = w->cut<float>(chunk.rows * view_.width());
  const bool several = tokens > chunk.rows;
  if (head_.data != nullptr && head_.dtype != RLSD_F32 && several) {
    head_sum_ = w->cut<float>(view_.vocab * view_.width());
  }
  if (bias_.data != nullptr) bias_sum_ = w->cut<double>(view_.vocab);
}

void HeadGradient::begin_chunk(int64_t count) const { std::memset(dropped_, 0, static_cast<size_t>(count)); }

void HeadGradient::zero_row(int64_t row) const {
  if (hidden_.data == nullptr) return;
  std::memset(row_of(hidden_, row), 0, static_cast<size_t>(view_.width() * element_bytes(hidden_.dtype)));
}

rlsd_status HeadGradient::write_hidden(rlsd_context* context, const int32_t* tokens, int64_t count,
                                       const HeadChunk& chunk) {
  const int64_t width = view_.width();
  MatmulProblem p = {};
  p.m = count;
  p.n = width;
  p.k = view_.vocab;
  p.a = {chunk.logits, RLSD_F32, chunk.stride, 1};
  p.b = {view_.head.data, view_.head.dtype, 1, view_.head.stride[0]};
  p.c = d_hidden_;
  p.c_stride = width;
  const rlsd_status status = matmul_parallel(context, p, chunk.scratch);
  if (status != RLSD_OK) return status;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = view_.row(tokens[i]);
    if (dropped_[i]) {
      zero_row(row);
    } else {
      matmul_kernels().narrow[hidden_.dtype](row_of(hidden_, row), d_hidden_ + i * width, width);
    }
  }
  return RLSD_OK;
}

rlsd_status HeadGradient::add_head(rlsd_context* context, int64_t count, const HeadChunk& chunk) {
  MatmulProblem p = {};
  p.m = view_.vocab;
  p.n = view_.width();
  p.k = count;
  p.a = {chunk.logits, RLSD_F32, 1, chunk.stride};
  p.b = {chunk.hidden, view_.hidden.dtype, 1, view_.width()};
  p.c = head_sum_ != nullptr ? head_sum_ : head_.data;
  p.c_dtype = head_sum_ != nullptr ? RLSD_F32 : head_.dtype;
  p.c_stride = head_sum_ != nullptr ? view_.width() : head_.stride[0];
  p.beta = started_ || (accumulate_ && head_sum_ == nullptr) ? 1.0f : 0.0f;
  return matmul_parallel(context, p, chunk.scratch);
}

rlsd_status HeadGradient::add_bias(rlsd_context* context, int64_t count, const HeadChunk& chunk) {
  if (!started_) std::fill_n(bias_sum_, view_.vocab, 0.0);
  return parallel_for(context, (view_.vocab + kBiasColumns - 1) / kBiasColumns, [&](int64_t block) {
    const int64_t first = block * kBiasColumns, last = std::min(view_.vocab, first + kBiasColumns);
    for (int64_t i = 0; i < count; ++i) {
      const float* dz = chunk.logits + i * chunk.stride;
      for (int64_t v = first; v < last; ++v) bias_sum_[v] += static_cast<double>(dz[v]);
    }
  });
}

rlsd_status HeadGradient::add(rlsd_context* context, const int32_t* tokens, int64_t count, const HeadChunk& chunk) {
  const int64_t row_bytes = view_.width() * element_bytes(view_.hidden.dtype);
  for (int64_t i = 0; i < count; ++i) {
    /* 0 times NaN must not reach the sums. */
    if (dropped_[i]) std::memset(chunk.hidden + i * row_bytes, 0, static_cast<size_t>(row_bytes));
  }
  rlsd_status status = RLSD_OK;
  if (hidden_.data != nullptr) status = write_hidden(context, tokens, count, chunk);
  if (status == RLSD_OK && head_.data != nullptr) status = add_head(context, count, chunk);
  if (status == RLSD_OK && bias_.data != nullptr) status = add_bias(context, count, chunk);
  started_ = true;
  return status;
}

void HeadGradient::finish_head_row(int64_t row) const {
  const int64_t width = view_.width();
  char* const out = row_of(head_, row);
  if (row >= view_.vocab || !started_) {
    if (!accumulate_) std::memset(out, 0, static_cast<size_t>(width * element_bytes(head_.dtype)));
    return;
  }
  if (head_sum_ == nullptr) return;
  float* const sum = head_sum_ + row * width;
  const bool bf16 = head_.dtype == RLSD_BF16;
  if (accumulate_) {
    const uint16_t* old = reinterpret_cast<const uint16_t*>(out);
    for (int64_t h = 0; h < width; ++h) sum[h] += bf16 ? bf16_to_float(old[h]) : f16_to_float(old[h]);
  }
  matmul_kernels().narrow[head_.dtype](out, sum, width);
}

void HeadGradient::finish_bias() const {
  const MatmulKernels& kernels = matmul_kernels();
  for (int64_t v = 0; v < view_.head.shape[0]; ++v) {
    char* const out = static_cast<char*>(bias_.data) + v * element_bytes(bias_.dtype);
    float old = 0.0f;
    if (accumulate_) kernels.widen[bias_.dtype](&old, out, 1);
    const double sum = started_ && v < view_.vocab ? bias_sum_[v] : 0.0;
    const float total = static_cast<float>(static_cast<double>(old) + sum);
    kernels.narrow[bias_.dtype](out, &total, 1);
  }
}

rlsd_status HeadGradient::finish(rlsd_context* context) {
  if (bias_.data != nullptr) finish_bias();
  if (head_.data == nullptr) return RLSD_OK;
  return for_rows(context, head_.shape[0], view_.width(), [&](int64_t row, int64_t) { finish_head_row(row); });
}

}  // namespace rlsd::cpu
