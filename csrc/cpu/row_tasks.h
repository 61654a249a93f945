/* A loop over rows where every thread owns one piece of scratch. */
#ifndef RLSD_CPU_ROW_TASKS_H_
#define RLSD_CPU_ROW_TASKS_H_

#include <algorithm>
#include <atomic>

#include "core/cancel.h"
#include "cpu/thread_pool.h"

namespace rlsd::cpu {

/* Elements that make a block of rows worth handing out: some 10 us of work, well below the 10 ms in which an abort
 * must be seen. */
constexpr int64_t kElementsPerBlock = int64_t{1} << 16;

inline int64_t row_slots(const rlsd_context* context, int64_t rows) {
  return std::min<int64_t>(loop_threads(context), std::max<int64_t>(rows, 1));
}

/* body(row, slot) for each row in [0, rows), slot < row_slots. A task is a slot, not a block: threads take blocks as
 * they come, and no row minds which. Polls cancel at each block. */
template <class Body>
rlsd_status for_rows(rlsd_context* context, int64_t rows, int64_t columns, Body&& body) {
  const int64_t block = std::max<int64_t>(1, kElementsPerBlock / std::max<int64_t>(columns, 1));
  std::atomic<int64_t> next{0};
  std::atomic<bool> cancelled{false};
  const int64_t slots = std::min(row_slots(context, rows), (rows + block - 1) / block);
  const rlsd_status status = parallel_for(context, slots, [&](int64_t slot) {
    for (int64_t first = next.fetch_add(block); first < rows; first = next.fetch_add(block)) {
      if (is_raised(context->cancel)) {
        cancelled.store(true, std::memory_order_relaxed);
        return;
      }
      const int64_t last = std::min(rows, first + block);
      for (int64_t row = first; row < last; ++row) body(row, slot);
    }
  });
  return status == RLSD_OK && cancelled.load(std::memory_order_relaxed) ? RLSD_CANCELLED : status;
}

}  // namespace rlsd::cpu

#endif
