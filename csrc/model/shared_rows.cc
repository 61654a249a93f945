#include "model/shared_rows.h"

namespace rlsd::model {

SharedRows share_rows(const MicroBatch& m) {
  SharedRows s;
  s.distinct_of.reserve(m.ids.size());
  s.cu_queries.push_back(0);
  for (size_t b = 0; b < m.common.size(); ++b) {
    const int32_t begin = m.cu_seqlens[b], end = m.cu_seqlens[b + 1], common = m.common[b];
    const int32_t before = b > 0 ? m.cu_seqlens[b - 1] : begin;
    for (int32_t t = 0; t < common; ++t) {
      s.distinct_of.push_back(s.distinct_of[static_cast<size_t>(before + t)]);
    }
    for (int32_t t = common; t < end - begin; ++t) {
      s.distinct_of.push_back(static_cast<int32_t>(s.ids.size()));
      s.ids.push_back(m.ids[static_cast<size_t>(begin + t)]);
      s.positions.push_back(t);
    }
    s.cu_queries.push_back(static_cast<int32_t>(s.ids.size()));
  }
  return s;
}

}  // namespace rlsd::model
