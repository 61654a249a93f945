/* token_log_probs from hidden states and an LM head: the unmasked tokens' logits a chunk at a time, 2 N V H operations. */
#include "cpu/token_log_probs_head.h"

#include "cpu/head_logits.h"

namespace rlsd::cpu {
namespace {

struct Arrays {
  int32_t* owner; /* (rows of hidden) */
  int32_t* order; /* (N) */
  HeadChunk chunk;
};

uint64_t cut(const rlsd_context* context, const rlsd_token_log_probs_args& args, const HeadView& view, void* base,
             Arrays* a) {
  Workspace w(base);
  a->owner = w.cut<int32_t>(view.hidden.shape[0]);
  a->order = w.cut<int32_t>(args.tokens);
  a->chunk = cut_head_chunk(context, &view, 1, args.tokens, 1, &w);
  return w.bytes();
}

}  // namespace

rlsd_status token_log_probs_head_workspace(rlsd_context* context, const rlsd_token_log_probs_args& args,
                                           uint64_t* bytes) {
  Arrays a;
  *bytes = cut(context, args, head_view(args.scores), nullptr, &a);
  return RLSD_OK;
}

rlsd_status token_log_probs_head(rlsd_context* context, const rlsd_token_log_probs_args& args) {
  const HeadView view = head_view(args.scores);
  const TokenIds ids{args.tokens, args.token_ids, args.completion_mask};
  Arrays a;
  rlsd_status status = check_workspace(context, cut(context, args, view, context->workspace, &a));
  if (status == RLSD_OK) status = check_head(context, "scores", view, ids, a.owner);
  if (status != RLSD_OK) return status;
  int64_t count = 0;
  for (int64_t i = 0; i < args.tokens; ++i) {
    if (!ids.masked(i)) {
      a.order[count++] = static_cast<int32_t>(i);
      continue;
    }
    args.log_probs[i] = 0.0f;
    if (args.entropy != nullptr) args.entropy[i] = 0.0f;
  }
  const RowOptions options = row_options(args.temperature, args.logit_softcap, args.logit_rounding_bf16 != 0);
  return head_log_probs(context, view, ids, a.order, count, options, a.chunk, args.log_probs, args.entropy);
}

}  // namespace rlsd::cpu
