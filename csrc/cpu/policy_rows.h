/* What the logits level and the head level ask about a row: is it needed, and what is its gradient's coefficient. */
#ifndef RLSD_CPU_POLICY_ROWS_H_
#define RLSD_CPU_POLICY_ROWS_H_

#include <algorithm>

#include "core/policy_pass.h"
#include "cpu/policy_tokens.h"
#include "cpu/softmax_row.h"

namespace rlsd::cpu {

struct PolicyRows {
  PolicyTokens p{};
  const rlsd_objective* o = nullptr;
  double loss_scale = 1.0;
  SequenceTerms* terms = nullptr; /* (B) */
  int64_t batch_tokens = 0;
  bool whole_sequences = false; /* a row's coefficient depends on the log-probs of its whole sequence */
  uint8_t* moved = nullptr; /* (B): 0 where no token of a sequence can have a gradient. NULL: a token alone says */

  /* Memory for B of each. */
  void begin(SequenceTerms* of_sequences, uint8_t* moved_sequences) {
    terms = of_sequences;
    batch_tokens = count_tokens(p);
    whole_sequences = needs_whole_sequence(*o, p.teacher != nullptr, p.sampler_log_probs != nullptr);
    if (!whole_sequences || !p.advantages_per_token) return;
    moved = moved_sequences;
    for (int64_t b = 0; b < p.sequences; ++b) moved[b] = may_move(b);
  }

  void find_terms(bool with_log_probs) {
    PolicyTokens q = p;
    if (!with_log_probs) q.log_probs = nullptr;
    for (int64_t b = 0; b < p.sequences; ++b) terms[b] = sequence_terms(q, *o, batch_tokens, b);
  }

  int64_t sequence_of(int64_t token) const {
    const int32_t* const end = p.cu_seqlens + p.sequences + 1;
    return std::upper_bound(p.cu_seqlens, end, static_cast<int32_t>(token)) - p.cu_seqlens - 1;
  }

  /* True when a token's gradient is 0 whatever its logits are. Under whole-sequence objectives with an advantage of
   * its own, only when that holds for its whole sequence. */
  bool has_no_gradient(int64_t sequence, int64_t token) const {
    return moved != nullptr ? moved[sequence] == 0 : known_zero(p, *o, sequence, token);
  }

  /* Needs the token's log-probs, and its sequence's terms. 0 for a bad row. */
  RowGradient gradient(int64_t sequence, int64_t token) const {
    const RowCoefficients g = row_coefficients(*o, loss_scale, terms[sequence], token_input(p, sequence, token));
    return {g.log_prob, g.entropy};
  }

 private:
  bool may_move(int64_t sequence) const {
    for (int64_t i = p.cu_seqlens[sequence]; i < p.cu_seqlens[sequence + 1]; ++i) {
      if (!is_masked(p, i) && !known_zero(p, *o, sequence, i)) return true;
    }
    return false;
  }
};

}  // namespace rlsd::cpu

#endif
