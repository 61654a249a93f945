#include <vector>
#include "cpu/model/model_entries.h"
#include "cpu/model/plain.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {
constexpr int64_t kMr = 4, kNr = 32;
RLSD_CLONES void tile(float* out, const float* a, const float* b, int64_t k) {
  float acc[kMr][kNr] = {};
  for (int64_t i = 0; i < k; ++i)
    for (int r = 0; r < kMr; ++r)
      for (int j = 0; j < kNr; ++j) acc[r][j] += a[i * kMr + r] * b[i * kNr + j];
  for (int r = 0; r < kMr; ++r) for (int j = 0; j < kNr; ++j) out[r * kNr + j] = acc[r][j];
}
}  // namespace
rlsd_status plain_matmul_workspace(rlsd_context*, rlsd_tensor, rlsd_tensor, rlsd_tensor, int32_t, int32_t, uint64_t* bytes) {
  *bytes = 0;
  return RLSD_OK;
}
rlsd_status plain_matmul(rlsd_context* context, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias, int32_t ta, int32_t tb, double beta) {
  const int64_t m = c.shape[0], n = c.shape[1], k = ta ? a.shape[0] : a.shape[1];
  if (m == 0 || n == 0) return RLSD_OK;
  const int64_t mb = (m + kMr - 1) / kMr, nb = (n + kNr - 1) / kNr;
  std::vector<float> pa(static_cast<size_t>(mb * kMr * k)), pb(static_cast<size_t>(nb * kNr * k));
  const int64_t a_row = ta ? 1 : a.stride[0], a_k = ta ? a.stride[0] : 1, b_col = tb ? b.stride[0] : 1, b_k = tb ? 1 : b.stride[0];
  for (int64_t i = 0; i < m; ++i) for (int64_t p = 0; p < k; ++p) pa[static_cast<size_t>((i / kMr * k + p) * kMr + i % kMr)] = f32(a)[i * a_row + p * a_k];
  for (int64_t j = 0; j < n; ++j) for (int64_t p = 0; p < k; ++p) pb[static_cast<size_t>((j / kNr * k + p) * kNr + j % kNr)] = f32(b)[j * b_col + p * b_k];
  return parallel_rows(context, mb, 2 * kMr * n * k / 8, [&](int64_t begin, int64_t end) {
    float out[kMr * kNr];
    for (int64_t i = begin; i < end; ++i) for (int64_t j = 0; j < nb; ++j) {
      tile(out, pa.data() + i * kMr * k, pb.data() + j * kNr * k, k);
      for (int64_t r = 0; r < kMr && i * kMr + r < m; ++r) for (int64_t q = 0; q < kNr && j * kNr + q < n; ++q) {
        float* to = f32(c) + (i * kMr + r) * c.stride[0] + j * kNr + q;
        *to = (beta != 0.0 ? static_cast<float>(beta) * *to : 0.0f) + out[r * kNr + q] + (bias.data ? f32(bias)[j * kNr + q] : 0.0f);
      }
    }
  });
}
}  // namespace rlsd::cpu
