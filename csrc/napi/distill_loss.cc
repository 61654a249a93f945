/* distillLoss: one call, synchronous or queued. */
#include "napi/distill_loss.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "napi/addon_data.h"
#include "napi/op_call.h"

namespace rlsd::addon {
namespace {

/* Arguments, in the order of lib/native/binding.ts. */
enum Arg {
  kMeta = 0, /* Float64Array, see Meta */
  kCuSeqlens,
  kCompletionMask,
  kStudent, /* kScoreArrays of them */
  kTeacher = kStudent + kScoreArrays,
  kOutTokenLosses = kTeacher + kScoreArrays,
  kOutGradientLogits,
  kOutGradientHidden,
  kOutGradientHead,
  kOutGradientBias,
  kCancel, /* Int32Array(kCancelFlags) */
  kArgCount
};

enum Meta {
  kBackend = 0,
  kAsync,
  kTokens,
  kSequences,
  kThreads,
  kDivergence,
  kReduction,
  kTopK,
  kTail,
  kNonFiniteSkip,
  kAccumulate,
  kClearOtherRows,
  kBeta,
  kValueClamp,
  kTemperature,
  kLogitSoftcap,
  kNormalizer,
  kLossScale,
  kViews, /* kScoreFields of the student, then of the teacher */
  kOutDtypes = kViews + 2 * kScoreFields, /* logits, hidden, head, bias */
  kStats = kOutDtypes + 4,                /* written: RLSD_DISTILL_STATS of them */
  kMetaCount = kStats + RLSD_DISTILL_STATS
};

class DistillLossCall final : public OpCall {
 public:
  bool own_inputs() override {
    const auto n = static_cast<size_t>(args.tokens);
    return owned_.own(&args.cu_seqlens, static_cast<size_t>(args.sequences) + 1) &&
           owned_.own(&args.completion_mask, n) && owned_.own_scores(&args.student, n) &&
           owned_.own_scores(&args.teacher, n);
  }

  rlsd_distill_args args{};

 protected:
  rlsd_status workspace_bytes(uint64_t* bytes) override {
    if (backend->distill_loss == nullptr || backend->distill_loss_workspace == nullptr) {
      return unsupported("distill_loss");
    }
    return backend->distill_loss_workspace(&context, &args, bytes);
  }
  rlsd_status compute() override { return backend->distill_loss(&context, &args); }
};

bool read(napi_env env, napi_callback_info info, ArrayArg* a) {
  if (!read_arrays<kArgCount>(env, info, a) || !is_array(a[kMeta], napi_float64_array, kMetaCount)) return false;
  const auto* meta = static_cast<const double*>(a[kMeta].data);
  return meta[kTokens] >= 0 && meta[kSequences] >= 0;
}

void fill_options(const double* meta, rlsd_distill_args* args) {
  args->tokens = static_cast<int64_t>(meta[kTokens]);
  args->sequences = static_cast<int64_t>(meta[kSequences]);
  args->divergence = static_cast<int32_t>(meta[kDivergence]);
  args->reduction = static_cast<int32_t>(meta[kReduction]);
  args->top_k = static_cast<int32_t>(meta[kTopK]);
  args->tail = meta[kTail] != 0;
  args->non_finite_skip = meta[kNonFiniteSkip] != 0;
  args->accumulate = meta[kAccumulate] != 0;
  args->clear_other_rows = meta[kClearOtherRows] != 0;
  args->beta = meta[kBeta];
  args->value_clamp = meta[kValueClamp];
  args->temperature = meta[kTemperature];
  args->logit_softcap = meta[kLogitSoftcap];
  args->normalizer = meta[kNormalizer];
  args->loss_scale = meta[kLossScale];
}

bool fill(const ArrayArg* a, DistillLossCall* call) {
  auto* meta = static_cast<double*>(a[kMeta].data);
  rlsd_distill_args& args = call->args;
  fill_options(meta, &args);
  const auto n = static_cast<size_t>(args.tokens), b = static_cast<size_t>(args.sequences);
  if (!is_array(a[kCuSeqlens], napi_int32_array, b + 1) ||
      !is_array_or_absent(a[kCompletionMask], napi_uint8_array, n) ||
      !is_array_or_absent(a[kOutTokenLosses], napi_float32_array, n) ||
      !is_array_or_absent(a[kCancel], napi_int32_array, kCancelFlags)) {
    return false;
  }
  args.cu_seqlens = static_cast<const int32_t*>(a[kCuSeqlens].data);
  args.completion_mask = static_cast<const uint8_t*>(a[kCompletionMask].data);
  args.token_losses = static_cast<float*>(a[kOutTokenLosses].data);
  args.stats = meta + kStats;
  const double* views = meta + kViews;
  return read_scores(views, a + kStudent, n, &args.student) &&
         read_scores(views + kScoreFields, a + kTeacher, n, &args.teacher) &&
         read_gradients(views, meta + kOutDtypes, a + kOutGradientLogits, &args.gradient_logits, &args.gradient_hidden,
                        &args.gradient_head, &args.gradient_bias) &&
         call->bind(static_cast<int32_t>(meta[kBackend]), meta[kThreads]);
}

/* distillLoss(every argument): a status, or a promise of an outcome when meta says so */
napi_value distill_loss(napi_env env, napi_callback_info info) {
  ArrayArg a[kArgCount];
  auto call = std::make_unique<DistillLossCall>();
  if (!read(env, info, a) || !fill(a, call.get())) {
    return refuse(env, RLSD_INVALID_ARGUMENT, "distillLoss was called with wrong arguments.");
  }
  if (static_cast<double*>(a[kMeta].data)[kAsync] == 0) return run_call(env, call.get());
  ArrayArg held[kCancel - kStudent + 1] = {a[kMeta]};
  std::copy(a + kStudent, a + kCancel, held + 1);
  return queue_call(env, std::move(call), a[kCancel], held, sizeof(held) / sizeof(held[0]));
}

}  // namespace

void init_distill_loss(napi_env env, napi_value exports) { define(env, exports, "distillLoss", distill_loss); }

}  // namespace rlsd::addon
