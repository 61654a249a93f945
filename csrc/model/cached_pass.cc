#include "model/cached_pass.h"

#include <algorithm>

namespace rlsd::model {
namespace {

float* block_at(const CachedTokens& blocks, LayerKind kind, int64_t position) {
  return blocks.of[kind][static_cast<size_t>(position / RLSD_KEY_BLOCK)]->floats();
}

}  // namespace

/* What the layers of one kind read: each sequence's blocks, and the block that takes each row. */
rlsd_status CachedPass::place_kind(LayerKind kind, const std::vector<NewTokens>& tokens,
                                   const std::vector<AlsoStored>& also) {
  size_t most = 0;
  for (const NewTokens& t : tokens) most = std::max(most, t.blocks->of[kind].size());
  std::vector<float*> blocks(tokens.size() * most, nullptr), ends, also_ends;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const NewTokens& t = tokens[i];
    const std::vector<CacheBlock>& all = t.blocks->of[kind];
    for (size_t j = 0; j < all.size(); ++j) {
      if (all[j] != nullptr) blocks[i * most + j] = all[j]->floats();
    }
    for (int64_t p = t.from; p < t.from + t.count; ++p) {
      ends.push_back(p < t.there ? nullptr : block_at(*t.blocks, kind, p));
    }
  }
  for (const AlsoStored& s : also) also_ends.push_back(block_at(*s.blocks, kind, s.position));
  rlsd_attention_decode_args* const args = &attention_[kind];
  args->most_blocks = static_cast<int64_t>(most);
  RLSD_CHECK(staging_.put(blocks.data(), static_cast<int64_t>(blocks.size()), &args->blocks));
  RLSD_CHECK(staging_.put(ends.data(), own_.rows, &own_.blocks[kind]));
  return staging_.put(also_ends.data(), also_.rows, &also_.blocks[kind]);
}

rlsd_status CachedPass::place(const std::vector<NewTokens>& tokens,
                              const std::vector<AlsoStored>& also) {
  const KeyValueCache& cache = m_->cache;
  std::vector<int32_t> ids, positions, lengths, also_positions, also_rows, cu = {0};
  uint64_t tables = 0;
  for (const NewTokens& t : tokens) {
    ids.insert(ids.end(), t.ids, t.ids + t.count);
    for (int64_t p = t.from; p < t.from + t.count; ++p)
      positions.push_back(static_cast<int32_t>(p));
    lengths.push_back(static_cast<int32_t>(t.from + t.count));
    cu.push_back(static_cast<int32_t>(ids.size()));
    for (const auto& blocks : t.blocks->of) tables = std::max<uint64_t>(tables, blocks.size());
  }
  for (const AlsoStored& s : also) {
    also_positions.push_back(static_cast<int32_t>(s.position));
    also_rows.push_back(static_cast<int32_t>(s.row));
  }
  own_.rows = static_cast<int64_t>(ids.size());
  also_.rows = static_cast<int64_t>(also.size());
  const auto sequences = static_cast<int64_t>(tokens.size());
  const auto bytes = [](uint64_t count, size_t size) { return Staging::padded(count * size); };
  RLSD_CHECK(staging_.reserve(
      2 * bytes(ids.size(), 4) + 2 * bytes(also.size(), 4) + 2 * bytes(cu.size(), 4) +
      kLayerKinds * (bytes(tables * tokens.size(), sizeof(float*)) +
                     bytes(ids.size(), sizeof(float*)) + bytes(also.size(), sizeof(float*)))));
  RLSD_CHECK(staging_.put(ids.data(), own_.rows, &ids_));
  RLSD_CHECK(staging_.put(positions.data(), own_.rows, &own_.positions));
  RLSD_CHECK(staging_.put(also_positions.data(), also_.rows, &also_.positions));
  RLSD_CHECK(staging_.put(also_rows.data(), also_.rows, &also_rows_));
  const int32_t *device_lengths, *device_cu;
  RLSD_CHECK(staging_.put(lengths.data(), sequences, &device_lengths));
  RLSD_CHECK(staging_.put(cu.data(), sequences + 1, &device_cu));
  for (const LayerKind kind : kEachKind) {
    if (!cache.has(kind)) continue;
    attention_[kind].sequences = sequences;
    attention_[kind].lengths = device_lengths;
    attention_[kind].cu_queries = device_cu;
    RLSD_CHECK(place_kind(kind, tokens, also));
  }
  return RLSD_OK;
}

/* The keys and values of every row, and of those that several sequences have. */
rlsd_status CachedPass::store(int64_t i, const LayerActivations& l) {
  KeyValueCache* const cache = &m_->cache;
  const LayerKind kind = cache->kind_of(i);
  RLSD_CHECK(cache->append(i, l.k, l.v, own_.rows, own_.blocks[kind], own_.positions));
  if (also_.rows == 0) return RLSD_OK;
  const int64_t width = m_->config.kv_width(), floats = also_.rows * width;
  const auto bytes = Staging::padded(static_cast<uint64_t>(floats) * sizeof(float));
  Staging copies(&m_->device, &m_->copies);
  RLSD_CHECK(copies.reserve(2 * bytes));
  float *const k = copies.take<float>(floats), *const v = copies.take<float>(floats);
  for (const auto& [to, from] : {std::pair(k, l.k), std::pair(v, l.v)}) {
    RLSD_CHECK(m_->device.gather(matrix(to, also_.rows, width), matrix(from, own_.rows, width),
                                 also_rows_));
  }
  return cache->append(i, k, v, also_.rows, also_.blocks[kind], also_.positions);
}

rlsd_status CachedPass::layer(int64_t i, Activations* a) {
  const Config& c = m_->config;
  const LayerActivations& l = a->layers[static_cast<size_t>(i)];
  RLSD_CHECK(project(m_, i, own_.rows, own_.positions, a));
  RLSD_CHECK(store(i, l));
  rlsd_attention_decode_args args = attention_[m_->cache.kind_of(i)];
  args.q = cube(l.q, own_.rows, c.heads, c.head_dim);
  args.out = cube(l.out, own_.rows, c.heads, c.head_dim);
  args.kv_heads = c.kv_heads;
  args.k_offset = m_->cache.keys_at(i);
  args.v_offset = m_->cache.values_at(i);
  args.scale = c.attention_scale;
  args.window = c.window_of(i);
  RLSD_CHECK(m_->device.table().attention_decode(m_->device.context(), &args));
  return finish_layer(m_, i, own_.rows, l.x, a);
}

rlsd_status CachedPass::forward(const std::vector<NewTokens>& tokens,
                                const std::vector<AlsoStored>& also, Activations* a) {
  RLSD_CHECK(place(tokens, also));
  RLSD_CHECK(prepare(&m_->device, m_->config, own_.rows, Keep::kNothing, a));
  RLSD_CHECK(embed(m_, ids_, own_.rows, a->layers[0].x));
  for (int64_t i = 0; i < m_->config.layers; ++i) RLSD_CHECK(layer(i, a));
  return final_norm(m_, own_.rows, a);
}

}  // namespace rlsd::model
