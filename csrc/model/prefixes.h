/* Sequences whose keys and values stay after they were drawn, so that later ones that begin alike
 * need not compute them again. */
#ifndef RLSD_MODEL_PREFIXES_H_
#define RLSD_MODEL_PREFIXES_H_

#include <cstdint>
#include <vector>

#include "model/kv_cache.h"

namespace rlsd::model {

/* Tokens that two texts begin with alike. */
int64_t common_tokens(const int32_t* a, int64_t a_length, const int32_t* b, int64_t b_length);

/* What a text can take from the cache: its first `tokens`, which `blocks` hold. */
struct Beginning {
  int64_t tokens = 0;
  const CachedTokens* blocks = nullptr;
  bool kept = false; /* from an earlier sequence */
};

class Prefixes {
 public:
  explicit Prefixes(KeyValueCache* cache) : cache_(cache) {}

  /* Bytes of blocks that may stay; 0: none, and what there was goes. */
  void limit(uint64_t bytes);
  bool enabled() const { return limit_ > 0; }

  /* `blocks` hold all of `ids`. What was not used for longest goes where that is too much. */
  void put(std::vector<int32_t> ids, CachedTokens blocks);
  /* The longest beginning of a text that is here, so that the rest of it can be computed: at least
   * its last token. It is good until something changes. */
  Beginning find(const int32_t* ids, int64_t length);

  /* What was not used for longest; false: there is nothing. */
  bool drop_oldest();
  void clear() { entries_.clear(); }

  /* Of blocks, each counted once. */
  uint64_t bytes() const;
  int64_t entries() const { return static_cast<int64_t>(entries_.size()); }

  /* Tokens of prompts that were taken from here, and that were computed, since the model is. */
  int64_t reused = 0, computed = 0;

 private:
  struct Entry {
    std::vector<int32_t> ids;
    CachedTokens blocks;
  };

  KeyValueCache* cache_;
  uint64_t limit_ = 0;
  std::vector<Entry> entries_; /* the one that was used last at the end */
};

}  // namespace rlsd::model

#endif
