/* Batched sampling with a key and value cache. */
#ifndef RLSD_MODEL_GENERATE_H_
#define RLSD_MODEL_GENERATE_H_

#include <cstdint>
#include <vector>

#include "model/model.h"
#include "model/prefill.h"

namespace rlsd::model {

struct GenerateOptions {
  int64_t count;     /* completions of each prompt */
  int64_t max_slots; /* sequences that run at once */
  double temperature, top_p, min_p;
  int32_t top_k;
  std::vector<uint64_t> seeds; /* one, or (prompts) */
  std::vector<int32_t> stop_ids;
  std::vector<int32_t> max_tokens; /* (prompts): of a completion of each */
};

enum Finish : int32_t { kRunning = 0, kStopped = 1, kLength = 2 };

/* One drawn token. sequence = prompt * count + completion. */
struct Draw {
  int32_t sequence, token, finish;
  float log_prob;
};

/* One call's sequences. Sequence s draws its t-th token from the random stream (seed, s) at t, or
 * where prompts have seeds of their own from (seed of its prompt, its completion) at t: neither the
 * memory nor the other sequences matter. Waiting sequences enter when at most half of those run that
 * ran when sequences entered last, so that prompts are computed together.
 *
 * Completions of one prompt share its computation and the blocks that it fills; a prompt takes the
 * longest beginning that it has in common with what is in the cache from there, and what it has in
 * common with the one before it in a pass is computed once. Where memory runs out, fewer sequences
 * enter, and the youngest that run are put back: what they had drawn is computed again when they
 * enter next. The oldest is never put back while another runs, so that there is always one that
 * ends. Where the model keeps prefixes, those that end stay there. */
class Generation {
 public:
  Generation(Model* model, std::vector<int32_t> ids, std::vector<int32_t> cu_prompts,
             const GenerateOptions& options);

  /* Draws one token for every running sequence, `steps` times or until none is left; appends to
   * `draws`. */
  rlsd_status run(int64_t steps, std::vector<Draw>* draws);

  /* Ends a sequence: its text met a stop string. */
  void stop(int64_t sequence);

  bool done() const { return active_.empty() && !waiting(); }

  void release();

 private:
  struct Sequence {
    int64_t index;
    std::vector<int32_t> drawn;
    /* Of the prompt and all drawn tokens but the last. Empty where the sequence does not run. */
    CachedTokens blocks;
    bool ended = false;
  };

  /* The prompt whose completions enter now. */
  struct Prompt {
    int64_t index = -1;
    CachedTokens blocks;   /* the last ones as the prompt alone fills them */
    int64_t tokens = 0;    /* that they hold */
    int64_t computed = -1; /* by this text of the pass that is being made; -1: before */
    Buffer hidden;         /* (H) of its last token, while completions wait */
  };

  /* Sequences that enter together: those active from `first` on. */
  struct Entering {
    size_t first;
    bool alone; /* there is memory for one: it takes its prompt's last block from those that wait */
    Prefill prefill;               /* what is computed for them */
    std::vector<int32_t> computed; /* by entering sequence: its text; -1: before */
    std::vector<BlockCopy> copies; /* once all is computed */
    int64_t reused;                /* tokens that were kept of earlier sequences */
  };

  int64_t prompt_of(const Sequence& s) const { return s.index / o_.count; }
  int64_t prompt_length(int64_t p) const {
    return cu_prompts_[static_cast<size_t>(p) + 1] - cu_prompts_[static_cast<size_t>(p)];
  }
  const int32_t* prompt_ids(int64_t p) const {
    return ids_.data() + cu_prompts_[static_cast<size_t>(p)];
  }
  /* Tokens in the cache once something is drawn. */
  int64_t cached(const Sequence& s) const {
    return prompt_length(prompt_of(s)) + static_cast<int64_t>(s.drawn.size()) - 1;
  }
  bool waiting() const { return !put_back_.empty() || next_ < total_; }

  /* admit.cc */
  rlsd_status admit(std::vector<Draw>* draws);
  rlsd_status gather(int64_t most, Entering* e);
  rlsd_status enter(Entering* e, bool* entered);
  rlsd_status enter_again(Entering* e, bool* entered);
  rlsd_status add_text(std::vector<int32_t> ids, uint64_t bytes, Entering* e, bool* added);
  bool has_room(uint64_t bytes);
  Beginning beginning_of(const std::vector<int32_t>& ids, const Entering& e);
  rlsd_status compute(const Entering& e, std::vector<Draw>* draws);
  void remember(const Entering& e);
  void undo(const Entering& e);

  rlsd_status pack_weights();
  rlsd_status decode(std::vector<Draw>* draws);
  rlsd_status step(std::vector<Draw>* draws);
  /* Samples for active_[first ..] from rows of activations.hidden, in order. */
  rlsd_status sample(size_t first, const float* hidden, std::vector<Draw>* draws);
  rlsd_status sample_chunk(size_t first, int64_t count, const float* hidden);
  rlsd_status draw(size_t first, rlsd_tensor logits, int32_t* token_ids, float* log_probs);
  rlsd_status score_drawn(rlsd_tensor logits, const int32_t* token_ids, float* log_probs);
  rlsd_status named(rlsd_status status, size_t first);
  uint64_t stream_of(const Sequence& s) const;
  void retire();
  /* Where the model keeps prefixes, what a sequence has in the cache stays there. */
  void keep(const Sequence& s);
  /* Gives up some memory for the sequences that run; false: there is none left to give. */
  bool make_room();
  void put_back();
  /* Gives back what the model keeps for its next pass; false: there is none. */
  bool release_scratch();
  /* Gives back what calls make again when they need it. */
  void release_buffers();

  Model* m_;
  const std::vector<int32_t> ids_, cu_prompts_;
  const GenerateOptions o_;
  const int64_t total_;
  int64_t next_ = 0;    /* first sequence that has never entered */
  int64_t running_ = 0; /* when sequences entered last */
  bool began_ = false;
  KeyValueCache& cache_;
  Prefixes& prefixes_;
  Prompt prompt_;
  std::vector<Sequence> active_;   /* the oldest first */
  std::vector<Sequence> put_back_; /* the next to enter last */
  std::vector<int32_t> tokens_;    /* drawn in this step, beside active_ */
  std::vector<float> log_probs_;
  Buffer arrays_, logits_, rows_, ends_; /* ends_: (texts, H) of a pass's last tokens */
  Activations activations_;
};

}  // namespace rlsd::model

#endif
