/* The engine's calls on batches of tokens: score, accumulate, generate. */

#include "model/score.h"
#include "model/train.h"
#include "napi/addon_data.h"
#include "napi/engine.h"
#include "napi/engine_config.h"
#include "napi/engine_job.h"
#include "napi/objective.h"

namespace rlsd::addon {
namespace {

using model::Sequences;

/* ids, cuSeqlens (B + 1), promptLengths (B) from position `at` on */
Sequences read_sequences(EngineArgs* args, size_t at) {
  const ArrayArg ids = args->array(at, napi_int32_array);
  const ArrayArg lengths = args->array(at + 2, napi_int32_array);
  const auto* cu = args->data<int32_t>(at + 1, napi_int32_array, lengths.count + 1);
  if (!args->valid() || cu[0] != 0 || static_cast<size_t>(cu[lengths.count]) != ids.count)
    args->invalidate();
  return {static_cast<const int32_t*>(ids.data), cu, static_cast<const int32_t*>(lengths.data),
          static_cast<int64_t>(lengths.count)};
}

size_t count_targets(const EngineArgs& args, const Sequences& s) {
  return args.valid() ? static_cast<size_t>(s.completions()) : 0;
}

/* engineScore(model, ids, cuSeqlens, promptLengths, temperature, logProbs, cancelId) */
napi_value score(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const Sequences s = read_sequences(&args, 1);
  const double temperature = args.number(4), id = args.number(6);
  auto* out = args.data<float>(5, napi_float32_array, count_targets(args, s));
  return enqueue(args, m, id, [=] { return model::score(m.get(), s, temperature, out); });
}

/* engineLogits(model, ids, logits) */
napi_value logits(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const ArrayArg ids = args.array(1, napi_int32_array);
  const size_t vocab = m != nullptr ? static_cast<size_t>(m->config.vocab) : 0;
  auto* out = args.data<float>(2, napi_float32_array, ids.count * vocab);
  return enqueue(args, m, 0, [=] {
    return model::all_logits(m.get(), static_cast<const int32_t*>(ids.data),
                             static_cast<int64_t>(ids.count), out);
  });
}

/* engineAccumulate(model, ids, cuSeqlens, promptLengths, objective, lossScale, cancelId,
 * advantages, completionMask, spanMask, teacher, contrast, old, ref, sampler, out: logProbs,
 * teacher, tokenAdvantages, evidenceWeights, gradient, stats) */
napi_value accumulate(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const Sequences s = read_sequences(&args, 1);
  const size_t n = count_targets(args, s);
  const auto* fields = args.data<double>(4, napi_float64_array, kObjectiveFields);
  const double loss_scale = args.number(5), id = args.number(6);
  const ArrayArg advantages = args.array(7, napi_float32_array);
  model::LossInputs in = {};
  in.advantages = static_cast<const float*>(advantages.data);
  const rlsd_objective objective = args.valid() ? decode_objective(fields) : rlsd_objective{};
  in.advantages_per_token = objective.surrogate == RLSD_ROW_COEFFICIENT ||
                            advantages.count != static_cast<size_t>(s.count);
  if (in.advantages_per_token && advantages.count != n) args.invalidate();
  in.completion_mask = args.optional<uint8_t>(8, napi_uint8_array, n);
  in.span_mask = args.optional<uint8_t>(9, napi_uint8_array, n);
  in.teacher = args.optional<float>(10, napi_float32_array, n);
  in.contrast = args.optional<float>(11, napi_float32_array, n);
  in.old = args.optional<float>(12, napi_float32_array, n);
  in.reference = args.optional<float>(13, napi_float32_array, n);
  in.sampler = args.optional<float>(14, napi_float32_array, n);
  model::LossOutputs out = {};
  out.log_probs = args.data<float>(15, napi_float32_array, n);
  out.teacher = args.optional<float>(16, napi_float32_array, n);
  out.token_advantages = args.data<float>(17, napi_float32_array, n);
  out.evidence_weights = args.data<float>(18, napi_float32_array, n);
  out.gradient = args.data<float>(19, napi_float32_array, n);
  out.stats = args.data<double>(20, napi_float64_array, RLSD_STAT_COUNT);
  if ((in.teacher == nullptr) != (out.teacher == nullptr)) args.invalidate();
  return enqueue(args, m, id,
                 [=] { return model::accumulate(m.get(), s, objective, in, loss_scale, out); });
}

/* engineDistill(model, teacher, ids, cuSeqlens, promptLengths, teacherIds, teacherCuSeqlens,
 * teacherPromptLengths, options, cancelId, completionMask, tokenLosses, stats). options:
 * divergence, reduction, topK, tail, nonFiniteSkip, beta, valueClamp, temperature, logitSoftcap,
 * normalizer, lossScale */
napi_value distill(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0), teacher = args.model(1);
  const Sequences student_sequences = read_sequences(&args, 2),
                  teacher_sequences = read_sequences(&args, 5);
  const auto* f = args.data<double>(8, napi_float64_array, 11);
  const double id = args.number(9);
  const size_t n = count_targets(args, student_sequences);
  const auto* mask = args.optional<uint8_t>(10, napi_uint8_array, n);
  auto* token_losses = args.data<float>(11, napi_float32_array, n);
  auto* stats = args.data<double>(12, napi_float64_array, RLSD_DISTILL_STATS);
  if (args.valid() &&
      (student_sequences.count != teacher_sequences.count ||
       count_targets(args, teacher_sequences) != n || m->config.vocab != teacher->config.vocab)) {
    args.invalidate();
  }
  rlsd_distill_args o = {};
  if (args.valid()) {
    o.divergence = static_cast<int32_t>(f[0]);
    o.reduction = static_cast<int32_t>(f[1]);
    o.top_k = static_cast<int32_t>(f[2]);
    o.tail = f[3] != 0;
    o.non_finite_skip = f[4] != 0;
    o.beta = f[5];
    o.value_clamp = f[6];
    o.temperature = f[7];
    o.logit_softcap = f[8];
    o.normalizer = f[9];
    o.loss_scale = f[10];
  }
  return enqueue(args, m, id, [=] {
    teacher->device.context()->cancel = m->device.context()->cancel;
    teacher->device.context()->error[0] = '\0';
    const rlsd_status status = model::accumulate_distillation(
        m.get(), teacher.get(), student_sequences, teacher_sequences, mask, o, token_losses, stats);
    teacher->device.context()->cancel = nullptr;
    return status;
  });
}

/* engineGenerate(model, ids, cuPrompts, stopIds, maxTokens of each prompt, seeds, options): a
 * generation. seeds: one, or one of each prompt; whole numbers below 2^53.
 * options: count, maxSlots, temperature, topP, minP, topK */
napi_value generate(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const ArrayArg ids = args.array(1, napi_int32_array), cu = args.array(2, napi_int32_array);
  const ArrayArg stop = args.array(3, napi_int32_array);
  const ArrayArg limits = args.array(4, napi_int32_array);
  const ArrayArg seeds = args.array(5, napi_float64_array);
  const auto* f = args.data<double>(6, napi_float64_array, 6);
  const auto* cu_prompts = static_cast<const int32_t*>(cu.data);
  if (!args.valid() || cu.count < 1 || limits.count + 1 != cu.count || cu_prompts[0] != 0 ||
      (seeds.count != 1 && seeds.count != limits.count) ||
      static_cast<size_t>(cu_prompts[cu.count - 1]) != ids.count) {
    return refuse(env, RLSD_INVALID_ARGUMENT, "engineGenerate was called with wrong arguments.");
  }
  const auto* tokens = static_cast<const int32_t*>(ids.data);
  const auto* stops = static_cast<const int32_t*>(stop.data);
  const auto* most = static_cast<const int32_t*>(limits.data);
  const auto* seed = static_cast<const double*>(seeds.data);
  model::GenerateOptions o = {static_cast<int64_t>(f[0]),
                              static_cast<int64_t>(f[1]),
                              f[2],
                              f[3],
                              f[4],
                              static_cast<int32_t>(f[5]),
                              std::vector<uint64_t>(seed, seed + seeds.count),
                              std::vector<int32_t>(stops, stops + stop.count),
                              std::vector<int32_t>(most, most + limits.count)};
  return wrap_generation(env, std::make_shared<GenerationHandle>(
                                  m, std::vector<int32_t>(tokens, tokens + ids.count),
                                  std::vector<int32_t>(cu_prompts, cu_prompts + cu.count), o));
}

/* A new typed array; false where none can be made: an environment that ends makes nothing more. */
template <class T>
bool new_array(napi_env env, napi_typedarray_type type, size_t count, T** data, napi_value* array) {
  napi_value buffer;
  void* bytes = nullptr;
  if (napi_create_arraybuffer(env, count * sizeof(T), &bytes, &buffer) != napi_ok) return false;
  *data = static_cast<T*>(bytes);
  return napi_create_typedarray(env, type, count, buffer, 0, array) == napi_ok;
}

/* [done, Int32Array of (sequence, token, finish), Float32Array of log-probs]; NULL in an
 * environment that ends, where nobody waits for it */
napi_value draws_to_js(napi_env env, const std::vector<model::Draw>& draws, bool done) {
  int32_t* numbers;
  float* log_probs;
  napi_value result, value, tokens, scores;
  if (!new_array(env, napi_int32_array, 3 * draws.size(), &numbers, &tokens) ||
      !new_array(env, napi_float32_array, draws.size(), &log_probs, &scores) ||
      napi_create_array_with_length(env, 3, &result) != napi_ok) {
    return nullptr;
  }
  napi_get_boolean(env, done, &value);
  napi_set_element(env, result, 0, value);
  napi_set_element(env, result, 1, tokens);
  napi_set_element(env, result, 2, scores);
  for (size_t i = 0; i < draws.size(); ++i) {
    numbers[3 * i] = draws[i].sequence;
    numbers[3 * i + 1] = draws[i].token;
    numbers[3 * i + 2] = draws[i].finish;
    log_probs[i] = draws[i].log_prob;
  }
  return result;
}

/* engineDraw(generation, steps, stopped sequences, cancelId) */
napi_value draw(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto g = args.generation(0);
  const auto steps = static_cast<int64_t>(args.number(1));
  const ArrayArg stopped = args.array(2, napi_int32_array);
  const double id = args.number(3);
  auto draws = std::make_shared<std::vector<model::Draw>>();
  auto done = std::make_shared<bool>(false);
  return enqueue(
      args, g != nullptr ? g->model : nullptr, id,
      [=] {
        const auto* sequences = static_cast<const int32_t*>(stopped.data);
        for (size_t i = 0; i < stopped.count; ++i) g->generation.stop(sequences[i]);
        const rlsd_status status = g->generation.run(steps, draws.get());
        *done = g->generation.done();
        return status;
      },
      [=](napi_env e) { return draws_to_js(e, *draws, *done); });
}

/* engineEndGeneration(generation) */
napi_value end_generation(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto g = args.generation(0);
  return enqueue(args, g != nullptr ? g->model : nullptr, 0, [g] {
    g->generation.release();
    return RLSD_OK;
  });
}

/* enginePrefixes(model, maxBytes): sets what may be kept unless it is negative; resolves [bytes,
 * sequences, reused, computed] */
napi_value prefixes(napi_env env, napi_callback_info info) {
  EngineArgs args(env, info);
  auto m = args.model(0);
  const double bytes = args.number(1);
  auto result = std::make_shared<std::vector<double>>();
  return enqueue(
      args, m, 0,
      [=] {
        if (bytes >= 0) m->keep_prefixes(static_cast<uint64_t>(bytes));
        const model::Prefixes& p = m->prefixes;
        *result = {static_cast<double>(p.bytes()), static_cast<double>(p.entries()),
                   static_cast<double>(p.reused), static_cast<double>(p.computed)};
        return RLSD_OK;
      },
      [result](napi_env e) { return number_array(e, *result); });
}

}  // namespace

void init_engine_batch(napi_env env, napi_value exports) {
  define(env, exports, "engineScore", score);
  define(env, exports, "engineLogits", logits);
  define(env, exports, "engineAccumulate", accumulate);
  define(env, exports, "engineDistill", distill);
  define(env, exports, "engineGenerate", generate);
  define(env, exports, "engineDraw", draw);
  define(env, exports, "engineEndGeneration", end_generation);
  define(env, exports, "enginePrefixes", prefixes);
}

}  // namespace rlsd::addon
