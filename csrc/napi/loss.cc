/* policyLoss: one call, synchronous or queued. */
#include "napi/loss.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "napi/addon_data.h"
#include "napi/op_call.h"
#include "napi/policy_args.h"

namespace rlsd::addon {
namespace {

class PolicyCall final : public OpCall {
 public:
  bool fill(PolicyArgs* args) {
    return args->fill(&batch, &objective, &outputs) &&
           bind(static_cast<int32_t>(args->meta(PolicyArgs::kBackend)), args->meta(PolicyArgs::kThreads));
  }

  bool own_inputs() override;

  rlsd_objective objective{};
  rlsd_policy_batch batch{};
  rlsd_policy_outputs outputs{};

 protected:
  rlsd_status workspace_bytes(uint64_t* bytes) override {
    if (backend->policy_loss == nullptr || backend->policy_loss_workspace == nullptr) return unsupported("policy_loss");
    return backend->policy_loss_workspace(&context, &batch, &objective, &outputs, bytes);
  }
  rlsd_status compute() override { return backend->policy_loss(&context, &batch, &objective, &outputs); }
};

bool PolicyCall::own_inputs() {
  rlsd_policy_batch* b = &batch;
  const auto n = static_cast<size_t>(b->tokens), s = static_cast<size_t>(b->sequences);
  return owned_.own(&b->token_ids, n) && owned_.own(&b->cu_seqlens, s + 1) && owned_.own(&b->completion_mask, n) &&
         owned_.own(&b->span_mask, n) && owned_.own(&b->advantages, b->advantages_per_token ? n : s) &&
         owned_.own(&b->old_log_probs, n) && owned_.own(&b->ref_log_probs, n) &&
         owned_.own(&b->sampler_log_probs, n) && owned_.own_scores(&b->student, n) &&
         owned_.own_scores(&b->teacher, n) && owned_.own_scores(&b->contrast, n);
}

napi_value start(napi_env env, PolicyArgs* args) {
  auto call = std::make_unique<PolicyCall>();
  if (!call->fill(args)) return args->refuse(env);
  ArrayArg held[PolicyArgs::kCancel - PolicyArgs::kStudent + 1] = {args->array(PolicyArgs::kMeta)};
  std::copy(&args->array(PolicyArgs::kStudent), &args->array(PolicyArgs::kCancel), held + 1);
  return queue_call(env, std::move(call), args->array(PolicyArgs::kCancel), held, sizeof(held) / sizeof(held[0]));
}

/* A status, or a promise of an outcome when meta says so. */
napi_value run_or_start(napi_env env, PolicyArgs* args) {
  if (args->meta(PolicyArgs::kAsync) != 0) return start(env, args);
  PolicyCall call;
  if (!call.fill(args)) return args->refuse(env);
  return run_call(env, &call);
}

/* policyLoss(every argument) */
napi_value policy_loss(napi_env env, napi_callback_info info) {
  PolicyArgs args;
  return args.read(env, info) ? run_or_start(env, &args) : args.refuse(env);
}

/* policyTokens(those of PolicyArgs::read_tokens): synchronous, log-probs only */
napi_value policy_tokens(napi_env env, napi_callback_info info) {
  PolicyArgs args;
  const bool sound = args.read_tokens(env, info) && args.meta(PolicyArgs::kAsync) == 0;
  return sound ? run_or_start(env, &args) : args.refuse(env);
}

}  // namespace

void init_loss(napi_env env, napi_value exports) {
  define(env, exports, "policyLoss", policy_loss);
  define(env, exports, "policyTokens", policy_tokens);
}

}  // namespace rlsd::addon
