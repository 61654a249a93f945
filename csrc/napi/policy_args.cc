#include "napi/policy_args.h"

#include <cstdio>

#include "napi/objective.h"

namespace rlsd::addon {
namespace {

/* What users call each array, for errors. */
constexpr const char* kArgNames[PolicyArgs::kArgCount] = {
    "meta", "objective", "tokenIds", "cuSeqlens", "completionMask", "spanMask", "advantages", "oldLogProbs",
    "refLogProbs", "samplerLogProbs", "student", "student.head", "student.bias", "student.rows", "teacher",
    "teacher.head", "teacher.bias", "teacher.rows", "contrast", "contrast.head", "contrast.bias", "contrast.rows",
    "out.logProbs", "out.teacherLogProbs", "out.tokenAdvantages", "out.evidenceWeights", "out.gradientLogProbs",
    "out.logits", "out.hidden", "out.head", "out.bias", "cancel"};

struct TokenArg {
  PolicyArgs::Arg arg;
  napi_typedarray_type type;
};

/* What policyTokens takes. */
constexpr TokenArg kTokenArgs[] = {{PolicyArgs::kMeta, napi_float64_array},
                                   {PolicyArgs::kObjective, napi_float64_array},
                                   {PolicyArgs::kCuSeqlens, napi_int32_array},
                                   {PolicyArgs::kCompletionMask, napi_uint8_array},
                                   {PolicyArgs::kSpanMask, napi_uint8_array},
                                   {PolicyArgs::kAdvantages, napi_float32_array},
                                   {PolicyArgs::kOldLogProbs, napi_float32_array},
                                   {PolicyArgs::kRefLogProbs, napi_float32_array},
                                   {PolicyArgs::kSamplerLogProbs, napi_float32_array},
                                   {PolicyArgs::kStudent, napi_float32_array},
                                   {PolicyArgs::kTeacher, napi_float32_array},
                                   {PolicyArgs::kContrast, napi_float32_array},
                                   {PolicyArgs::kOutLogProbs, napi_float32_array},
                                   {PolicyArgs::kOutTeacherLogProbs, napi_float32_array},
                                   {PolicyArgs::kOutTokenAdvantages, napi_float32_array},
                                   {PolicyArgs::kOutEvidenceWeights, napi_float32_array},
                                   {PolicyArgs::kOutGradientLogProbs, napi_float32_array}};
constexpr size_t kTokenArgCount = sizeof(kTokenArgs) / sizeof(kTokenArgs[0]);

}  // namespace

bool PolicyArgs::read(napi_env env, napi_callback_info info) {
  napi_value values[kArgCount];
  size_t argc = kArgCount;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != kArgCount) return false;
  for (int arg = 0; arg < kArgCount; ++arg) {
    if (!read_array(env, values[arg], &arrays_[arg])) return refuse_array(arg);
  }
  return has_numbers();
}

bool PolicyArgs::read_tokens(napi_env env, napi_callback_info info) {
  napi_value values[kTokenArgCount];
  size_t argc = kTokenArgCount;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != kTokenArgCount) return false;
  for (size_t i = 0; i < kTokenArgCount; ++i) {
    read_typed_array(env, values[i], kTokenArgs[i].type, &arrays_[kTokenArgs[i].arg]);
  }
  return has_numbers();
}

bool PolicyArgs::has_numbers() {
  if (!is_array(arrays_[kMeta], napi_float64_array, kMetaCount) ||
      !is_array(arrays_[kObjective], napi_float64_array, kObjectiveFields)) {
    return false;
  }
  meta_ = at<double>(kMeta);
  return meta_[kTokens] >= 0 && meta_[kSequences] >= 0;
}

bool PolicyArgs::fill_outputs(rlsd_policy_outputs* o) {
  const size_t n = tokens();
  for (int arg = kOutLogProbs; arg <= kOutGradientLogProbs; ++arg) {
    const bool optional = arg != kOutTokenAdvantages && arg != kOutEvidenceWeights;
    if (!(optional ? may_hold(arg, napi_float32_array, n) : holds(arg, napi_float32_array, n))) return false;
  }
  o->log_probs = at<float>(kOutLogProbs);
  o->teacher_log_probs = at<float>(kOutTeacherLogProbs);
  o->token_advantages = at<float>(kOutTokenAdvantages);
  o->evidence_weights = at<float>(kOutEvidenceWeights);
  o->gradient_log_probs = at<float>(kOutGradientLogProbs);
  o->accumulate = meta_[kAccumulate] != 0;
  o->skip_zero_rows = meta_[kSkipZeroRows] != 0;
  o->clear_other_rows = meta_[kClearOtherRows] != 0;
  o->loss_scale = meta_[kLossScale];
  o->stats = meta_ + kStats;
  return read_gradients(meta_ + kScores, meta_ + kOutDtypes, arrays_ + kOutGradientLogits, &o->gradient_logits,
                        &o->gradient_hidden, &o->gradient_head, &o->gradient_bias);
}

/* No (N) result may lie over an input or another result: it would be read after it was written. */
bool PolicyArgs::is_apart() {
  struct Range {
    int arg;
    const uint8_t *begin, *end;
  };
  Range used[kArgCount];
  int count = 0;
  for (int arg = kTokenIds; arg < kCancel; ++arg) {
    const ArrayArg& a = arrays_[arg];
    if (a.count == 0) continue;
    const auto* begin = static_cast<const uint8_t*>(a.data);
    used[count++] = {arg, begin, begin + a.count * array_bytes(a.type)};
  }
  for (int i = 0; i < count; ++i) {
    const Range& out = used[i];
    if (out.arg < kOutLogProbs || out.arg > kOutGradientLogProbs) continue;
    for (int j = 0; j < count; ++j) {
      if (j == i || used[j].begin >= out.end || out.begin >= used[j].end) continue;
      overlaps_ = used[j].arg;
      return refuse_array(out.arg);
    }
  }
  return true;
}

bool PolicyArgs::fill_batch(rlsd_policy_batch* batch) {
  const size_t n = tokens();
  const auto b = static_cast<size_t>(meta_[kSequences]);
  const bool per_token = meta_[kAdvantagesPerToken] != 0;
  if (!holds(kCuSeqlens, napi_int32_array, b + 1) || !holds(kAdvantages, napi_float32_array, per_token ? n : b) ||
      !may_hold(kTokenIds, napi_int32_array, n) || !may_hold(kCompletionMask, napi_uint8_array, n) ||
      !may_hold(kSpanMask, napi_uint8_array, n) || !may_hold(kOldLogProbs, napi_float32_array, n) ||
      !may_hold(kRefLogProbs, napi_float32_array, n) || !may_hold(kSamplerLogProbs, napi_float32_array, n) ||
      !may_hold(kCancel, napi_int32_array, kCancelFlags)) {
    return false;
  }
  batch->tokens = static_cast<int64_t>(n);
  batch->sequences = static_cast<int64_t>(b);
  batch->advantages_per_token = per_token;
  batch->token_ids = at<int32_t>(kTokenIds);
  batch->cu_seqlens = at<int32_t>(kCuSeqlens);
  batch->completion_mask = at<uint8_t>(kCompletionMask);
  batch->span_mask = at<uint8_t>(kSpanMask);
  batch->advantages = at<float>(kAdvantages);
  batch->old_log_probs = at<float>(kOldLogProbs);
  batch->ref_log_probs = at<float>(kRefLogProbs);
  batch->sampler_log_probs = at<float>(kSamplerLogProbs);
  const double* s = meta_ + kScores;
  if (!read_scores(s, arrays_ + kStudent, n, &batch->student)) return refuse_array(kStudent);
  if (!read_scores(s + kScoreFields, arrays_ + kTeacher, n, &batch->teacher)) return refuse_array(kTeacher);
  if (!read_scores(s + 2 * kScoreFields, arrays_ + kContrast, n, &batch->contrast)) return refuse_array(kContrast);
  return batch->student.level != RLSD_ABSENT;
}

bool PolicyArgs::fill(rlsd_policy_batch* batch, rlsd_objective* objective, rlsd_policy_outputs* outputs) {
  if (!fill_batch(batch) || !fill_outputs(outputs) || !is_apart()) return false;
  *objective = decode_objective(at<double>(kObjective));
  return true;
}

napi_value PolicyArgs::refuse(napi_env env) const {
  char message[256];
  const char* name = wrong_ >= 0 ? kArgNames[wrong_] : "the call";
  if (overlaps_ >= 0) {
    std::snprintf(message, sizeof(message), "Expected memory of its own for %s but it overlaps %s.", name,
                  kArgNames[overlaps_]);
  } else {
    std::snprintf(message, sizeof(message),
                  "Expected %s to keep its type and length but it was detached, resized or replaced while the call "
                  "was made.",
                  name);
  }
  return addon::refuse(env, RLSD_INVALID_ARGUMENT, message);
}

}  // namespace rlsd::addon
