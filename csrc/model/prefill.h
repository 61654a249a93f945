/* Texts that are computed into the cache together, each but for a beginning that is there already
 * or that it has in common with the one before it. */
#ifndef RLSD_MODEL_PREFILL_H_
#define RLSD_MODEL_PREFILL_H_

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "model/cached_pass.h"
#include "model/prefixes.h"

namespace rlsd::model {

class Prefill {
 public:
  struct Text {
    std::vector<int32_t> ids;
    CachedTokens blocks;
    int64_t from = 0, there = 0; /* as NewTokens has them */
    int64_t alike = 0;           /* tokens that the text before it has; 0: those are not taken */
    /* Blocks that hold some of its tokens already and become its own by a copy. */
    std::array<CacheBlock, kLayerKinds> partial = {};
    std::vector<int64_t> row_of = {}; /* by token, of the pass; -1: computed before */

    int64_t length() const { return static_cast<int64_t>(ids.size()); }
    int64_t rows() const { return length() - from; }
  };

  /* What a text takes of `there`, or of the last text where that has more. */
  Text begin(const KeyValueCache& cache, std::vector<int32_t> ids, const Beginning& there) const;
  /* Takes the blocks that it needs beside. */
  rlsd_status add(KeyValueCache* cache, Text text);
  /* Computes all of them; `ends` (texts, H): hidden states of their last tokens. */
  rlsd_status run(Model* model, Buffer* arrays, Buffer* ends) const;

  const std::deque<Text>& texts() const { return texts_; }
  int64_t rows() const { return rows_; }

 private:
  rlsd_status run_rows(Model* model, Buffer* arrays, int64_t begin, int64_t end, float* ends) const;
  rlsd_status put_ends(Model* model, Buffer* arrays, int64_t begin, int64_t end, float* ends) const;

  std::deque<Text> texts_; /* none moves when another comes: rows are stored by their address */
  std::vector<AlsoStored> also_;
  std::vector<BlockCopy> copies_;
  int64_t rows_ = 0;
};

}  // namespace rlsd::model

#endif
