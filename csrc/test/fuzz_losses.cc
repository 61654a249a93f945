/* Bytes become shapes, options and small arrays of policy_loss, token_log_probs and distill_loss, over logits and LM
 * heads. Most inputs are right, and no call may refuse them; of the others any status may come back. No byte outside
 * the arrays may be touched, and masked tokens get exactly 0. */
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "rlsd/rlsd.h"

namespace {

/* The input, read from the front; zeros when it is used up. */
struct Bytes {
  const uint8_t* data;
  size_t size;

  uint8_t next() {
    if (size == 0) return 0;
    --size;
    return *data++;
  }
  int64_t below(int64_t n) { return next() % n; }
  /* Mostly ordinary numbers, at times NaN, infinities and extremes. */
  float number() {
    static const float odd[] = {0.0f, -0.0f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, 1e-40f};
    const uint8_t b = next();
    return b < 8 ? odd[b] : (static_cast<float>(b) - 128.0f) / 32.0f;
  }
};

/* Exactly as many bytes as the tensor has, so that a sanitizer sees the first one beyond. */
struct Array {
  std::vector<char> bytes;
  rlsd_tensor tensor{};

  Array(Bytes* in, int64_t rows, int64_t columns, int32_t dtype) {
    const int64_t width = dtype == RLSD_F32 ? 4 : 2;
    bytes.reserve(1); /* an array of nothing has a place all the same */
    bytes.resize(static_cast<size_t>(rows * columns * width));
    for (int64_t i = 0; in != nullptr && i < rows * columns; ++i) {
      const float x = in->number();
      const char* const high = reinterpret_cast<const char*>(&x) + (4 - width);
      std::memcpy(bytes.data() + i * width, high, static_cast<size_t>(width));
    }
    tensor.data = bytes.data();
    tensor.dtype = dtype;
    tensor.rank = 2;
    tensor.shape[0] = rows;
    tensor.shape[1] = columns;
    tensor.stride[0] = columns;
    tensor.stride[1] = 1;
  }
};

int32_t dtype_of(Bytes* in) { return static_cast<int32_t>(in->below(3)); }

/* What the views of a batch have in common. */
struct Shape {
  bool wild; /* some argument may be wrong */
  int64_t tokens, padded, vocab;
};

struct View {
  const bool is_hidden;
  Array logits, hidden, head, bias;
  std::vector<int32_t> rows;
  rlsd_scores scores{};

  View(Bytes* in, const Shape& s)
      : View(in, s, in->below(3) != 0, s.tokens + in->below(3), in->below(40), dtype_of(in)) {}

  View(Bytes* in, const Shape& s, bool from_hidden, int64_t count, int64_t width, int32_t dtype)
      : is_hidden(from_hidden),
        logits(in, is_hidden ? 0 : count, s.padded, dtype),
        hidden(in, is_hidden ? count : 0, width, dtype),
        head(in, is_hidden ? s.padded : 0, width, dtype_of(in)),
        bias(in, 1, is_hidden ? s.padded : 0, dtype_of(in)) {
    scores.level = is_hidden ? RLSD_HIDDEN : RLSD_LOGITS;
    if (is_hidden) {
      scores.hidden = hidden.tensor;
      scores.head = head.tensor;
      if (in->below(2) != 0) scores.bias = bias.tensor;
    } else {
      scores.logits = logits.tensor;
    }
    scores.vocab_size = s.wild ? s.padded + 1 - in->below(3) : s.vocab;
    for (int64_t i = 0; i < s.tokens; ++i) {
      rows.push_back(static_cast<int32_t>(s.wild ? in->below(40) - 8 : s.tokens - 1 - i));
    }
    if (in->below(2) != 0) scores.rows = rows.data();
  }
};

/* Memory for the gradients of a view, of its own types or all float32. */
struct Gradients {
  Array logits, hidden, head, bias;

  Gradients(const rlsd_scores& s, bool wide)
      : logits(like(s.logits, false)),
        hidden(like(s.hidden, wide)),
        head(like(s.head, wide)),
        bias(like(s.bias, wide)) {}

  static Array like(const rlsd_tensor& of, bool wide) {
    Array array(nullptr, of.shape[0], of.shape[1], wide ? RLSD_F32 : of.dtype);
    if (of.data == nullptr) array.tensor.data = nullptr; /* not wanted */
    return array;
  }
};

struct Policy {
  bool wild;
  rlsd_policy_batch batch{};
  rlsd_objective objective{};
  rlsd_policy_outputs out{};
};

int64_t finished = 0; /* calls that were not refused */

/* The call in a workspace of as many bytes as it asks for, full of what is no number. */
template <class Size, class Call>
rlsd_status run(rlsd_context* context, bool wild, Size&& size, Call&& call) {
  uint64_t bytes = 0;
  rlsd_status status = size(&bytes);
  if (status == RLSD_OK) {
    context->workspace = std::malloc(bytes);
    context->workspace_bytes = bytes;
    std::memset(context->workspace, 0xFF, bytes);
    status = call();
    std::free(context->workspace);
  }
  const bool done = status == RLSD_OK || status == RLSD_NON_FINITE;
  finished += done;
  if (!wild && !done) {
    std::fprintf(stderr, "Refused: %s\n", context->error);
    std::abort();
  }
  return status;
}

void fuzz_policy(rlsd_context* context, Bytes* in, Policy* p, const std::vector<uint8_t>& mask) {
  const auto n = static_cast<size_t>(p->batch.tokens);
  std::vector<float> results[5];
  for (std::vector<float>& r : results) r.assign(n, 7.0f);
  std::vector<double> stats(RLSD_STAT_COUNT);
  const Gradients gradients(p->batch.student, in->below(2) != 0);
  p->out.log_probs = results[0].data();
  p->out.teacher_log_probs = results[1].data();
  p->out.token_advantages = results[2].data();
  p->out.evidence_weights = results[3].data();
  p->out.gradient_log_probs = results[4].data();
  if (in->below(4) != 0) p->out.gradient_logits = gradients.logits.tensor;
  if (in->below(4) != 0) p->out.gradient_hidden = gradients.hidden.tensor;
  if (in->below(4) != 0) p->out.gradient_head = gradients.head.tensor;
  if (in->below(4) != 0) p->out.gradient_bias = gradients.bias.tensor;
  p->out.accumulate = static_cast<int32_t>(in->below(2));
  p->out.skip_zero_rows = static_cast<int32_t>(in->below(2));
  p->out.clear_other_rows = static_cast<int32_t>(in->below(2));
  p->out.loss_scale = 1.0;
  p->out.stats = stats.data();
  const rlsd_backend_v1* const table = rlsd_backend_get(RLSD_ABI_VERSION);
  const rlsd_status status = run(
      context, p->wild,
      [&](uint64_t* bytes) { return table->policy_loss_workspace(context, &p->batch, &p->objective, &p->out, bytes); },
      [&] { return table->policy_loss(context, &p->batch, &p->objective, &p->out); });
  if (status != RLSD_OK && status != RLSD_NON_FINITE) return;
  for (size_t i = 0; i < n; ++i) {
    for (const std::vector<float>& r : results) {
      if (mask[i] == 0 && r[i] != 0.0f) std::abort();
    }
  }
}

void fuzz_distill(rlsd_context* context, Bytes* in, const Policy& p) {
  rlsd_distill_args args{};
  args.tokens = p.batch.tokens;
  args.sequences = p.batch.sequences;
  args.student = p.batch.student;
  args.teacher = p.batch.teacher;
  args.cu_seqlens = p.batch.cu_seqlens;
  args.completion_mask = p.batch.completion_mask;
  args.divergence = static_cast<int32_t>(in->below(3));
  args.reduction = static_cast<int32_t>(in->below(4));
  args.top_k = static_cast<int32_t>(in->below(2) * in->next());
  args.tail = static_cast<int32_t>(in->below(2));
  args.beta = 0.3;
  args.value_clamp = in->below(2) != 0 ? 10.0 : INFINITY;
  args.temperature = 0.7;
  args.logit_softcap = in->below(2) != 0 ? 5.0 : 0.0;
  args.loss_scale = 1.0;
  const Gradients gradients(args.student, true);
  if (in->below(4) != 0) args.gradient_logits = gradients.logits.tensor;
  if (in->below(4) != 0) args.gradient_hidden = gradients.hidden.tensor;
  if (in->below(4) != 0) args.gradient_head = gradients.head.tensor;
  double stats[RLSD_DISTILL_STATS];
  args.stats = stats;
  const rlsd_backend_v1* const table = rlsd_backend_get(RLSD_ABI_VERSION);
  run(
      context, p.wild, [&](uint64_t* bytes) { return table->distill_loss_workspace(context, &args, bytes); },
      [&] { return table->distill_loss(context, &args); });
}

void fuzz_scoring(rlsd_context* context, Bytes* in, const Policy& p) {
  std::vector<float> log_probs(static_cast<size_t>(p.batch.tokens)), entropy(log_probs.size());
  rlsd_token_log_probs_args args{};
  args.tokens = p.batch.tokens;
  args.scores = p.batch.student;
  args.token_ids = p.batch.token_ids;
  args.completion_mask = p.batch.completion_mask;
  args.temperature = 0.7;
  args.logit_softcap = in->below(2) != 0 ? 5.0 : 0.0;
  args.logit_rounding_bf16 = static_cast<int32_t>(in->below(2));
  args.log_probs = log_probs.data();
  if (in->below(2) != 0) args.entropy = entropy.data();
  const rlsd_backend_v1* const table = rlsd_backend_get(RLSD_ABI_VERSION);
  run(
      context, p.wild, [&](uint64_t* bytes) { return table->token_log_probs_workspace(context, &args, bytes); },
      [&] { return table->token_log_probs(context, &args); });
}

rlsd_objective objective_of(Bytes* in) {
  rlsd_objective o{};
  o.struct_size = sizeof(o);
  o.surrogate = static_cast<int32_t>(in->below(8));
  o.reduction = static_cast<int32_t>(in->below(4));
  o.normalize_sequence = static_cast<int32_t>(in->below(2));
  o.clip_low = o.clip_high = o.evidence_clip = 0.2;
  o.log_clip_low = o.log_evidence_low = std::log(0.8);
  o.log_clip_high = o.log_evidence_high = std::log(1.2);
  o.dual_clip = o.ratio_bound = o.kl_clamp = o.importance_max = INFINITY;
  o.temperature = 0.9;
  o.entropy_coef = in->below(2) != 0 ? 0.1 : 0.0;
  o.logit_softcap = in->below(2) != 0 ? 5.0 : 0.0;
  o.credit_mix = 1.0;
  o.sapo_temperature_pos = o.sapo_temperature_neg = 1.0;
  return o;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes in = {data, size};
  Policy p;
  p.wild = in.below(4) == 1;
  p.objective = objective_of(&in);
  const int64_t tokens = in.below(20), padded = 1 + in.next(), sequences = 1 + in.below(3);
  const int64_t vocab = std::max<int64_t>(1, padded - in.below(2));
  const Shape shape = {p.wild, tokens, padded, vocab};
  const View student(&in, shape), teacher(&in, shape);
  std::vector<int32_t> ids, cu = {0};
  std::vector<uint8_t> mask;
  std::vector<float> advantages;
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<int32_t>(p.wild ? in.next() : in.below(vocab)));
    mask.push_back(static_cast<uint8_t>(in.below(4) != 0));
  }
  for (int64_t b = 1; b < sequences; ++b) cu.push_back(static_cast<int32_t>(in.below(tokens + 1)));
  if (!p.wild) std::sort(cu.begin(), cu.end());
  cu.push_back(static_cast<int32_t>(tokens));
  const bool per_token = p.objective.surrogate == RLSD_ROW_COEFFICIENT || in.below(2) != 0;
  for (int64_t i = 0; i < (per_token ? tokens : sequences); ++i) {
    const float a = in.number();
    advantages.push_back(p.wild || std::isfinite(a) ? a : 0.0f);
  }
  p.batch.tokens = tokens;
  p.batch.sequences = sequences;
  p.batch.student = student.scores;
  p.batch.teacher = teacher.scores;
  p.batch.token_ids = ids.data();
  p.batch.cu_seqlens = cu.data();
  p.batch.completion_mask = mask.data();
  p.batch.advantages = advantages.data();
  p.batch.advantages_per_token = per_token;
  rlsd_context context{};
  context.struct_size = sizeof(context);
  context.threads = static_cast<int32_t>(1 + in.below(2));
  fuzz_policy(&context, &in, &p, mask);
  fuzz_distill(&context, &in, p);
  fuzz_scoring(&context, &in, p);
  return 0;
}
