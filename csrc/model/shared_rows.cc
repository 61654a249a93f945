#include "model/shared_rows.h"

#include <algorithm>

namespace rlsd::model {

SharedRows share_rows(const MicroBatch& m) {
  SharedRows s;
  s.distinct_of.reserve(m.ids.size());
  for (int64_t b = 0; b < m.sequences(); ++b) {
    const int32_t begin = m.cu_seqlens[static_cast<size_t>(b)];
    const int32_t end = m.cu_seqlens[static_cast<size_t>(b + 1)];
    const int32_t before = b > 0 ? m.cu_seqlens[static_cast<size_t>(b - 1)] : begin;
    const int32_t most = std::min(end - begin, begin - before);
    int32_t common = 0;
    const int32_t* const ids = m.ids.data();
    while (common < most && ids[begin + common] == ids[before + common]) ++common;
    s.common.push_back(common);
    for (int32_t t = 0; t < common; ++t)
      s.distinct_of.push_back(s.distinct_of[static_cast<size_t>(before + t)]);
    for (int32_t t = common; t < end - begin; ++t) {
      s.distinct_of.push_back(static_cast<int32_t>(s.ids.size()));
      s.packed_of.push_back(begin + t);
      s.ids.push_back(ids[begin + t]);
      s.positions.push_back(t);
    }
  }
  return s;
}

uint64_t expansion_bytes(const Config& c, int64_t packed, int64_t targets) {
  const auto part = [packed](int64_t width) {
    return Staging::padded(static_cast<uint64_t>(packed * width) * sizeof(float));
  };
  const uint64_t hidden = static_cast<uint64_t>(targets * c.hidden) * sizeof(float);
  return 2 * part(c.q_width()) + 2 * part(c.kv_width()) + part(c.heads) + Staging::padded(hidden);
}

rlsd_status expand(Model* model, const MicroBatch& m, const SharedRows& s, Staging* staging,
                   DeviceRows* rows, Expansion* out) {
  std::vector<int32_t> host;
  for (const auto* part :
       {&s.ids, &s.positions, &s.distinct_of, &s.packed_of, &s.common, &m.cu_seqlens})
    host.insert(host.end(), part->begin(), part->end());
  const uint64_t bytes = host.size() * sizeof(int32_t);
  RLSD_CHECK(model->device.reserve(&model->integers, bytes, "Token ids"));
  const int32_t* at = model->integers.ints();
  RLSD_CHECK(model->device.upload(model->integers.ints(), host.data(), bytes));
  const int64_t u = s.distinct(), n = s.packed();
  *rows = {at, at + u, nullptr, u, 0};
  const Config& c = model->config;
  out->distinct_of = at + 2 * u;
  out->packed_of = out->distinct_of + n;
  out->first_query = out->packed_of + u;
  out->cu_seqlens = out->first_query + m.sequences();
  out->packed = n;
  out->sequences = m.sequences();
  out->q = staging->take<float>(n * c.q_width());
  out->k = staging->take<float>(n * c.kv_width());
  out->v = staging->take<float>(n * c.kv_width());
  out->out = staging->take<float>(n * c.q_width());
  out->lse = staging->take<float>(n * c.heads);
  return RLSD_OK;
}

}  // namespace rlsd::model
