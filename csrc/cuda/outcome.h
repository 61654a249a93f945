/* How a kernel says what is wrong with its arguments: one key, of which the smallest is kept, so that the report does
 * not depend on which block came first. The order of keys is the order in which the CPU backend looks. */
#ifndef RLSD_CUDA_OUTCOME_H_
#define RLSD_CUDA_OUTCOME_H_

#include "core/policy_tokens.h"
#include "cuda/runtime.h"

namespace rlsd::cuda {

enum class Reason : int32_t {
  kNone = 0,
  kFirstOffset,
  kDescending,
  kLastOffset,
  kMask,
  kSpanMask,
  kAdvantage,
  kTokenId,
  kRow,
  kRowTwice,
  kNonFinite
};

/* Views in the order in which they are checked; the student's words come last. */
constexpr int kViews = 3;
constexpr int kContrast = 0, kTeacher = 1, kStudent = 2;

using Key = unsigned long long;
constexpr Key kNoKey = ~Key{0};

/* `phase`: 0 to 3 for cu_seqlens, completion mask, span mask, advantages; 4 + view for a view. index < 2^40. */
RLSD_HD Key make_key(int phase, int64_t index, Reason reason) {
  return static_cast<Key>(phase) << 56 | static_cast<Key>(index) << 8 | static_cast<Key>(reason);
}
RLSD_HD int key_phase(Key key) { return static_cast<int>(key >> 56); }
RLSD_HD int64_t key_index(Key key) { return static_cast<int64_t>(key >> 8 & 0xFFFFFFFFFFu); }
RLSD_HD Reason key_reason(Key key) { return static_cast<Reason>(key & 0xFF); }
constexpr int kViewPhase = 4;

/* What blocks of one call share. Filled with ones before the first kernel; a call of log-probs alone, which is one kernel,
 * uses `arrivals` and leaves the rest as it was. */
struct Control {
  Key error;                    /* the smallest key found */
  unsigned long long first_bad; /* the smallest token of a bad row */
  unsigned bad;                 /* how many, less one */
  unsigned settled;             /* blocks that are done, less one */
  unsigned long long arrivals;  /* of one kernel of one call: see is_last_of_call */
};

/* Both of the following: in one thread of each block, after a barrier of the block. The fence before the count releases
 * what the block wrote; the one after it, in the thread that saw the others' counts, acquires what they wrote. A barrier
 * then hands that on to the other threads of the block, which a fence of their own would not: they have seen no count. */

/* True for the last block of the grid to come here. */
__device__ inline bool is_last_block(unsigned* counter) {
  __threadfence();
  if (atomicAdd(counter, 1u) + 2u != gridDim.x) return false;
  __threadfence();
  return true;
}

constexpr int kArrivalBits = 16; /* more blocks than a pass has */

/* The upper 48 bits of a word in which the blocks of a call count. Neither 0, which a call leaves when it is over, nor all
 * ones, of which memory may be full. */
constexpr unsigned long long call_number(unsigned long long nanoseconds) {
  return (nanoseconds & (~0ull >> (kArrivalBits + 1))) | 1;
}
static_assert(call_number(0) != 0 && call_number(~0ull) < ~0ull >> kArrivalBits);

/* True for the last block of the call to come here. The word need not be cleared before: its upper bits name the call that
 * counts in it, and whatever else it holds counts as none. */
__device__ inline bool is_last_of_call(unsigned long long* word, unsigned long long call) {
  __threadfence();
  unsigned long long seen = *static_cast<volatile unsigned long long*>(word), mine, before;
  while (true) {
    mine = (seen >> kArrivalBits == call ? seen : call << kArrivalBits) + 1;
    before = atomicCAS(word, seen, mine);
    if (before == seen) break;
    seen = before;
  }
  if (mine - (call << kArrivalBits) != gridDim.x) return false;
  __threadfence();
  *word = 0; /* a graph that replays the call has its number again */
  return true;
}

rlsd_status describe_outcome(rlsd_context* context, const rlsd_outcome* outcome);

/* Waits for the stream and returns what `outcome` (device memory) says. */
rlsd_status await_outcome(rlsd_context* context, const rlsd_outcome* outcome);

}  // namespace rlsd::cuda

#endif
