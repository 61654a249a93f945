/* policyLoss: one call, synchronous or queued. */
#include "napi/loss.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "napi/addon_data.h"
#include "napi/args.h"
#include "napi/backends.h"
#include "napi/objective.h"

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
  kCancel, /* Int32Array(1): nonzero stops the call */
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
  kScoreFields = 8,
  kOutDtypes = kScores + 3 * kScoreFields, /* logits, hidden, head, bias */
  kStats = kOutDtypes + 4,                 /* written: RLSD_STAT_COUNT of them */
  kMetaCount = kStats + RLSD_STAT_COUNT
};

/* policyTokens takes the arrays of the log-prob level alone: most of a small call's cost is reading arguments. */
constexpr Arg kTokenArgs[] = {kMeta,           kObjective,          kCuSeqlens,          kCompletionMask,
                              kSpanMask,       kAdvantages,         kOldLogProbs,        kRefLogProbs,
                              kSamplerLogProbs, kStudent,           kTeacher,            kContrast,
                              kOutLogProbs,    kOutTeacherLogProbs, kOutTokenAdvantages, kOutEvidenceWeights,
                              kOutGradientLogProbs};
constexpr size_t kTokenArgCount = sizeof(kTokenArgs) / sizeof(kTokenArgs[0]);

struct PolicyCall {
  const rlsd_backend_v1* backend = nullptr;
  rlsd_context context{};
  rlsd_objective objective{};
  rlsd_policy_batch batch{};
  rlsd_policy_outputs outputs{};
  std::unique_ptr<uint8_t, decltype(&std::free)> workspace{nullptr, &std::free};

  rlsd_status run();
};

rlsd_status PolicyCall::run() {
  if (backend->policy_loss == nullptr || backend->policy_loss_workspace == nullptr) {
    std::snprintf(context.error, sizeof(context.error), "The %s backend has no policy_loss.", backend->name);
    return RLSD_UNSUPPORTED;
  }
  uint64_t bytes = 0;
  const rlsd_status status = backend->policy_loss_workspace(&context, &batch, &objective, &outputs, &bytes);
  if (status != RLSD_OK) return status;
  if (bytes > 0) {
    workspace.reset(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    if (workspace == nullptr) {
      std::snprintf(context.error, sizeof(context.error), "Could not allocate a workspace of %llu bytes.",
                    static_cast<unsigned long long>(bytes));
      return RLSD_OUT_OF_MEMORY;
    }
    context.workspace = workspace.get();
    context.workspace_bytes = bytes;
  }
  return backend->policy_loss(&context, &batch, &objective, &outputs);
}

/* The arrays of a call, checked against the counts in `meta`. */
struct PolicyArgs {
  ArrayArg arrays[kArgCount];
  double* meta = nullptr;

  /* `order` NULL: every argument in the order of Arg. */
  bool read(napi_env env, napi_callback_info info, const Arg* order, size_t expected);
  bool fill(PolicyCall* call) const;
  bool fill_scores(const double* m, const ArrayArg* a, rlsd_scores* s) const;
  bool fill_outputs(rlsd_policy_outputs* o) const;

  size_t tokens() const { return static_cast<size_t>(meta[kTokens]); }
  template <class T>
  T* at(int arg) const {
    return static_cast<T*>(arrays[arg].data);
  }
};

bool PolicyArgs::read(napi_env env, napi_callback_info info, const Arg* order, size_t expected) {
  napi_value values[kArgCount];
  size_t argc = kArgCount;
  if (napi_get_cb_info(env, info, &argc, values, nullptr, nullptr) != napi_ok || argc != expected) return false;
  for (size_t i = 0; i < expected; ++i) {
    if (!read_array(env, values[i], &arrays[order != nullptr ? static_cast<size_t>(order[i]) : i])) return false;
  }
  if (!is_array(arrays[kMeta], napi_float64_array, kMetaCount) ||
      !is_array(arrays[kObjective], napi_float64_array, kObjectiveFields)) {
    return false;
  }
  meta = at<double>(kMeta);
  return meta[kTokens] >= 0 && meta[kSequences] >= 0;
}

bool PolicyArgs::fill_scores(const double* m, const ArrayArg* a, rlsd_scores* s) const {
  s->level = static_cast<int32_t>(m[0]);
  const auto rows = static_cast<int64_t>(m[1]), v = static_cast<int64_t>(m[2]), h = static_cast<int64_t>(m[3]);
  s->vocab_size = static_cast<int64_t>(m[4]);
  const auto dtype = static_cast<int32_t>(m[5]);
  if (!is_array_or_absent(a[3], napi_int32_array, tokens())) return false;
  s->rows = static_cast<const int32_t*>(a[3].data);
  switch (s->level) {
    case RLSD_ABSENT:
      return true;
    case RLSD_LOG_PROBS:
      s->log_probs = static_cast<const float*>(a[0].data);
      return is_array(a[0], napi_float32_array, tokens());
    case RLSD_LOGITS:
      return a[0].present() && make_tensor(a[0], dtype, rows, v, &s->logits);
    case RLSD_HIDDEN:
      return a[0].present() && a[1].present() && make_tensor(a[0], dtype, rows, h, &s->hidden) &&
             make_tensor(a[1], static_cast<int32_t>(m[6]), v, h, &s->head) &&
             make_tensor(a[2], static_cast<int32_t>(m[7]), 1, v, &s->bias);
    default:
      return false;
  }
}

bool PolicyArgs::fill_outputs(rlsd_policy_outputs* o) const {
  const size_t n = tokens();
  for (int arg = kOutLogProbs; arg <= kOutGradientLogProbs; ++arg) {
    const bool optional = arg != kOutTokenAdvantages && arg != kOutEvidenceWeights;
    if (!(optional ? is_array_or_absent(arrays[arg], napi_float32_array, n)
                   : is_array(arrays[arg], napi_float32_array, n))) {
      return false;
    }
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

bool PolicyArgs::fill(PolicyCall* call) const {
  const size_t n = tokens();
  const auto b = static_cast<size_t>(meta[kSequences]);
  const bool per_token = meta[kAdvantagesPerToken] != 0;
  rlsd_policy_batch& batch = call->batch;
  if (!is_array(arrays[kCuSeqlens], napi_int32_array, b + 1) ||
      !is_array(arrays[kAdvantages], napi_float32_array, per_token ? n : b) ||
      !is_array_or_absent(arrays[kTokenIds], napi_int32_array, n) ||
      !is_array_or_absent(arrays[kCompletionMask], napi_uint8_array, n) ||
      !is_array_or_absent(arrays[kSpanMask], napi_uint8_array, n) ||
      !is_array_or_absent(arrays[kOldLogProbs], napi_float32_array, n) ||
      !is_array_or_absent(arrays[kRefLogProbs], napi_float32_array, n) ||
      !is_array_or_absent(arrays[kSamplerLogProbs], napi_float32_array, n) ||
      !is_array_or_absent(arrays[kCancel], napi_int32_array, 1)) {
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
  if (!fill_scores(s, arrays + kStudent, &batch.student) ||
      !fill_scores(s + kScoreFields, arrays + kTeacher, &batch.teacher) ||
      !fill_scores(s + 2 * kScoreFields, arrays + kContrast, &batch.contrast) || !fill_outputs(&call->outputs)) {
    return false;
  }
  call->backend = backend_at(static_cast<int32_t>(meta[kBackend]));
  call->objective = decode_objective(at<double>(kObjective));
  call->context.struct_size = sizeof(call->context);
  call->context.threads = static_cast<int32_t>(meta[kThreads]);
  call->context.error_index = -1;
  return call->backend != nullptr && batch.student.level != RLSD_ABSENT;
}

/* Copies the call's inputs of N or B elements into memory that no caller can reach. */
class OwnedInputs {
 public:
  template <class T>
  bool own(const T** pointer, size_t count) {
    if (*pointer == nullptr) return true;
    const size_t bytes = count * sizeof(T);
    auto* block = static_cast<uint8_t*>(std::malloc(bytes > 0 ? bytes : 1));
    if (block == nullptr) return false;
    if (bytes > 0) std::memcpy(block, *pointer, bytes);
    blocks_.emplace_back(block, &std::free);
    *pointer = reinterpret_cast<const T*>(block);
    return true;
  }

  bool own_batch(rlsd_policy_batch* b) {
    const auto n = static_cast<size_t>(b->tokens), s = static_cast<size_t>(b->sequences);
    return own(&b->token_ids, n) && own(&b->cu_seqlens, s + 1) && own(&b->completion_mask, n) &&
           own(&b->span_mask, n) && own(&b->advantages, b->advantages_per_token ? n : s) &&
           own(&b->old_log_probs, n) && own(&b->ref_log_probs, n) && own(&b->sampler_log_probs, n) &&
           own_scores(&b->student, n) && own_scores(&b->teacher, n) && own_scores(&b->contrast, n);
  }

 private:
  bool own_scores(rlsd_scores* s, size_t n) { return own(&s->log_probs, n) && own(&s->rows, n); }

  std::vector<std::unique_ptr<uint8_t, decltype(&std::free)>> blocks_;
};

/* [status, message, index, count]: jobs may complete together, so a failure carries its own words. */
napi_value outcome(napi_env env, rlsd_status status, const rlsd_context& context) {
  napi_value result, message;
  if (napi_create_array_with_length(env, 4, &result) != napi_ok) return to_number(env, status);
  napi_create_string_utf8(env, context.error, NAPI_AUTO_LENGTH, &message);
  napi_set_element(env, result, 0, to_number(env, status));
  napi_set_element(env, result, 1, message);
  napi_set_element(env, result, 2, to_number(env, static_cast<double>(context.error_index)));
  napi_set_element(env, result, 3, to_number(env, static_cast<double>(context.error_count)));
  return result;
}

/* Tensors and results stay JavaScript's: a reference keeps each alive, its lease keeps it unwritten. */
class PolicyJob final : public Job {
 public:
  void run() override { status_ = call.run(); }

  void complete(napi_env env) override {
    for (napi_ref reference : references_) napi_delete_reference(env, reference);
    napi_resolve_deferred(env, deferred_,
                          status_ == RLSD_OK ? to_number(env, RLSD_OK) : outcome(env, status_, call.context));
  }

  bool hold(napi_env env, const ArrayArg& array) {
    if (!array.present()) return true;
    napi_ref reference;
    if (napi_create_reference(env, array.value, 1, &reference) != napi_ok) return false;
    references_.push_back(reference);
    return true;
  }

  PolicyCall call;
  OwnedInputs inputs;
  napi_deferred deferred_ = nullptr;

 private:
  std::vector<napi_ref> references_;
  rlsd_status status_ = RLSD_INTERNAL;
};

napi_value refuse(napi_env env, rlsd_status status, const char* message) {
  remember_error(env, message, -1, 0);
  return to_number(env, status);
}

napi_value start_job(napi_env env, const PolicyArgs& args) {
  auto job = std::make_unique<PolicyJob>();
  if (!args.fill(&job->call)) return refuse(env, RLSD_INVALID_ARGUMENT, "An array changed its size.");
  if (!job->inputs.own_batch(&job->call.batch)) return refuse(env, RLSD_OUT_OF_MEMORY, "Could not copy the inputs.");
  job->call.context.cancel = args.arrays[kCancel].present() ? args.at<int32_t>(kCancel) : &job->cancel;
  if (!job->hold(env, args.arrays[kMeta])) return refuse(env, RLSD_INTERNAL, "Could not hold an array.");
  for (int i = kStudent; i < kArgCount; ++i) {
    if (!job->hold(env, args.arrays[i])) return refuse(env, RLSD_INTERNAL, "Could not hold an array.");
  }
  napi_value promise;
  if (napi_create_promise(env, &job->deferred_, &promise) != napi_ok) return nullptr;
  AddonData* data = addon_data(env);
  if (data->queue != nullptr && data->queue->enqueue(std::move(job))) return promise;
  return refuse(env, RLSD_CANCELLED, "The environment is shutting down.");
}

/* A status, or a promise of an outcome when meta says so. */
napi_value run_or_start(napi_env env, const PolicyArgs& args) {
  if (args.meta[kAsync] != 0) return start_job(env, args);
  PolicyCall call;
  if (!args.fill(&call)) return refuse(env, RLSD_INVALID_ARGUMENT, "An array changed its size.");
  const rlsd_status status = call.run();
  if (status != RLSD_OK) {
    remember_error(env, call.context.error, call.context.error_index, call.context.error_count);
  }
  return to_number(env, status);
}

/* policyLoss(every argument) */
napi_value policy_loss(napi_env env, napi_callback_info info) {
  PolicyArgs args;
  if (args.read(env, info, nullptr, kArgCount)) return run_or_start(env, args);
  return refuse(env, RLSD_INVALID_ARGUMENT, "policyLoss was called with wrong arguments.");
}

/* policyTokens(kTokenArgs): synchronous, log-probs only */
napi_value policy_tokens(napi_env env, napi_callback_info info) {
  PolicyArgs args;
  if (args.read(env, info, kTokenArgs, kTokenArgCount) && args.meta[kAsync] == 0) return run_or_start(env, args);
  return refuse(env, RLSD_INVALID_ARGUMENT, "policyTokens was called with wrong arguments.");
}

}  // namespace

void init_loss(napi_env env, napi_value exports) {
  define(env, exports, "policyLoss", policy_loss);
  define(env, exports, "policyTokens", policy_tokens);
}

}  // namespace rlsd::addon
