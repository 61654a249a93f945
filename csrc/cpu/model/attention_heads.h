/* How attention's heads are grouped, checked, and what a position sees. */
#ifndef RLSD_CPU_MODEL_ATTENTION_HEADS_H_
#define RLSD_CPU_MODEL_ATTENTION_HEADS_H_

#include "core/cancel.h"
#include "cpu/model/attention_block.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {

constexpr int64_t kMaxGroup = 64;

struct Heads {
  int64_t heads, kv_heads, group, dim;
};

inline rlsd_status read_heads(rlsd_context* context, const rlsd_tensor& q, int64_t kv_heads,
                              Heads* h) {
  *h = {q.shape[1], kv_heads, kv_heads > 0 ? q.shape[1] / kv_heads : 0, q.shape[2]};
  if (!is_f32(q, 3) || kv_heads < 1 || h->heads % kv_heads != 0 || h->group > kMaxGroup ||
      h->dim > kMaxHeadDim) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "attention: expected f32 (N, heads, D), heads a multiple of kv_heads (at most %lld "
                "times), D <= %lld.",
                static_cast<long long>(kMaxGroup), static_cast<long long>(kMaxHeadDim));
  }
  return RLSD_OK;
}

/* The status of a loop whose tasks look at the flag themselves: the last may have ended early. */
inline rlsd_status cut_short(const rlsd_context* context, rlsd_status status) {
  return status == RLSD_OK && is_raised(context->cancel) ? RLSD_CANCELLED : status;
}

/* Which keys the query at a position sees, and which positions see a block of keys. */
struct Window {
  int64_t size; /* 0: all keys up to the position */

  int64_t first_key(int64_t position) const {
    return size > 0 ? std::max<int64_t>(0, position + 1 - size) : 0;
  }
  /* The first position, from the block's own on, that sees none of its keys; at most `end`. */
  int64_t end_of_sight(int64_t block, int64_t end) const {
    return size > 0 ? std::min(end, block + kKeys + size - 1) : end;
  }
  KeyRange in_block(int64_t block, int64_t position) const {
    return {std::max<int64_t>(0, first_key(position) - block),
            std::min(kKeys, position + 1 - block)};
  }
  /* Keys that a row sees at most, for estimates of its cost. */
  int64_t most(int64_t length) const { return size > 0 ? std::min(length, size) : length; }
};

/* body(first, end) for runs of neighbouring queries of [begin, end): those that see all keys of the
 * block alike, others one by one. seen(i): of the block. */
template <class Seen, class Body>
void for_runs(int64_t begin, int64_t end, Seen&& seen, Body&& body) {
  for (int64_t i = begin, next; i < end; i = next) {
    next = i + 1;
    while (seen(i).whole() && next < end && seen(next).whole()) ++next;
    body(i, next);
  }
}

/* body(tile, count) for the rows of queries [begin, end), `group` of each, in their order, at most
 * kRowTile at a time. row(i, g): that of one. */
template <class Row, class Of, class Body>
void for_tiles(int64_t begin, int64_t end, int64_t group, Of&& row, Body&& body) {
  const int64_t rows = (end - begin) * group;
  for (int64_t first = 0; first < rows; first += kRowTile) {
    const int64_t count = std::min<int64_t>(kRowTile, rows - first);
    Row tile[kRowTile];
    for (int64_t r = 0; r < count; ++r) {
      tile[r] = row(begin + (first + r) / group, (first + r) % group);
    }
    body(tile, count);
  }
}

}  // namespace rlsd::cpu

#endif
