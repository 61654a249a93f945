/* A forward pass over new tokens of sequences whose earlier ones are in the cache: of prompts, and
 * of what is drawn. Each row has the bits that a pass over its whole sequence gives it. */
#ifndef RLSD_MODEL_CACHED_PASS_H_
#define RLSD_MODEL_CACHED_PASS_H_

#include <cstdint>
#include <vector>

#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/model.h"

namespace rlsd::model {

/* New tokens of one sequence: the next `count` rows of the pass, from its position `from` on. */
struct NewTokens {
  const int32_t* ids; /* of the new ones */
  int64_t count, from;
  const CachedTokens* blocks; /* of all up to the last new one */
  int64_t there; /* the first so many tokens have their keys and values in the blocks already */
};

/* A row that is another sequence's token too: its keys and values go there as well. */
struct AlsoStored {
  int64_t row, position;
  const CachedTokens* blocks;
};

class CachedPass {
 public:
  /* `arrays` holds what the pass reads beside activations. */
  CachedPass(Model* model, Buffer* arrays) : m_(model), staging_(&model->device, arrays) {}

  /* Final hidden states of all rows into a->hidden. */
  rlsd_status forward(const std::vector<NewTokens>& tokens, const std::vector<AlsoStored>& also,
                      Activations* a);

 private:
  /* Where rows go. Device memory. */
  struct Places {
    float* const* blocks[kLayerKinds];
    const int32_t* positions;
    int64_t rows;
  };

  rlsd_status place(const std::vector<NewTokens>& tokens, const std::vector<AlsoStored>& also);
  rlsd_status place_kind(LayerKind kind, const std::vector<NewTokens>& tokens,
                         const std::vector<AlsoStored>& also);
  rlsd_status layer(int64_t i, Activations* a);
  rlsd_status store(int64_t i, const LayerActivations& l);

  Model* m_;
  Staging staging_;
  const int32_t *ids_ = nullptr, *also_rows_ = nullptr;
  Places own_ = {}, also_ = {};
  rlsd_attention_decode_args attention_[kLayerKinds] = {};
};

}  // namespace rlsd::model

#endif
