/* What the host checks of a call before it enqueues anything. */
#include <climits>

#include "cuda/losses.h"

namespace rlsd::cuda {
namespace {

long long number(int64_t x) { return static_cast<long long>(x); }

}  // namespace

/* Arrays are cut at multiples of 64 bytes from its start: that must suit a RowTask, as cudaMalloc's memory does. */
rlsd_status check_workspace(rlsd_context* context, uint64_t needed) {
  if (reinterpret_cast<uintptr_t>(context->workspace) % alignof(RowTask) != 0) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected a workspace at a multiple of %zu bytes.", alignof(RowTask));
  }
  if (context->workspace_bytes >= needed && (needed == 0 || context->workspace != nullptr)) return RLSD_OK;
  return fail(context, RLSD_INVALID_ARGUMENT, -1, "Expected a workspace of %llu bytes but received %llu.",
              static_cast<unsigned long long>(needed), static_cast<unsigned long long>(context->workspace_bytes));
}

View view_of(const rlsd_scores& s) {
  const rlsd_tensor& x = s.logits;
  View v{};
  v.data = static_cast<const char*>(x.data);
  v.rows = x.shape[0];
  v.columns = x.shape[1];
  v.stride = x.stride[0] * element_bytes(x.dtype);
  v.vocab = s.vocab_size;
  v.row_of = s.rows;
  v.dtype = x.dtype;
  v.aligned = has_aligned_rows(x.data, v.stride);
  return v;
}

rlsd_status check_view(rlsd_context* c, const char* name, const View& v, int64_t tokens, const int32_t* token_ids) {
  if (v.data == nullptr && v.rows * v.columns > 0) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected memory for %s.logits.", name);
  }
  if (v.dtype != RLSD_F32 && v.dtype != RLSD_F16 && v.dtype != RLSD_BF16) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected f32, f16 or bf16 for %s.logits but received dtype %d.", name,
                v.dtype);
  }
  if (v.vocab < 1 || v.vocab > v.columns) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected 1 to %lld for %s.vocabSize but received %lld.",
                number(v.columns), name, number(v.vocab));
  }
  if (v.columns > kMostColumns) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected at most %lld columns for %s.logits but received %lld.",
                number(kMostColumns), name, number(v.columns));
  }
  if (v.row_of == nullptr && v.rows < tokens) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected at least N = %lld rows for %s.logits but received %lld.",
                number(tokens), name, number(v.rows));
  }
  if (token_ids == nullptr) return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected tokenIds, as %s is logits.", name);
  if (v.rows > INT_MAX / kLargestCluster || tokens >= kMaskedToken) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected at most %d rows for %s.logits but received %lld.",
                INT_MAX / kLargestCluster, name, number(v.rows > tokens ? v.rows : tokens));
  }
  return RLSD_OK;
}

}  // namespace rlsd::cuda
