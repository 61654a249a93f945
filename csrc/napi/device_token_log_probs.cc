/* tokenLogProbs over logits of a device. */
#include "napi/device_token_log_probs.h"

#include <memory>
#include <utility>

#include "napi/addon_data.h"
#include "napi/device_call.h"

namespace rlsd::addon {
namespace {

/* Arguments of deviceTokenLogProbs, in the order of lib/native/device-binding.ts. */
enum Arg {
  kMeta = 0, /* Float64Array, see Meta */
  kStream,
  kTokenIds,
  kCompletionMask,
  kScores, /* logits, rows */
  kOutLogProbs = kScores + 2,
  kOutEntropy,
  kReport,
  kArgCount
};

enum Meta {
  kBackend = 0,
  kDevice,
  kMode, /* DeviceMode */
  kTokens,
  kTemperature,
  kLogitSoftcap,
  kLogitRoundingBf16,
  kNonFiniteSkip,
  kView, /* kDeviceScoreFields */
  kMetaCount = kView + kDeviceScoreFields
};

class TokenLogProbsCall final : public DeviceCall {
 public:
  bool fill(const DeviceArg* a);

 protected:
  rlsd_status op_workspace(uint64_t* bytes) override {
    if (backend->token_log_probs == nullptr || backend->token_log_probs_workspace == nullptr) {
      return unsupported("token_log_probs");
    }
    return backend->token_log_probs_workspace(&context, &args_, bytes);
  }
  rlsd_status op_enqueue() override {
    args_.outcome = &device_report()->outcome;
    return backend->token_log_probs(&context, &args_);
  }

 private:
  rlsd_token_log_probs_args args_{};
};

bool TokenLogProbsCall::fill(const DeviceArg* a) {
  if (!is_array(a[kMeta].array, napi_float64_array, kMetaCount)) return false;
  const auto* const meta = static_cast<const double*>(a[kMeta].array.data);
  if (!(meta[kTokens] >= 0 && meta[kTokens] <= INT32_MAX)) return false;
  const auto n = static_cast<size_t>(meta[kTokens]);
  args_.tokens = static_cast<int64_t>(n);
  args_.temperature = meta[kTemperature];
  args_.logit_softcap = meta[kLogitSoftcap];
  args_.logit_rounding_bf16 = meta[kLogitRoundingBf16] != 0;
  args_.non_finite_skip = meta[kNonFiniteSkip] != 0;
  return bind_device(static_cast<int32_t>(meta[kBackend]), static_cast<int32_t>(meta[kDevice]), a[kStream]) &&
         a[kTokenIds].present() && a[kOutLogProbs].present() &&
         input(&args_.token_ids, a[kTokenIds], napi_int32_array, n) &&
         input(&args_.completion_mask, a[kCompletionMask], napi_uint8_array, n) &&
         scores(&args_.scores, meta + kView, a + kScores, n) &&
         output(&args_.log_probs, a[kOutLogProbs], napi_float32_array, n) &&
         output(&args_.entropy, a[kOutEntropy], napi_float32_array, n) && report(a[kReport], nullptr);
}

/* deviceTokenLogProbs(every argument): a status, or a promise of an outcome when meta says so */
napi_value device_token_log_probs(napi_env env, napi_callback_info info) {
  DeviceArg a[kArgCount];
  auto call = std::make_unique<TokenLogProbsCall>();
  if (!read_device_args<kArgCount>(env, info, a) || !call->fill(a)) {
    return refuse_device_args(env);
  }
  const auto mode = static_cast<DeviceMode>(static_cast<int>(static_cast<double*>(a[kMeta].array.data)[kMode]));
  return run_device_call(env, std::move(call), mode, a + kOutLogProbs, 2);
}

}  // namespace

void init_device_token_log_probs(napi_env env, napi_value exports) {
  define(env, exports, "deviceTokenLogProbs", device_token_log_probs);
}

}  // namespace rlsd::addon
