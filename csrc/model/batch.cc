#include "model/batch.h"

#include <algorithm>

namespace rlsd::model {
namespace {

/* Input rows that a sequence has in common with the one before it. */
int64_t common_rows(const Sequences& s, int64_t b) {
  if (b == 0) return 0;
  const int32_t* const ids = s.ids + s.cu_seqlens[b];
  const int32_t* const before = s.ids + s.cu_seqlens[b - 1];
  const int64_t most = std::min(s.input_rows(b), s.input_rows(b - 1));
  return std::mismatch(ids, ids + most, before).first - ids;
}

/* `common`: rows that are those of the sequence before it in the micro-batch. */
void append(const Sequences& s, int64_t b, int64_t common, MicroBatch* m) {
  const int64_t completion = s.completion(b), prompt = s.prompt_lengths[b];
  const int32_t* ids = s.ids + s.cu_seqlens[b];
  if (completion > 0) {
    const auto start = static_cast<int32_t>(m->ids.size());
    m->ids.insert(m->ids.end(), ids, ids + prompt + completion - 1);
    for (int64_t i = 0; i < completion; ++i)
      m->rows.push_back(start + static_cast<int32_t>(prompt + i - 1));
    m->targets.insert(m->targets.end(), ids + prompt, ids + prompt + completion);
  }
  m->common.push_back(static_cast<int32_t>(common));
  m->cu_seqlens.push_back(static_cast<int32_t>(m->ids.size()));
  m->cu_targets.push_back(static_cast<int32_t>(m->targets.size()));
}

MicroBatch empty_batch(int64_t first_sequence, int64_t first_target) {
  MicroBatch m;
  m.cu_seqlens.push_back(0);
  m.cu_targets.push_back(0);
  m.first_sequence = first_sequence;
  m.first_target = first_target;
  return m;
}

/* One side of a micro-batch: what it holds so far, and the sequence that may join it. */
class Side {
 public:
  Side(const Sequences& s, int64_t batch_tokens) : s_(s), batch_tokens_(batch_tokens) {}

  /* Whether there is room for sequence b, which `take` means. */
  bool offers(int64_t b) {
    next_ = s_.input_rows(b);
    common_ = common_rows(s_, b);
    return rows_ + next_ - common_ <= batch_tokens_ && keys_ + next_ <= kKeysPerRow * batch_tokens_;
  }
  void take(bool joins) {
    rows_ = joins ? rows_ + next_ - common_ : next_;
    keys_ = joins ? keys_ + next_ : next_;
  }
  int64_t common() const { return common_; }

 private:
  const Sequences& s_;
  const int64_t batch_tokens_;
  int64_t rows_ = 0, keys_ = 0, next_ = 0, common_ = 0;
};

}  // namespace

MicroBatch gather(const Sequences& s, int64_t first, int64_t count, int64_t first_target) {
  MicroBatch m = empty_batch(first, first_target);
  for (int64_t b = first; b < first + count; ++b)
    append(s, b, b > first ? common_rows(s, b) : 0, &m);
  return m;
}

std::vector<MicroBatch> split(const Sequences& s, int64_t batch_tokens, const Sequences* beside) {
  std::vector<MicroBatch> out;
  std::vector<Side> sides = {{s, batch_tokens}};
  if (beside != nullptr) sides.emplace_back(*beside, batch_tokens);
  int64_t targets = 0;
  for (int64_t b = 0; b < s.count; ++b) {
    bool joins = !out.empty();
    for (Side& side : sides) joins = side.offers(b) && joins;
    for (Side& side : sides) side.take(joins);
    if (!joins) out.push_back(empty_batch(b, targets));
    append(s, b, joins ? sides[0].common() : 0, &out.back());
    targets += s.completion(b);
  }
  return out;
}

}  // namespace rlsd::model
