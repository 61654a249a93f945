/* The arguments of policyLoss, checked: what lib/ops has checked may have changed, as user code ran in between. */
#ifndef RLSD_NAPI_POLICY_ARGS_H_
#define RLSD_NAPI_POLICY_ARGS_H_

#include "napi/args.h"
#include "napi/op_call.h"

namespace rlsd::addon {

class PolicyArgs {
 public:
  /* In the order of lib/native/binding.ts. */
  enum Arg {
    kMeta = 0, /* Float64Array, see Meta */
    kObjective,
    kTokenIds,
    kCuSeqlens,
    kCompletionMask,
    kSpanMask,
    kAdvantages,
    kOldLogProbs,
    kRefLogProbs,
    kSamplerLogProbs,
    kStudent, /* scores (log-probs, logits or hidden), head, bias, rows */
    kTeacher = kStudent + 4,
    kContrast = kTeacher + 4,
    kOutLogProbs = kContrast + 4,
    kOutTeacherLogProbs,
    kOutTokenAdvantages,
    kOutEvidenceWeights,
    kOutGradientLogProbs,
    kOutGradientLogits,
    kOutGradientHidden,
    kOutGradientHead,
    kOutGradientBias,
    kCancel, /* Int32Array(kCancelFlags) */
    kArgCount
  };

  /* Numbers that describe the arrays. */
  enum Meta {
    kBackend = 0,
    kAsync,
    kTokens,
    kSequences,
    kAdvantagesPerToken,
    kLossScale,
    kThreads,
    kAccumulate,
    kSkipZeroRows,
    kClearOtherRows,
    kScores, /* level, rows, V, H, vocabSize, dtype, head dtype, bias dtype: three times */
    kOutDtypes = kScores + 3 * kScoreFields, /* logits, hidden, head, bias */
    kStats = kOutDtypes + 4,                 /* written: RLSD_STAT_COUNT of them */
    kMetaCount = kStats + RLSD_STAT_COUNT
  };

  /* Every argument, in the order of Arg. False where one is not what it must be: `refuse` says which. */
  bool read(napi_env env, napi_callback_info info);
  /* The arrays of the log-prob level alone: most of a small call's cost is reading arguments. */
  bool read_tokens(napi_env env, napi_callback_info info);

  /* The call's structs, over the arrays: types and counts against `meta`, and results apart from all else. */
  bool fill(rlsd_policy_batch* batch, rlsd_objective* objective, rlsd_policy_outputs* outputs);

  /* The status of a call whose arguments were refused. */
  napi_value refuse(napi_env env) const;

  double meta(Meta place) const { return meta_[place]; }
  const ArrayArg& array(Arg arg) const { return arrays_[arg]; }

 private:
  bool has_numbers();
  bool fill_batch(rlsd_policy_batch* batch);
  bool fill_outputs(rlsd_policy_outputs* o);
  bool is_apart();

  size_t tokens() const { return static_cast<size_t>(meta_[kTokens]); }
  bool refuse_array(int arg) {
    wrong_ = arg;
    return false;
  }
  bool holds(int arg, napi_typedarray_type type, size_t count) {
    return is_array(arrays_[arg], type, count) || refuse_array(arg);
  }
  bool may_hold(int arg, napi_typedarray_type type, size_t count) {
    return !arrays_[arg].present() || holds(arg, type, count);
  }
  template <class T>
  T* at(int arg) const {
    return static_cast<T*>(arrays_[arg].data);
  }

  ArrayArg arrays_[kArgCount];
  double* meta_ = nullptr;
  int wrong_ = -1;    /* the argument that was refused; -1: none in particular */
  int overlaps_ = -1; /* the argument whose memory it shares */
};

}  // namespace rlsd::addon

#endif
