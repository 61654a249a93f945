/* policyLoss: one call, synchronous or queued. */
#include "napi/loss.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "napi/addon_data.h"
#include "napi/args.h"
#include "napi/objective.h"
#include "napi/op_call.h"

namespace rlsd::addon {
namespace {

/* Arguments of policyLoss, in the order of lib/native/binding.ts. */
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

/* What users call each array, for errors. */
constexpr const char* kArgNames[kArgCount] = {
    "meta", "objective", "tokenIds", "cuSeqlens", "completionMask", "spanMask", "advantages", "oldLogProbs",
    "refLogProbs", "samplerLogProbs", "student", "student.head", "student.bias", "student.rows", "teacher",
    "teacher.head", "teacher.bias", "teacher.rows", "contrast", "contrast.head", "contrast.bias", "contrast.rows",
    "out.logProbs", "out.teacherLogProbs", "out.tokenAdvantages", "out.evidenceWeights", "out.gradientLogProbs",
    "out.logits", "out.hidden", "out.head", "out.bias", "cancel"};

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

struct TokenArg {
  Arg arg;
  napi_typedarray_type type;
};

/* policyTokens takes the arrays of the log-prob level alone: most of a small call's cost is reading arguments. */
constexpr TokenArg kTokenArgs[] = {{kMeta, napi_float64_array},
                                   {kObjective, napi_float64_array},
                                   {kCuSeqlens, napi_int32_array},
                                   {kCompletionMask, napi_uint8_array},
                                   {kSpanMask, napi_uint8_array},
                                   {kAdvantages, napi_float32_array},
                                   {kOldLogProbs, napi_float32_array},
                                   {kRefLogProbs, napi_float32_array},
                                   {kSamplerLogProbs, napi_float32_array},
                                   {kStudent, napi_float32_array},
                                   {kTeacher, napi_float32_array},
                                   {kContrast, napi_float32_array},
                                   {kOutLogProbs, napi_float32_array},
                                   {kOutTeacherLogProbs, napi_float32_array},
                                   {kOutTokenAdvantages, napi_float32_array},
                                   {kOutEvidenceWeights, napi_float32_array},
                                   {kOutGradientLogProbs, napi_float32_array}};
constexpr size_t kTokenArgCount = sizeof(kTokenArgs) / sizeof(kTokenArgs[0]);

class PolicyCall final : public OpCall {
 public:
  /* A queued call keeps its own copies of the inputs of N or B elements. */
  bool own_inputs();

  rlsd_objective objective{};
  rlsd_policy_batch batch{};
  rlsd_policy_outputs outputs{};

 protected:
  rlsd_status workspace_bytes(uint64_t* bytes) override {
    if (backend->policy_loss == nullptr || backend->policy_loss_workspace == nullptr) return unsupported("policy_loss");
    return backend->policy_loss_workspace(&context, &batch, &objective, &outputs, bytes);
  }
  rlsd_status compute() override { return backend->policy_loss(&context, &batch, &objective, &outputs); }

 private:
  OwnedInputs inputs_;
};

bool PolicyCall::own_inputs() {
  rlsd_policy_batch* b = &batch;
  const auto n = static_cast<size_t>(b->tokens), s = static_cast<size_t>(b->sequences);
  return inputs_.own(&b->token_ids, n) && inputs_.own(&b->cu_seqlens, s + 1) && inputs_.own(&b->completion_mask, n) &&
         inputs_.own(&b->span_mask, n) && inputs_.own(&b->advantages, b->advantages_per_token ? n : s) &&
         inputs_.own(&b->old_log_probs, n) && inputs_.own(&b->ref_log_probs, n) &&
         inputs_.own(&b->sampler_log_probs, n) && inputs_.own_scores(&b->student, n) &&
         inputs_.own_scores(&b->teacher, n) && inputs_.own_scores(&b->contrast, n);
}

/* The arrays of a call, checked against the counts in `meta`. */
struct PolicyArgs {
  ArrayArg arrays[kArgCount];
  double* meta = nullptr;
  mutable int overlaps = -1; /* the argument whose memory `wrong` shares */
  mutable int wrong = -1; /* the argument that read or fill refused; -1: none in particular */

  bool read(napi_env env, napi_callback_info info);
  bool read_tokens(napi_env env, napi_callback_info info);
  bool has_numbers();
  bool fill(PolicyCall* call) const;
  bool fill_outputs(rlsd_policy_outputs* o) const;
  bool is_apart() const;

  size_t tokens() const { return static_cast<size_t>(meta[kTokens]); }
  bool refuse(int arg) const {
    wrong = arg;
    return false;
  }
  bool holds(int arg, napi_typedarray_type type, size_t count) const {
    return is_array(arrays[arg], type, count) || refuse(arg);
  }
  bool may_hold(int arg, napi_typedarray_type type, size_t count) const {
    return !arrays[arg].present() || holds(arg, type, count);
  }
  template <class T>
  T* at(int arg) const {
    return static_cast<T*>(arrays[arg].data);
  }
};

/* Every argument, in the order of Arg. */
bool PolicyArgs::read(napi_env env, napi_callback_info info) {
  napi_value values[kArgCount];
  size_t argc = kArgCount;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != kArgCount) return false;
  for (int arg = 0; arg < kArgCount; ++arg) {
    if (!read_array(env, values[arg], &arrays[arg])) return refuse(arg);
  }
  return has_numbers();
}

bool PolicyArgs::read_tokens(napi_env env, napi_callback_info info) {
  napi_value values[kTokenArgCount];
  size_t argc = kTokenArgCount;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != kTokenArgCount) return false;
  for (size_t i = 0; i < kTokenArgCount; ++i) {
    read_typed_array(env, values[i], kTokenArgs[i].type, &arrays[kTokenArgs[i].arg]);
  }
  return has_numbers();
}

bool PolicyArgs::has_numbers() {
  if (!is_array(arrays[kMeta], napi_float64_array, kMetaCount) ||
      !is_array(arrays[kObjective], napi_float64_array, kObjectiveFields)) {
    return false;
  }
  meta = at<double>(kMeta);
  return meta[kTokens] >= 0 && meta[kSequences] >= 0;
}

bool PolicyArgs::fill_outputs(rlsd_policy_outputs* o) const {
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
  o->accumulate = meta[kAccumulate] != 0;
  o->skip_zero_rows = meta[kSkipZeroRows] != 0;
  o->clear_other_rows = meta[kClearOtherRows] != 0;
  o->loss_scale = meta[kLossScale];
  o->stats = meta + kStats;
  const double* s = meta + kScores;
  const double* d = meta + kOutDtypes;
  const auto rows = static_cast<int64_t>(s[1]), v = static_cast<int64_t>(s[2]), h = static_cast<int64_t>(s[3]);
  return make_tensor(arrays[kOutGradientLogits], static_cast<int32_t>(d[0]), rows, v, &o->gradient_logits) &&
         make_tensor(arrays[kOutGradientHidden], static_cast<int32_t>(d[1]), rows, h, &o->gradient_hidden) &&
         make_tensor(arrays[kOutGradientHead], static_cast<int32_t>(d[2]), v, h, &o->gradient_head) &&
         make_tensor(arrays[kOutGradientBias], static_cast<int32_t>(d[3]), 1, v, &o->gradient_bias);
}

/* No (N) result may lie over an input or another result: it would be read after it was written. */
bool PolicyArgs::is_apart() const {
  struct Range {
    int arg;
    const uint8_t *begin, *end;
  };
  Range used[kArgCount];
  int count = 0;
  for (int arg = kTokenIds; arg < kCancel; ++arg) {
    const ArrayArg& a = arrays[arg];
    if (a.count == 0) continue;
    const auto* begin = static_cast<const uint8_t*>(a.data);
    used[count++] = {arg, begin, begin + a.count * array_bytes(a.type)};
  }
  for (int i = 0; i < count; ++i) {
    const Range& out = used[i];
    if (out.arg < kOutLogProbs || out.arg > kOutGradientLogProbs) continue;
    for (int j = 0; j < count; ++j) {
      if (j == i || used[j].begin >= out.end || out.begin >= used[j].end) continue;
      overlaps = used[j].arg;
      return refuse(out.arg);
    }
  }
  return true;
}

bool PolicyArgs::fill(PolicyCall* call) const {
  const size_t n = tokens();
  const auto b = static_cast<size_t>(meta[kSequences]);
  const bool per_token = meta[kAdvantagesPerToken] != 0;
  rlsd_policy_batch& batch = call->batch;
  if (!holds(kCuSeqlens, napi_int32_array, b + 1) || !holds(kAdvantages, napi_float32_array, per_token ? n : b) ||
      !may_hold(kTokenIds, napi_int32_array, n) || !may_hold(kCompletionMask, napi_uint8_array, n) ||
      !may_hold(kSpanMask, napi_uint8_array, n) || !may_hold(kOldLogProbs, napi_float32_array, n) ||
      !may_hold(kRefLogProbs, napi_float32_array, n) || !may_hold(kSamplerLogProbs, napi_float32_array, n) ||
      !may_hold(kCancel, napi_int32_array, kCancelFlags)) {
    return false;
  }
  batch.tokens = static_cast<int64_t>(n);
  batch.sequences = static_cast<int64_t>(b);
  batch.advantages_per_token = per_token;
  batch.token_ids = at<int32_t>(kTokenIds);
  batch.cu_seqlens = at<int32_t>(kCuSeqlens);
  batch.completion_mask = at<uint8_t>(kCompletionMask);
  batch.span_mask = at<uint8_t>(kSpanMask);
  batch.advantages = at<float>(kAdvantages);
  batch.old_log_probs = at<float>(kOldLogProbs);
  batch.ref_log_probs = at<float>(kRefLogProbs);
  batch.sampler_log_probs = at<float>(kSamplerLogProbs);
  const double* s = meta + kScores;
  if (!read_scores(s, arrays + kStudent, n, &batch.student)) return refuse(kStudent);
  if (!read_scores(s + kScoreFields, arrays + kTeacher, n, &batch.teacher)) return refuse(kTeacher);
  if (!read_scores(s + 2 * kScoreFields, arrays + kContrast, n, &batch.contrast)) return refuse(kContrast);
  if (!fill_outputs(&call->outputs) || !is_apart()) return false;
  call->objective = decode_objective(at<double>(kObjective));
  return call->bind(static_cast<int32_t>(meta[kBackend]), meta[kThreads]) && batch.student.level != RLSD_ABSENT;
}

/* An array that lib/ops has checked is no longer what it was: user code ran in between. Or two share memory. */
napi_value refuse_array(napi_env env, const PolicyArgs& args) {
  char message[256];
  const char* name = args.wrong >= 0 ? kArgNames[args.wrong] : "the call";
  if (args.overlaps >= 0) {
    std::snprintf(message, sizeof(message), "Expected memory of its own for %s but it overlaps %s.", name,
                  kArgNames[args.overlaps]);
  } else {
    std::snprintf(message, sizeof(message),
                  "Expected %s to keep its type and length but it was detached, resized or replaced while the call "
                  "was made.",
                  name);
  }
  return refuse(env, RLSD_INVALID_ARGUMENT, message);
}

napi_value start(napi_env env, const PolicyArgs& args) {
  auto call = std::make_unique<PolicyCall>();
  if (!args.fill(call.get())) return refuse_array(env, args);
  if (!call->own_inputs()) return refuse(env, RLSD_OUT_OF_MEMORY, "Could not copy the inputs.");
  ArrayArg held[kCancel - kStudent + 1] = {args.arrays[kMeta]};
  std::copy(args.arrays + kStudent, args.arrays + kCancel, held + 1);
  return queue_call(env, std::move(call), args.arrays[kCancel], held, sizeof(held) / sizeof(held[0]));
}

/* A status, or a promise of an outcome when meta says so. */
napi_value run_or_start(napi_env env, const PolicyArgs& args) {
  if (args.meta[kAsync] != 0) return start(env, args);
  PolicyCall call;
  if (!args.fill(&call)) return refuse_array(env, args);
  return run_call(env, &call);
}

/* policyLoss(every argument) */
napi_value policy_loss(napi_env env, napi_callback_info info) {
  PolicyArgs args;
  if (args.read(env, info)) return run_or_start(env, args);
  return refuse_array(env, args);
}

/* policyTokens(kTokenArgs): synchronous, log-probs only */
napi_value policy_tokens(napi_env env, napi_callback_info info) {
  PolicyArgs args;
  if (args.read_tokens(env, info) && args.meta[kAsync] == 0) return run_or_start(env, args);
  return refuse_array(env, args);
}

}  // namespace

void init_loss(napi_env env, napi_value exports) {
  define(env, exports, "policyLoss", policy_loss);
  define(env, exports, "policyTokens", policy_tokens);
}

}  // namespace rlsd::addon
