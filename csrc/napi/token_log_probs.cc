/* tokenLogProbs: one call, synchronous or queued. */
#include "napi/token_log_probs.h"

#include <memory>
#include <utility>

#include "napi/addon_data.h"
#include "napi/op_call.h"

namespace rlsd::addon {
namespace {

/* Arguments, in the order of lib/native/binding.ts. */
enum Arg {
  kMeta = 0, /* Float64Array, see Meta */
  kTokenIds,
  kCompletionMask,
  kScores, /* kScoreArrays of them */
  kOutLogProbs = kScores + kScoreArrays,
  kOutEntropy,
  kCancel, /* Int32Array(kCancelFlags) */
  kArgCount
};

enum Meta {
  kBackend = 0,
  kAsync,
  kTokens,
  kThreads,
  kTemperature,
  kLogitSoftcap,
  kLogitRoundingBf16,
  kNonFiniteSkip,
  kView, /* kScoreFields of them */
  kMetaCount = kView + kScoreFields
};

class TokenLogProbsCall final : public OpCall {
 public:
  bool own_inputs() override {
    const auto n = static_cast<size_t>(args.tokens);
    return owned_.own(&args.token_ids, n) && owned_.own(&args.completion_mask, n) &&
           owned_.own_scores(&args.scores, n);
  }

  rlsd_token_log_probs_args args{};

 protected:
  rlsd_status workspace_bytes(uint64_t* bytes) override {
    if (backend->token_log_probs == nullptr || backend->token_log_probs_workspace == nullptr) {
      return unsupported("token_log_probs");
    }
    return backend->token_log_probs_workspace(&context, &args, bytes);
  }
  rlsd_status compute() override { return backend->token_log_probs(&context, &args); }
};

bool read(napi_env env, napi_callback_info info, ArrayArg* a) {
  return read_arrays<kArgCount>(env, info, a) && is_array(a[kMeta], napi_float64_array, kMetaCount) &&
         static_cast<double*>(a[kMeta].data)[kTokens] >= 0;
}

bool fill(const ArrayArg* a, TokenLogProbsCall* call) {
  const auto* meta = static_cast<const double*>(a[kMeta].data);
  const auto n = static_cast<size_t>(meta[kTokens]);
  if (!is_array(a[kTokenIds], napi_int32_array, n) || !is_array_or_absent(a[kCompletionMask], napi_uint8_array, n) ||
      !is_array(a[kOutLogProbs], napi_float32_array, n) ||
      !is_array_or_absent(a[kOutEntropy], napi_float32_array, n) ||
      !is_array_or_absent(a[kCancel], napi_int32_array, kCancelFlags)) {
    return false;
  }
  rlsd_token_log_probs_args& args = call->args;
  args.tokens = static_cast<int64_t>(n);
  args.token_ids = static_cast<const int32_t*>(a[kTokenIds].data);
  args.completion_mask = static_cast<const uint8_t*>(a[kCompletionMask].data);
  args.temperature = meta[kTemperature];
  args.logit_softcap = meta[kLogitSoftcap];
  args.logit_rounding_bf16 = meta[kLogitRoundingBf16] != 0;
  args.non_finite_skip = meta[kNonFiniteSkip] != 0;
  args.log_probs = static_cast<float*>(a[kOutLogProbs].data);
  args.entropy = static_cast<float*>(a[kOutEntropy].data);
  return read_scores(meta + kView, a + kScores, n, &args.scores) &&
         call->bind(static_cast<int32_t>(meta[kBackend]), meta[kThreads]);
}

/* tokenLogProbs(every argument): a status, or a promise of an outcome when meta says so */
napi_value token_log_probs(napi_env env, napi_callback_info info) {
  ArrayArg a[kArgCount];
  auto call = std::make_unique<TokenLogProbsCall>();
  if (!read(env, info, a) || !fill(a, call.get())) {
    return refuse(env, RLSD_INVALID_ARGUMENT, "tokenLogProbs was called with wrong arguments.");
  }
  if (static_cast<double*>(a[kMeta].data)[kAsync] == 0) return run_call(env, call.get());
  return queue_call(env, std::move(call), a[kCancel], a + kScores, kCancel - kScores);
}

}  // namespace

void init_token_log_probs(napi_env env, napi_value exports) {
  define(env, exports, "tokenLogProbs", token_log_probs);
}

}  // namespace rlsd::addon
