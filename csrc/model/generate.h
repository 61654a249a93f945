/* Batched sampling with a key and value cache. */
#ifndef RLSD_MODEL_GENERATE_H_
#define RLSD_MODEL_GENERATE_H_

#include <cstdint>
#include <vector>

#include "model/batch.h"
#include "model/kv_cache.h"

namespace rlsd::model {

struct GenerateOptions {
  int64_t count;      /* completions of each prompt */
  int64_t max_tokens; /* of a completion */
  int64_t max_slots;  /* sequences in the cache at once */
  double temperature, top_p, min_p;
  int32_t top_k;
  uint64_t seed;
  std::vector<int32_t> stop_ids;
};

enum Finish : int32_t { kRunning = 0, kStopped = 1, kLength = 2 };

/* One drawn token. sequence = prompt * count + completion. */
struct Draw {
  int32_t sequence, token, finish;
  float log_prob;
};

/* One call's sequences. Sequence s draws its t-th token from the random stream (seed, s) at t:
 * neither the slots nor the other sequences matter. Waiting sequences enter when at least half of
 * the slots are free, so that prompts are computed together; completions of one prompt that enter
 * together share its computation. */
class Generation {
 public:
  Generation(Model* model, std::vector<int32_t> ids, std::vector<int32_t> cu_prompts,
             const GenerateOptions& options);

  /* Draws one token for every running sequence, `steps` times or until none is left; appends to
   * `draws`. */
  rlsd_status run(int64_t steps, std::vector<Draw>* draws);

  /* Ends a sequence: its text met a stop string. */
  void stop(int64_t sequence);

  bool done() const { return active_.empty() && next_ == total_; }

  void release();

 private:
  struct Active {
    int64_t sequence;
    int32_t slot, length, drawn, last; /* length: tokens in the cache */
  };

  int64_t prompt_length(int64_t p) const {
    return cu_prompts_[static_cast<size_t>(p) + 1] - cu_prompts_[static_cast<size_t>(p)];
  }

  rlsd_status make_cache();
  rlsd_status admit(std::vector<Draw>* draws);
  rlsd_status prefill(size_t first, size_t last, std::vector<Draw>* draws);
  rlsd_status decode(std::vector<Draw>* draws);
  /* Samples for active_[first ..] from rows of activations.hidden, in order. */
  rlsd_status sample(size_t first, const float* hidden, std::vector<Draw>* draws);
  rlsd_status sample_chunk(size_t first, int64_t count, const float* hidden);
  void retire();

  Model* m_;
  const std::vector<int32_t> ids_, cu_prompts_;
  const GenerateOptions o_;
  const int64_t total_;
  int64_t next_ = 0; /* first sequence that has not entered */
  std::vector<Active> active_;
  std::vector<int32_t> free_slots_;
  std::vector<int32_t> tokens_; /* drawn in this step, beside active_ */
  std::vector<float> log_probs_;
  KeyValueCache cache_;
  Buffer arrays_, logits_, rows_;
  Activations activations_;
};

}  // namespace rlsd::model

#endif
