/* policyLoss over tensors of a device. */
#include "napi/device_policy_loss.h"

#include <memory>
#include <utility>

#include "napi/addon_data.h"
#include "napi/device_call.h"
#include "napi/objective.h"

namespace rlsd::addon {
namespace {

/* Arguments of devicePolicyLoss, in the order of lib/native/device-binding.ts. */
enum Arg {
  kMeta = 0, /* Float64Array, see Meta */
  kObjective,
  kStream,
  kTokenIds,
  kCuSeqlens,
  kCompletionMask,
  kSpanMask,
  kAdvantages,
  kOldLogProbs,
  kRefLogProbs,
  kSamplerLogProbs,
  kStudent, /* log-probs or logits, rows */
  kTeacher = kStudent + 2,
  kContrast = kTeacher + 2,
  kOutLogProbs = kContrast + 2,
  kOutTeacherLogProbs,
  kOutTokenAdvantages,
  kOutEvidenceWeights,
  kOutGradientLogProbs,
  kOutGradientLogits,
  kReport,
  kArgCount
};

enum Meta {
  kBackend = 0,
  kDevice,
  kMode, /* DeviceMode */
  kTokens,
  kSequences,
  kAdvantagesPerToken,
  kLossScale,
  kSkipZeroRows,
  kClearOtherRows,
  kScores, /* kDeviceScoreFields, three times */
  kStats = kScores + 3 * kDeviceScoreFields, /* written unless the report is the caller's */
  kMetaCount = kStats + RLSD_STAT_COUNT
};

class PolicyCall final : public DeviceCall {
 public:
  bool fill(const DeviceArg* a);

 protected:
  rlsd_status op_workspace(uint64_t* bytes) override {
    if (backend->policy_loss == nullptr || backend->policy_loss_workspace == nullptr) return unsupported("policy_loss");
    point_report();
    return backend->policy_loss_workspace(&context, &batch_, &objective_, &outputs_, bytes);
  }
  rlsd_status op_enqueue() override {
    point_report();
    return backend->policy_loss(&context, &batch_, &objective_, &outputs_);
  }

 private:
  bool fill_inputs(const double* meta, const DeviceArg* a);
  bool fill_outputs(double* meta, const DeviceArg* a);
  void point_report() {
    outputs_.stats = device_report()->stats;
    outputs_.outcome = &device_report()->outcome;
    outputs_.loss = &device_report()->loss;
  }

  rlsd_objective objective_{};
  rlsd_policy_batch batch_{};
  rlsd_policy_outputs outputs_{};
};

bool PolicyCall::fill_inputs(const double* meta, const DeviceArg* a) {
  const auto n = static_cast<size_t>(meta[kTokens]), b = static_cast<size_t>(meta[kSequences]);
  const bool per_token = meta[kAdvantagesPerToken] != 0;
  batch_.tokens = static_cast<int64_t>(n);
  batch_.sequences = static_cast<int64_t>(b);
  batch_.advantages_per_token = per_token;
  const double* const s = meta + kScores;
  return a[kCuSeqlens].present() && a[kAdvantages].present() &&
         input(&batch_.token_ids, a[kTokenIds], napi_int32_array, n) &&
         input(&batch_.cu_seqlens, a[kCuSeqlens], napi_int32_array, b + 1) &&
         input(&batch_.completion_mask, a[kCompletionMask], napi_uint8_array, n) &&
         input(&batch_.span_mask, a[kSpanMask], napi_uint8_array, n) &&
         input(&batch_.advantages, a[kAdvantages], napi_float32_array, per_token ? n : b) &&
         input(&batch_.old_log_probs, a[kOldLogProbs], napi_float32_array, n) &&
         input(&batch_.ref_log_probs, a[kRefLogProbs], napi_float32_array, n) &&
         input(&batch_.sampler_log_probs, a[kSamplerLogProbs], napi_float32_array, n) &&
         scores(&batch_.student, s, a + kStudent, n) &&
         scores(&batch_.teacher, s + kDeviceScoreFields, a + kTeacher, n) &&
         scores(&batch_.contrast, s + 2 * kDeviceScoreFields, a + kContrast, n) && batch_.student.level != RLSD_ABSENT;
}

bool PolicyCall::fill_outputs(double* meta, const DeviceArg* a) {
  const auto n = static_cast<size_t>(meta[kTokens]);
  const rlsd_tensor& logits = batch_.student.logits;
  outputs_.skip_zero_rows = meta[kSkipZeroRows] != 0;
  outputs_.clear_other_rows = meta[kClearOtherRows] != 0;
  outputs_.loss_scale = meta[kLossScale];
  return a[kOutLogProbs].present() && a[kOutTokenAdvantages].present() && a[kOutEvidenceWeights].present() &&
         a[kOutGradientLogProbs].present() && output(&outputs_.log_probs, a[kOutLogProbs], napi_float32_array, n) &&
         output(&outputs_.teacher_log_probs, a[kOutTeacherLogProbs], napi_float32_array, n) &&
         output(&outputs_.token_advantages, a[kOutTokenAdvantages], napi_float32_array, n) &&
         output(&outputs_.evidence_weights, a[kOutEvidenceWeights], napi_float32_array, n) &&
         output(&outputs_.gradient_log_probs, a[kOutGradientLogProbs], napi_float32_array, n) &&
         tensor(&outputs_.gradient_logits, a[kOutGradientLogits], logits.dtype, logits.shape[0], logits.shape[1], true) &&
         report(a[kReport], a[kReport].present() ? nullptr : meta + kStats);
}

bool PolicyCall::fill(const DeviceArg* a) {
  if (!is_array(a[kMeta].array, napi_float64_array, kMetaCount) ||
      !is_array(a[kObjective].array, napi_float64_array, kObjectiveFields)) {
    return false;
  }
  auto* const meta = static_cast<double*>(a[kMeta].array.data);
  if (!(meta[kTokens] >= 0 && meta[kTokens] <= INT32_MAX && meta[kSequences] >= 0 && meta[kSequences] <= INT32_MAX)) {
    return false;
  }
  objective_ = decode_objective(static_cast<const double*>(a[kObjective].array.data));
  return bind_device(static_cast<int32_t>(meta[kBackend]), static_cast<int32_t>(meta[kDevice]), a[kStream]) &&
         fill_inputs(meta, a) && fill_outputs(meta, a);
}

/* devicePolicyLoss(every argument): a status, or a promise of an outcome when meta says so */
napi_value device_policy_loss(napi_env env, napi_callback_info info) {
  DeviceArg a[kArgCount];
  auto call = std::make_unique<PolicyCall>();
  if (!read_device_args<kArgCount>(env, info, a) || !call->fill(a)) {
    return refuse_device_args(env);
  }
  const auto mode = static_cast<DeviceMode>(static_cast<int>(static_cast<double*>(a[kMeta].array.data)[kMode]));
  /* Of the arguments only the results' arrays are touched after this. */
  DeviceArg held[kOutGradientLogProbs - kOutLogProbs + 2] = {a[kMeta]};
  for (int i = kOutLogProbs; i <= kOutGradientLogProbs; ++i) held[i - kOutLogProbs + 1] = a[i];
  return run_device_call(env, std::move(call), mode, held, sizeof(held) / sizeof(held[0]));
}

}  // namespace

void init_device_policy_loss(napi_env env, napi_value exports) {
  define(env, exports, "devicePolicyLoss", device_policy_loss);
}

}  // namespace rlsd::addon
