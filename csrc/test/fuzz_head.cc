/* Bytes become shapes, options and small arrays of policy_loss, token_log_probs and distill_loss over an LM head. Any status
 * may come back; no byte outside the arrays may be touched, and masked tokens get exactly 0. */
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/backend_cpu.h"

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
    static const float odd[] = {0.0f, -0.0f, 1e30f, -1e30f, __builtin_inff(), -__builtin_inff(), __builtin_nanf(""), 1e-40f};
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
    bytes.resize(static_cast<size_t>(rows * columns * width));
    for (int64_t i = 0; in != nullptr && i < rows * columns; ++i) {
      const float x = in->number();
      std::memcpy(bytes.data() + i * width, reinterpret_cast<const char*>(&x) + (4 - width), static_cast<size_t>(width));
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

struct View {
  Array hidden, head, bias;
  std::vector<int32_t> rows;
  rlsd_scores scores{};

  View(Bytes* in, int64_t tokens, int64_t vocab)
      : View(in, tokens, vocab, tokens + in->below(3), in->below(40), dtype_of(in)) {}

  View(Bytes* in, int64_t tokens, int64_t vocab, int64_t count, int64_t width, int32_t dtype)
      : hidden(in, count, width, dtype), head(in, vocab, width, dtype_of(in)), bias(in, 1, vocab, dtype_of(in)) {
    scores.level = RLSD_HIDDEN;
    scores.hidden = hidden.tensor;
    scores.head = head.tensor;
    if (in->below(2) != 0) scores.bias = bias.tensor;
    scores.vocab_size = vocab - in->below(2);
    const bool wild = in->below(8) == 0;
    for (int64_t i = 0; i < tokens; ++i) rows.push_back(static_cast<int32_t>(wild ? in->below(40) - 8 : i));
    if (in->below(2) != 0) scores.rows = rows.data();
  }
};

void run(rlsd_context* context, uint64_t bytes, rlsd_status (*call)(rlsd_context*, void*), void* self) {
  context->workspace = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  context->workspace_bytes = bytes;
  std::memset(context->workspace, 0xFF, bytes);
  call(context, self);
  std::free(context->workspace);
}

struct Policy {
  rlsd_policy_batch batch{};
  rlsd_objective objective{};
  rlsd_policy_outputs out{};
};

void fuzz_policy(rlsd_context* context, Bytes* in, Policy* p, const std::vector<uint8_t>& mask) {
  const auto n = static_cast<size_t>(p->batch.tokens);
  std::vector<float> results[5];
  for (std::vector<float>& r : results) r.assign(n, 7.0f);
  std::vector<double> stats(RLSD_STAT_COUNT);
  const rlsd_scores& s = p->batch.student;
  const int32_t dtype = in->below(2) != 0 ? RLSD_F32 : -1;
  const auto gradient = [&](const rlsd_tensor& of) {
    return Array(nullptr, of.shape[0], of.shape[1], dtype == RLSD_F32 ? RLSD_F32 : of.dtype);
  };
  Array hidden = gradient(s.hidden), head = gradient(s.head), bias = gradient(s.bias.data ? s.bias : s.head);
  p->out.log_probs = results[0].data();
  p->out.teacher_log_probs = results[1].data();
  p->out.token_advantages = results[2].data();
  p->out.evidence_weights = results[3].data();
  p->out.gradient_log_probs = results[4].data();
  p->out.gradient_hidden = hidden.tensor;
  if (in->below(4) != 0) p->out.gradient_head = head.tensor;
  if (s.bias.data != nullptr) p->out.gradient_bias = bias.tensor;
  p->out.accumulate = static_cast<int32_t>(in->below(2));
  p->out.skip_zero_rows = static_cast<int32_t>(in->below(2));
  p->out.clear_other_rows = static_cast<int32_t>(in->below(2));
  p->out.loss_scale = 1.0;
  p->out.stats = stats.data();
  const rlsd_backend_v1* table = rlsd::cpu::backend();
  uint64_t bytes = 0;
  if (table->policy_loss_workspace(context, &p->batch, &p->objective, &p->out, &bytes) != RLSD_OK) return;
  context->workspace = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  context->workspace_bytes = bytes;
  const rlsd_status status = table->policy_loss(context, &p->batch, &p->objective, &p->out);
  std::free(context->workspace);
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
  args.value_clamp = in->below(2) != 0 ? 10.0 : __builtin_inf();
  args.temperature = 0.7;
  args.logit_softcap = in->below(2) != 0 ? 5.0 : 0.0;
  args.loss_scale = 1.0;
  Array hidden(nullptr, args.student.hidden.shape[0], args.student.hidden.shape[1], RLSD_F32);
  Array head(nullptr, args.student.head.shape[0], args.student.head.shape[1], RLSD_F32);
  args.gradient_hidden = hidden.tensor;
  args.gradient_head = head.tensor;
  double stats[RLSD_DISTILL_STATS];
  args.stats = stats;
  const rlsd_backend_v1* table = rlsd::cpu::backend();
  uint64_t bytes = 0;
  if (table->distill_loss_workspace(context, &args, &bytes) != RLSD_OK) return;
  run(context, bytes,
      [](rlsd_context* c, void* self) {
        return rlsd::cpu::backend()->distill_loss(c, static_cast<const rlsd_distill_args*>(self));
      },
      &args);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes in = {data, size};
  Policy p;
  const int64_t tokens = in.below(20), vocab = 1 + in.next(), sequences = 1 + in.below(3);
  View student(&in, tokens, vocab), teacher(&in, tokens, vocab);
  std::vector<int32_t> ids, cu = {0};
  std::vector<uint8_t> mask;
  std::vector<float> advantages;
  const bool wild = in.below(8) == 0;
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<int32_t>(wild ? in.next() : in.below(vocab)));
    mask.push_back(static_cast<uint8_t>(in.below(4) != 0));
  }
  for (int64_t b = 1; b < sequences; ++b) cu.push_back(static_cast<int32_t>(in.below(tokens + 1)));
  cu.push_back(static_cast<int32_t>(tokens));
  for (int64_t b = 0; b < sequences; ++b) advantages.push_back(in.number());
  p.batch.tokens = tokens;
  p.batch.sequences = sequences;
  p.batch.student = student.scores;
  p.batch.teacher = teacher.scores;
  p.batch.token_ids = ids.data();
  p.batch.cu_seqlens = cu.data();
  p.batch.completion_mask = mask.data();
  p.batch.advantages = advantages.data();
  p.objective.struct_size = sizeof(p.objective);
  p.objective.surrogate = static_cast<int32_t>(in.below(8));
  p.objective.reduction = static_cast<int32_t>(in.below(4));
  p.objective.normalize_sequence = static_cast<int32_t>(in.below(2));
  p.objective.clip_low = p.objective.clip_high = p.objective.evidence_clip = 0.2;
  p.objective.dual_clip = p.objective.ratio_bound = p.objective.kl_clamp = __builtin_inf();
  p.objective.temperature = 0.9;
  p.objective.entropy_coef = in.below(2) != 0 ? 0.1 : 0.0;
  p.objective.logit_softcap = in.below(2) != 0 ? 5.0 : 0.0;
  p.objective.credit_mix = 1.0;
  p.objective.sapo_temperature_pos = p.objective.sapo_temperature_neg = 1.0;
  rlsd_context context{};
  context.struct_size = sizeof(context);
  context.threads = static_cast<int32_t>(1 + in.below(2));
  fuzz_policy(&context, &in, &p, mask);
  fuzz_distill(&context, &in, p);
  return 0;
}
