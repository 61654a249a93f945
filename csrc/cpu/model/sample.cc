/* Draws one token a row by inverting the distribution function: the token where the running sum of
 * exp((z_v - max) / temperature) passes u times the whole sum, u a function of the row's seed and
 * counter.
 *
 * Truncation keeps a head of the tokens in falling order (equal ones by id), as Hugging Face's
 * warpers do in this order: the top_k largest; of these the fewest whose mass reaches top_p; of
 * these the ones with at least min_p times the largest probability. The log-prob reported is that
 * of the untruncated distribution. */
#include "core/philox.h"
#include "cpu/model/model_entries.h"
#include "cpu/model/simd.h"

namespace rlsd::cpu {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kRowsAtOnce = 8; /* rows whose candidates are in the workspace together */

struct Candidate {
  float weight;
  int32_t id;
};

bool before(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

RLSD_CLONES float largest_of(const float* z, int64_t count) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = -HUGE_VALF;
  int64_t v = 0;
  for (; v + kLanes <= count; v += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] = z[v + i] > lanes[i] ? z[v + i] : lanes[i];
  }
  float largest = -HUGE_VALF;
  for (int i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  for (; v < count; ++v) largest = z[v] > largest ? z[v] : largest;
  return largest;
}

/* weights[v] = exp((z_v - largest) inverse_temperature) for at most kBlock tokens; returns their
 * sum. */
RLSD_CLONES float block_weights(float* weights, const float* z, int64_t count, float largest,
                                float inverse_temperature) {
  for (int64_t v = 0; v < count; ++v)
    weights[v] = exp_approx((z[v] - largest) * inverse_temperature);
  for (int64_t v = count; v < kBlock; ++v) weights[v] = 0.0f;
  float lanes[kLanes] = {};
  for (int64_t v = 0; v < kBlock; v += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += weights[v + i];
  }
  return sum_lanes(lanes);
}

struct Row {
  const float* z;
  int64_t count;
  float largest, inverse_temperature;
  double total; /* of all weights */
};

/* body(first id, weights, count, sum) for each block until it returns true. */
template <class Body>
void each_block(const Row& row, Body&& body) {
  float weights[kBlock];
  for (int64_t v = 0; v < row.count; v += kBlock) {
    const int64_t count = std::min(kBlock, row.count - v);
    const float sum =
        block_weights(weights, row.z + v, count, row.largest, row.inverse_temperature);
    if (body(v, weights, count, sum)) return;
  }
}

int64_t draw_any(const Row& row, double u) {
  const double target = u * row.total;
  double sum = 0.0;
  int64_t id = -1;
  each_block(row, [&](int64_t first, const float* weights, int64_t count, float block_sum) {
    if (sum + static_cast<double>(block_sum) <= target && first + count < row.count) {
      sum += static_cast<double>(block_sum);
      return false;
    }
    for (int64_t v = 0; v < count; ++v) {
      if (weights[v] <= 0.0f) continue;
      id = first + v; /* rounding may leave the target unreached: then the last possible token */
      sum += static_cast<double>(weights[v]);
      if (sum > target) return true;
    }
    return false;
  });
  return id;
}

/* The kept head of the distribution in candidates[0 .. result), in falling order. */
int64_t keep_head(const rlsd_sample_args& a, const Row& row, Candidate* candidates) {
  const bool by_count = a.top_k > 0 && a.top_k < row.count;
  /* All tokens below (1 - top_p) total / V have together less than the mass that top_p leaves out.
   */
  double floor = by_count ? 0.0 : a.min_p;
  if (!by_count && a.top_p < 1.0) {
    floor = std::max(floor, 0.999 * (1.0 - a.top_p) * row.total / static_cast<double>(row.count));
  }
  int64_t kept = 0;
  each_block(row, [&](int64_t first, const float* weights, int64_t count, float) {
    for (int64_t v = 0; v < count; ++v) {
      if (static_cast<double>(weights[v]) >= floor && weights[v] > 0.0f) {
        candidates[kept++] = {weights[v], static_cast<int32_t>(first + v)};
      }
    }
    return false;
  });
  if (by_count && a.top_k < kept) {
    std::nth_element(candidates, candidates + a.top_k, candidates + kept, before);
    kept = a.top_k;
  }
  std::sort(candidates, candidates + kept, before);
  double mass = row.total;
  if (by_count) {
    mass = 0.0;
    for (int64_t i = 0; i < kept; ++i) mass += static_cast<double>(candidates[i].weight);
  }
  double sum = 0.0;
  int64_t head = 0;
  while (head < kept && (head == 0 || ((a.top_p >= 1.0 || sum < a.top_p * mass) &&
                                       static_cast<double>(candidates[head].weight) >= a.min_p))) {
    sum += static_cast<double>(candidates[head++].weight);
  }
  return head;
}

int64_t draw_head(const rlsd_sample_args& a, const Row& row, double u, Candidate* candidates) {
  const int64_t head = keep_head(a, row, candidates);
  double mass = 0.0, sum = 0.0;
  for (int64_t i = 0; i < head; ++i) mass += static_cast<double>(candidates[i].weight);
  for (int64_t i = 0; i < head; ++i) {
    sum += static_cast<double>(candidates[i].weight);
    if (sum > u * mass) return candidates[i].id;
  }
  return head > 0 ? candidates[head - 1].id : -1;
}

int64_t first_equal(const float* z, int64_t count, float value) {
  for (int64_t v = 0; v < count; ++v) {
    if (z[v] == value) return v;
  }
  return -1;
}

/* Token and log-prob of row i; token -1 when the row has a NaN, an infinity or nothing finite. */
void sample_row(const rlsd_sample_args& a, int64_t i, Candidate* candidates) {
  Row row = {f32(a.logits) + i * a.logits.stride[0], a.vocab_size, 0.0f,
             a.temperature > 0.0 ? static_cast<float>(1.0 / a.temperature) : 1.0f, 0.0};
  row.largest = largest_of(row.z, row.count);
  each_block(row, [&](int64_t, const float*, int64_t, float sum) {
    row.total += static_cast<double>(sum);
    return false;
  });
  int64_t id = -1;
  if (std::isfinite(row.total) && std::isfinite(row.largest)) {
    const PhiloxBlock random = philox(a.seed[i], a.counter[i], 0);
    const double u = philox_uniform(random.word[0], random.word[1]);
    if (a.temperature <= 0.0) {
      id = first_equal(row.z, row.count, row.largest);
    } else {
      id = candidates == nullptr ? draw_any(row, u) : draw_head(a, row, u, candidates);
    }
  }
  a.token_ids[i] = static_cast<int32_t>(id);
  a.log_probs[i] = id < 0 ? -HUGE_VALF
                          : static_cast<float>(static_cast<double>((row.z[id] - row.largest) *
                                                                   row.inverse_temperature) -
                                               std::log(row.total));
}

bool truncates(const rlsd_sample_args& a) {
  return a.temperature > 0.0 && (a.top_k > 0 || a.top_p < 1.0 || a.min_p > 0.0);
}

}  // namespace

rlsd_status sample_workspace(rlsd_context*, const rlsd_sample_args* a, uint64_t* bytes) {
  const int64_t rows = truncates(*a) ? std::min(kRowsAtOnce, a->logits.shape[0]) : 0;
  *bytes = static_cast<uint64_t>(rows * a->vocab_size) * sizeof(Candidate);
  return RLSD_OK;
}

rlsd_status sample(rlsd_context* context, const rlsd_sample_args* a) {
  uint64_t bytes = 0;
  sample_workspace(context, a, &bytes);
  if (!is_f32(a->logits, 2) || a->vocab_size < 1 || a->vocab_size > a->logits.shape[1]) {
    return fail(context, RLSD_UNSUPPORTED, -1,
                "sample: expected f32 logits (B, V) and vocab_size in 1 ... V.");
  }
  if (context->workspace_bytes < bytes) {
    return fail(context, RLSD_INVALID_ARGUMENT, -1, "sample: the workspace is too small.");
  }
  const int64_t rows = a->logits.shape[0];
  auto* candidates = bytes > 0 ? static_cast<Candidate*>(context->workspace) : nullptr;
  const int64_t at_once = candidates == nullptr ? std::max<int64_t>(rows, 1) : kRowsAtOnce;
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = std::min(at_once, rows - first);
    const rlsd_status status =
        parallel_rows(context, count, 24 * a->vocab_size, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            sample_row(*a, first + i,
                       candidates == nullptr ? nullptr : candidates + i * a->vocab_size);
          }
        });
    if (status != RLSD_OK) return status;
  }
  const int32_t* const end = a->token_ids + rows;
  const int32_t* const bad = std::find(static_cast<const int32_t*>(a->token_ids), end, -1);
  if (bad == end) return RLSD_OK;
  context->error_count = std::count(bad, end, -1);
  return fail(context, RLSD_NON_FINITE, bad - a->token_ids,
              "sample: row %lld has no finite distribution (%lld in all).",
              static_cast<long long>(bad - a->token_ids),
              static_cast<long long>(context->error_count));
}

}  // namespace rlsd::cpu
