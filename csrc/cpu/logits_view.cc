#include "cpu/logits_view.h"

#include <algorithm>

#include "core/error.h"
#include "core/memory.h"

namespace rlsd::cpu {
namespace {

long long number(int64_t x) { return static_cast<long long>(x); }

rlsd_status check_shape(rlsd_context* c, const char* name, const LogitsView& v, const TokenIds& t) {
  if (v.data == nullptr && v.rows * v.columns > 0) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected memory for %s.%s.", name, v.noun);
  }
  if (!is_float(v.dtype)) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected f32, f16 or bf16 for %s.%s but received dtype %d.", name, v.noun,
                v.dtype);
  }
  if (v.vocab < 1 || v.vocab > v.columns) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected 1 to %lld for %s.vocabSize but received %lld.",
                number(v.columns), name, number(v.vocab));
  }
  if (v.row_of == nullptr && v.rows < t.tokens) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected at least N = %lld rows for %s.%s but received %lld.",
                number(t.tokens), name, v.noun, number(v.rows));
  }
  if (t.ids == nullptr && t.tokens > 0) {
    return fail(c, RLSD_INVALID_ARGUMENT, -1, "Expected tokenIds, as %s has %s.", name, v.noun);
  }
  return RLSD_OK;
}

rlsd_status check_token(rlsd_context* c, const char* name, const LogitsView& v, const TokenIds& t, int64_t i,
                        int32_t* owner) {
  if (t.ids[i] < 0 || t.ids[i] >= v.vocab) {
    return fail(c, RLSD_INVALID_ARGUMENT, i, "Expected 0 to %lld, the vocabulary of %s, but tokenIds[%lld] is %d.",
                number(v.vocab - 1), name, number(i), t.ids[i]);
  }
  const int64_t row = v.row(i);
  if (row < 0 || row >= v.rows) {
    return fail(c, RLSD_INVALID_ARGUMENT, i, "Expected 0 to %lld but %s.rows[%lld] is %lld.", number(v.rows - 1), name,
                number(i), number(row));
  }
  if (owner[row] != kNoToken) {
    return fail(c, RLSD_INVALID_ARGUMENT, i, "Expected each row once but %s.rows[%d] and [%lld] are both %lld.", name,
                owner[row], number(i), number(row));
  }
  owner[row] = static_cast<int32_t>(i);
  return RLSD_OK;
}

}  // namespace

LogitsView logits_view(const rlsd_scores& s) {
  const rlsd_tensor& x = s.logits;
  return {static_cast<const char*>(x.data),         x.dtype,      x.shape[0], x.shape[1],
          x.stride[0] * element_bytes(x.dtype), s.vocab_size, s.rows};
}

rlsd_status check_logits(rlsd_context* c, const char* name, const LogitsView& v, const TokenIds& t, int32_t* owner) {
  rlsd_status status = check_shape(c, name, v, t);
  if (status != RLSD_OK) return status;
  std::fill_n(owner, v.rows, kNoToken);
  for (int64_t i = 0; i < t.tokens && status == RLSD_OK; ++i) {
    if (!t.masked(i)) status = check_token(c, name, v, t, i, owner);
  }
  if (status != RLSD_OK) return status;
  for (int64_t i = 0; i < t.tokens; ++i) {
    if (!t.masked(i)) continue;
    const int64_t row = v.row(i);
    if (row >= 0 && row < v.rows && owner[row] == kNoToken) owner[row] = kMaskedToken;
  }
  return RLSD_OK;
}

RowScore score_token(const LogitsView& v, const TokenIds& t, int64_t i, const RowOptions& o, float* scratch) {
  return score_row(v.at(v.row(i)), v.dtype, v.vocab, t.ids[i], o, scratch);
}

}  // namespace rlsd::cpu
