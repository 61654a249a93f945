#include "model/initialize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/philox.h"

namespace rlsd::model {
namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr int64_t kChunk = 1 << 20;

/* Two normal numbers by Box and Muller's transform; u1 in (0, 1]. */
void normal_pair(uint64_t key, uint64_t counter, double* a, double* b) {
  const PhiloxBlock random = philox(key, counter, 0);
  const double u1 = 1.0 - philox_uniform(random.word[0], random.word[1]);
  const double u2 = philox_uniform(random.word[2], random.word[3]);
  const double radius = std::sqrt(-2.0 * std::log(u1));
  *a = radius * std::cos(kTwoPi * u2);
  *b = radius * std::sin(kTwoPi * u2);
}

/* Parts of a parameter, each made by `make` (its numbers, and how many lie before them: even). */
template <class Make>
rlsd_status fill(Model* m, const Parameter& p, const Make& make) {
  std::vector<float> chunk;
  for (int64_t first = 0; first < p.count(); first += kChunk) {
    chunk.resize(static_cast<size_t>(std::min(kChunk, p.count() - first)));
    make(&chunk, static_cast<uint64_t>(first));
    RLSD_CHECK(m->write(Block::kWeights, p.offset + first, static_cast<int64_t>(chunk.size()),
                        RLSD_F32, chunk.data()));
  }
  return RLSD_OK;
}

/* Independent numbers in +-bound. */
rlsd_status fill_uniform(Model* m, const Parameter& p, uint64_t key, double bound) {
  return fill(m, p, [=](std::vector<float>* out, uint64_t first) {
    for (size_t i = 0; i < out->size(); ++i) {
      const PhiloxBlock random = philox(key, first + i, 0);
      const double u = philox_uniform(random.word[0], random.word[1]);
      (*out)[i] = static_cast<float>(bound * (2.0 * u - 1.0));
    }
  });
}

rlsd_status fill_normal(Model* m, const Parameter& p, uint64_t key, double deviation) {
  return fill(m, p, [=](std::vector<float>* out, uint64_t first) {
    for (size_t i = 0; i < out->size(); i += 2) {
      double a, b;
      normal_pair(key, (first + i) / 2, &a, &b);
      (*out)[i] = static_cast<float>(a * deviation);
      if (i + 1 < out->size()) (*out)[i + 1] = static_cast<float>(b * deviation);
    }
  });
}

bool ends_with(const std::string& text, const char* end) {
  const std::string tail(end);
  return text.size() >= tail.size() &&
         text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

}  // namespace

rlsd_status initialize(Model* m, uint64_t seed, double deviation, bool scale_residual) {
  const double residual =
      scale_residual ? 1.0 / std::sqrt(2.0 * static_cast<double>(m->config.layers)) : 1.0;
  for (size_t i = 0; i < m->layout.parameters.size(); ++i) {
    const Parameter& p = m->layout.parameters[i];
    if (p.rows > 0) {
      const bool into_stream =
          ends_with(p.name, "o_proj.weight") || ends_with(p.name, "down_proj.weight");
      RLSD_CHECK(
          fill_normal(m, p, stream_key(seed, i), deviation * (into_stream ? residual : 1.0)));
    } else if (ends_with(p.name, "norm.weight")) {
      const auto one = static_cast<float>(1.0 - m->config.norm_offset);
      const std::vector<float> ones(static_cast<size_t>(p.count()), one);
      RLSD_CHECK(m->write(Block::kWeights, p.offset, p.count(), RLSD_F32, ones.data()));
    }
  }
  return RLSD_OK;
}

rlsd_status initialize_adapters(Model* m, uint64_t seed) {
  constexpr size_t kNormalStreams = size_t{1} << 20; /* the weights' own streams come first */
  for (size_t i = 0; i < m->adapters.parameters.size(); i += 2) { /* A; its B stays 0 */
    const Parameter& a = m->adapters.parameters[i];
    const double bound = 1.0 / std::sqrt(static_cast<double>(a.columns));
    RLSD_CHECK(fill_uniform(m, a, stream_key(seed, kNormalStreams + i), bound));
  }
  return RLSD_OK;
}

}  // namespace rlsd::model
