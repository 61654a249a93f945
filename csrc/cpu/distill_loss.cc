/* distill_loss: divergence between teacher and student over whole distributions, loss = sum_t omega_t D_t, from logits
 * or from hidden states and LM heads, in any mix.
 *
 * One token is one thread's: both rows become float32 scaled logits in scratch (a chunk's own memory where the view is
 * hidden states), are compared, and the student's becomes its gradient. Hidden states go a chunk at a time, so that
 * no array is wider than two chunks of logits: 6 N V H operations for the student, 2 for the teacher. */
#include "cpu/distill_loss.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/loss_arguments.h"
#include "core/memory.h"
#include "cpu/distill_row.h"
#include "cpu/head_gradient.h"
#include "cpu/policy_tokens.h"
#include "cpu/row_tasks.h"

namespace rlsd::cpu {
namespace {

/* A view at either level, and the chunk of logits that hidden states need. */
struct Side {
  const char* name;
  bool hidden;
  LogitsView logits; /* where hidden: of the chunk */
  HeadView head;
  HeadChunk chunk;

  int64_t rows() const { return hidden ? head.hidden.shape[0] : logits.rows; }
};

Side side_of(const char* name, const rlsd_scores& s) {
  Side side = {};
  side.name = name;
  side.hidden = s.level == RLSD_HIDDEN;
  if (side.hidden) {
    side.head = head_view(s);
  } else {
    side.logits = logits_view(s);
  }
  return side;
}

struct Arrays {
  int32_t* owner;   /* (rows of the student, then of the teacher) */
  int32_t* teacher_owner;
  int32_t* ids;     /* (N) of zeros: rows are checked as for tokens */
  int32_t* order;   /* (N) unmasked tokens */
  double* omega;    /* (N) */
  double* value;    /* (N); NaN: bad */
  uint8_t* clamped; /* (N) */
  float* rows;      /* (slots, 2, stride) */
  ChosenToken* chosen; /* (slots, top_k) */
};

class DistillLoss {
 public:
  DistillLoss(rlsd_context* context, const rlsd_distill_args& args)
      : context_(context),
        args_(args),
        options_{args.divergence, args.top_k,       args.tail != 0,
                 args.beta,       args.value_clamp, args.temperature,
                 args.logit_softcap},
        student_(side_of("student", args.student)),
        teacher_(side_of("teacher", args.teacher)),
        gradient_(student_.head, args.gradient_hidden, args.gradient_head, args.gradient_bias, args.accumulate != 0) {
    vocab_ = args.student.vocab_size;
  }

  uint64_t cut(void* base);
  rlsd_status run();

 private:
  rlsd_status check();
  rlsd_status check_side(const Side& side, int32_t* owner);
  PolicyTokens tokens() const;
  void list_tokens();
  bool wants_gradient() const { return gradient_.wanted() || args_.gradient_logits.data != nullptr; }
  float* scratch_row(int64_t slot, int64_t which) const;
  float* scaled_row(const Side& side, int64_t token, int64_t i, float* scratch) const;
  void compare(int64_t token, int64_t i, int64_t slot);
  void write_logits_gradient(int64_t token, const float* row) const;
  rlsd_status compare_chunk(const int32_t* tokens, int64_t count);
  void clear_rows() const;
  rlsd_status finish();

  rlsd_context* context_;
  const rlsd_distill_args& args_;
  const DistillOptions options_;
  Side student_, teacher_;
  HeadGradient gradient_;
  Arrays a_{};
  int64_t vocab_ = 0, stride_ = 0, listed_ = 0, chunk_rows_ = 0;
};

uint64_t DistillLoss::cut(void* base) {
  Workspace w(base);
  const int64_t n = args_.tokens;
  a_.owner = w.cut<int32_t>(student_.rows());
  a_.teacher_owner = w.cut<int32_t>(teacher_.rows());
  a_.ids = w.cut<int32_t>(n);
  a_.order = w.cut<int32_t>(n);
  a_.omega = w.cut<double>(n);
  a_.value = w.cut<double>(n);
  a_.clamped = w.cut<uint8_t>(n);
  stride_ = (std::max<int64_t>(vocab_, 1) + 15) / 16 * 16;
  const int64_t slots = row_slots(context_, n);
  if (!student_.hidden || !teacher_.hidden) a_.rows = w.cut<float>(slots * 2 * stride_);
  if (options_.top_k > 0) a_.chosen = w.cut<ChosenToken>(slots * std::min(options_.top_k, vocab_));
  const int64_t alive = (student_.hidden ? 1 : 0) + (teacher_.hidden ? 1 : 0);
  chunk_rows_ = std::max<int64_t>(n, 1);
  for (Side* side : {&student_, &teacher_}) {
    if (!side->hidden) continue;
    side->chunk = cut_head_chunk(context_, &side->head, 1, n, alive, &w);
    side->logits = chunk_view(side->head, side->chunk);
    chunk_rows_ = side->chunk.rows;
  }
  if (student_.hidden) gradient_.cut(student_.chunk, n, &w);
  return w.bytes();
}

PolicyTokens DistillLoss::tokens() const {
  PolicyTokens p{};
  p.tokens = args_.tokens;
  p.sequences = args_.sequences;
  p.cu_seqlens = args_.cu_seqlens;
  p.completion_mask = args_.completion_mask;
  return p;
}

rlsd_status DistillLoss::check_side(const Side& side, int32_t* owner) {
  const TokenIds ids{args_.tokens, a_.ids, args_.completion_mask};
  return side.hidden ? check_head(context_, side.name, side.head, ids, owner)
                     : check_logits(context_, side.name, side.logits, ids, owner);
}

rlsd_status DistillLoss::check() {
  for (const rlsd_scores* s : {&args_.student, &args_.teacher}) {
    if (s->level == RLSD_LOGITS || s->level == RLSD_HIDDEN) continue;
    return fail(context_, RLSD_INVALID_ARGUMENT, -1, "Expected logits or hidden states for student and teacher.");
  }
  if (args_.divergence == RLSD_JSD && !(args_.beta > 0.0 && args_.beta < 1.0)) {
    return fail(context_, RLSD_INVALID_ARGUMENT, -1, "Expected a number above 0 and below 1 for beta but received %g.",
                args_.beta);
  }
  if (args_.teacher.vocab_size != vocab_) {
    return fail(context_, RLSD_INVALID_ARGUMENT, -1,
                "Expected one vocabulary but the student's has %lld tokens and the teacher's %lld.",
                static_cast<long long>(vocab_), static_cast<long long>(args_.teacher.vocab_size));
  }
  std::fill_n(a_.ids, args_.tokens, 0);
  rlsd_status status = check_policy_tokens(context_, tokens());
  if (status == RLSD_OK) status = check_side(teacher_, a_.teacher_owner);
  if (status == RLSD_OK) status = check_side(student_, a_.owner);
  if (status == RLSD_OK && student_.hidden) status = gradient_.check(context_);
  for (const rlsd_tensor* gradient : {&args_.gradient_hidden, &args_.gradient_head, &args_.gradient_bias}) {
    if (status == RLSD_OK) status = check_apart(context_, *gradient, args_.teacher);
  }
  return status;
}

void DistillLoss::list_tokens() {
  const PolicyTokens p = tokens();
  rlsd_objective reduction{};
  reduction.reduction = args_.reduction;
  reduction.normalizer = args_.normalizer;
  const int64_t batch_tokens = count_tokens(p);
  for (int64_t b = 0; b < p.sequences; ++b) {
    int64_t length = 0;
    for (int64_t i = p.cu_seqlens[b]; i < p.cu_seqlens[b + 1]; ++i) length += is_masked(p, i) ? 0 : 1;
    const double omega = reduction_weight(reduction, batch_tokens, p.sequences, length);
    for (int64_t i = p.cu_seqlens[b]; i < p.cu_seqlens[b + 1]; ++i) {
      a_.value[i] = 0.0;
      a_.clamped[i] = 0;
      a_.omega[i] = is_masked(p, i) ? 0.0 : omega;
      if (!is_masked(p, i)) a_.order[listed_++] = static_cast<int32_t>(i);
    }
  }
}

/* One of a slot's two; NULL where both sides lie in chunks. */
float* DistillLoss::scratch_row(int64_t slot, int64_t which) const {
  return a_.rows == nullptr ? nullptr : a_.rows + (2 * slot + which) * stride_;
}

/* Token i of the chunk as scaled logits: in the chunk itself, or copied from the caller's logits. */
float* DistillLoss::scaled_row(const Side& side, int64_t token, int64_t i, float* scratch) const {
  float* row = scratch;
  if (side.hidden) {
    row = side.chunk.logits + i * side.chunk.stride;
  } else {
    matmul_kernels().widen[side.logits.dtype](row, side.logits.at(side.logits.row(token)), vocab_);
  }
  scale_logits(row, vocab_, options_);
  return row;
}

void DistillLoss::write_logits_gradient(int64_t token, const float* row) const {
  const rlsd_tensor& g = args_.gradient_logits;
  const int64_t width = element_bytes(g.dtype);
  char* const out = static_cast<char*>(g.data) + student_.logits.row(token) * g.stride[0] * width;
  matmul_kernels().narrow[g.dtype](out, row, vocab_);
  std::memset(out + vocab_ * width, 0, static_cast<size_t>((g.shape[1] - vocab_) * width));
}

void DistillLoss::compare(int64_t token, int64_t i, int64_t slot) {
  ChosenToken* const chosen = a_.chosen == nullptr ? nullptr : a_.chosen + slot * std::min(options_.top_k, vocab_);
  const Distribution student = distribution_of(scaled_row(student_, token, i, scratch_row(slot, 0)), vocab_);
  const Distribution teacher = distribution_of(scaled_row(teacher_, token, i, scratch_row(slot, 1)), vocab_);
  const RowDivergence d = row_divergence(teacher, student, vocab_, options_, chosen);
  const bool bad = !std::isfinite(d.value);
  a_.clamped[token] = !bad && std::fabs(d.value) > options_.value_clamp;
  a_.value[token] = bad ? NAN : std::clamp(d.value, -options_.value_clamp, options_.value_clamp);
  if (!wants_gradient()) return;
  const bool none = bad || a_.clamped[token];
  const double weight = none ? 0.0 : args_.loss_scale * a_.omega[token];
  write_divergence_gradient(teacher, student, vocab_, options_, d, chosen, weight);
  if (!student_.hidden) return write_logits_gradient(token, student.scaled);
  if (weight == 0.0) gradient_.drop(i);
}

rlsd_status DistillLoss::compare_chunk(const int32_t* tokens, int64_t count) {
  rlsd_status status = RLSD_OK;
  for (const Side* side : {&student_, &teacher_}) {
    if (side->hidden && status == RLSD_OK) status = head_logits(context_, side->head, tokens, count, side->chunk);
  }
  if (status != RLSD_OK) return status;
  if (student_.hidden) gradient_.begin_chunk(count);
  status = for_rows(context_, count, vocab_, [&](int64_t i, int64_t slot) { compare(tokens[i], i, slot); });
  if (status != RLSD_OK || !student_.hidden || !gradient_.wanted()) return status;
  return gradient_.add(context_, tokens, count, student_.chunk);
}

/* Rows of the gradient that belong to masked tokens or to none. */
void DistillLoss::clear_rows() const {
  const rlsd_tensor& g = args_.gradient_logits;
  for (int64_t row = 0; row < student_.rows(); ++row) {
    if (a_.owner[row] >= 0 || (a_.owner[row] == kNoToken && !args_.clear_other_rows)) continue;
    if (student_.hidden) {
      gradient_.zero_row(row);
    } else if (g.data != nullptr) {
      const int64_t width = element_bytes(g.dtype);
      std::memset(static_cast<char*>(g.data) + row * g.stride[0] * width, 0, static_cast<size_t>(g.shape[1] * width));
    }
  }
}

rlsd_status DistillLoss::finish() {
  double loss = 0.0, sum = 0.0, clamped = 0.0;
  int64_t bad = 0, first_bad = -1;
  for (int64_t at = 0; at < listed_; ++at) {
    const int64_t i = a_.order[at];
    if (std::isnan(a_.value[i])) {
      if (bad++ == 0) first_bad = i;
      a_.value[i] = 0.0;
      continue;
    }
    loss += a_.omega[i] * a_.value[i];
    sum += a_.value[i];
    clamped += a_.clamped[i];
  }
  if (args_.token_losses != nullptr) {
    for (int64_t i = 0; i < args_.tokens; ++i) args_.token_losses[i] = static_cast<float>(a_.value[i]);
  }
  const double read = static_cast<double>(listed_ - bad);
  const double stats[RLSD_DISTILL_STATS] = {static_cast<double>(listed_),     static_cast<double>(args_.sequences), loss,
                                            read > 0.0 ? sum / read : NAN,    static_cast<double>(bad),
                                            read > 0.0 ? clamped / read : NAN};
  std::copy_n(stats, RLSD_DISTILL_STATS, args_.stats);
  if (bad == 0 || args_.non_finite_skip) return RLSD_OK;
  context_->error_count = bad;
  return fail(context_, RLSD_NON_FINITE, first_bad,
              "Expected finite logits and a finite divergence at unmasked tokens but token %lld has none (%lld in all).",
              static_cast<long long>(first_bad), static_cast<long long>(bad));
}

rlsd_status DistillLoss::run() {
  rlsd_status status = check_workspace(context_, cut(context_->workspace));
  if (status == RLSD_OK) status = check();
  if (status != RLSD_OK) return status;
  list_tokens();
  clear_rows();
  for (int64_t first = 0; first < listed_ && status == RLSD_OK; first += chunk_rows_) {
    status = compare_chunk(a_.order + first, std::min(chunk_rows_, listed_ - first));
  }
  if (status == RLSD_OK && student_.hidden) status = gradient_.finish(context_);
  return status == RLSD_OK ? finish() : status;
}

}  // namespace

rlsd_status distill_loss_workspace(rlsd_context* context, const rlsd_distill_args* args, uint64_t* bytes) {
  *bytes = DistillLoss(context, *args).cut(nullptr);
  return RLSD_OK;
}

rlsd_status distill_loss(rlsd_context* context, const rlsd_distill_args* args) {
  const WrongArgument wrong = wrong_distill_arguments(*args);
  if (wrong.format != nullptr) return refuse(context, wrong);
  return DistillLoss(context, *args).run();
}

}  // namespace rlsd::cpu
