/* policy_loss with logits: (R, V) logits of student, teacher and contrast in, loss and dL/dlogits out.
 *
 * One row is one thread's: teacher and contrast are summed, the student is summed and its exponentials kept in
 * scratch, the token's dL/dlogP follows from the (N) arrays, and the exponentials become the gradient. Memory moves
 * once: student and teacher are read, the gradient is written; no (N, V) array but the gradient is made.
 *
 * Objectives whose coefficient depends on other rows of the sequence score every row first and read the student
 * again for the gradient; the second score has the bits of the first. */
#include "cpu/policy_loss_logits.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"
#include "cpu/logits_view.h"
#include "cpu/policy_loss.h"
#include "cpu/policy_rows.h"
#include "cpu/row_tasks.h"
#include "cpu/workspace.h"

namespace rlsd::cpu {
namespace {

/* The workspace's arrays. Those of a view are NULL where the caller gave a place or the view is log-probs. */
struct Arrays {
  int32_t* owner; /* (most rows of any view) the token that a row of the student predicts */
  SequenceTerms* terms; /* (B) */
  uint8_t* moved; /* (B) */
  float* log_probs;     /* (N) */
  float* teacher;
  float* contrast;
  float* entropy;
  uint8_t* skipped;
  float* scratch; /* (slots, scratch_floats) */
  int64_t scratch_floats;
};

int64_t logits_rows(const rlsd_scores& s) { return s.level == RLSD_LOGITS ? s.logits.shape[0] : 0; }

/* Rows of the loop: the student's, or the tokens when the student has none. */
int64_t loop_rows(const rlsd_policy_batch& b) {
  return b.student.level == RLSD_LOGITS ? b.student.logits.shape[0] : b.tokens;
}

uint64_t cut_arrays(const rlsd_context* context, const rlsd_policy_batch& b, const rlsd_policy_outputs& out,
                    void* base, Arrays* a) {
  Workspace w(base);
  const int64_t n = b.tokens;
  const bool student = b.student.level == RLSD_LOGITS, teacher = b.teacher.level == RLSD_LOGITS;
  *a = Arrays{};
  a->owner = w.cut<int32_t>(std::max({logits_rows(b.student), logits_rows(b.teacher), logits_rows(b.contrast)}));
  a->terms = w.cut<SequenceTerms>(b.sequences);
  a->moved = w.cut<uint8_t>(b.sequences);
  if (student && out.log_probs == nullptr) a->log_probs = w.cut<float>(n);
  if (teacher && out.teacher_log_probs == nullptr) a->teacher = w.cut<float>(n);
  if (b.contrast.level == RLSD_LOGITS) a->contrast = w.cut<float>(n);
  if (student) {
    a->entropy = w.cut<float>(n);
    a->skipped = w.cut<uint8_t>(n);
  }
  if (student && out.gradient_logits.data != nullptr) {
    const int64_t vocab = std::clamp<int64_t>(b.student.vocab_size, 0, b.student.logits.shape[1]);
    a->scratch_floats = row_scratch_floats(vocab);
    a->scratch = w.cut<float>(row_slots(context, loop_rows(b)) * a->scratch_floats);
  }
  return w.bytes();
}

/* One view that is logits, and where its log-probs go. */
struct Target {
  LogitsView view;
  float* log_probs; /* NULL: the view is not logits */
};

Target target_of(const rlsd_scores& s, float* given, float* own) {
  if (s.level != RLSD_LOGITS) return {};
  return {logits_view(s), given != nullptr ? given : own};
}

class LogitsLoss {
 public:
  LogitsLoss(rlsd_context* context, const rlsd_policy_batch& b, const rlsd_objective& o,
             const rlsd_policy_outputs& out)
      : context_(context), batch_(b), o_(o), out_(out), options_(row_options(o.temperature, o.logit_softcap,
                                                                             o.logit_rounding_bf16 != 0)) {}

  rlsd_status run();

 private:
  rlsd_status check();
  void bind();
  bool skips(int64_t sequence, int64_t token) const {
    return out_.skip_zero_rows && rows_.has_no_gradient(sequence, token);
  }
  int64_t token_of(int64_t row) const { return student_.log_probs != nullptr ? a_.owner[row] : row; }
  void score_others(int64_t token) const;
  RowScore score_student(int64_t token, float* scratch) const;
  void fill_zero(int64_t row) const;
  void unowned_row(int64_t row, int64_t token) const;
  void score_only(int64_t row);
  void gradient_only(int64_t row, float* scratch) const;
  void score_and_gradient(int64_t row, float* scratch);
  void write_gradient(int64_t row, int64_t token, const RowScore& score, const RowGradient& g,
                      const float* scratch) const;
  bool wants_gradient() const { return student_.log_probs != nullptr && out_.gradient_logits.data != nullptr; }
  float* scratch(int64_t slot) const { return a_.scratch + slot * a_.scratch_floats; }
  char* gradient_row(int64_t row) const {
    const rlsd_tensor& g = out_.gradient_logits;
    return static_cast<char*>(g.data) + row * g.stride[0] * element_bytes(g.dtype);
  }

  rlsd_context* context_;
  const rlsd_policy_batch& batch_;
  const rlsd_objective& o_;
  const rlsd_policy_outputs& out_;
  const RowOptions options_;
  Arrays a_{};
  PolicyRows rows_{};
  TokenIds ids_{};
  Target student_{}, teacher_{}, contrast_{};
};

rlsd_status LogitsLoss::check() {
  rlsd_status status = check_policy_tokens(context_, rows_.p);
  const Target* const targets[2] = {&contrast_, &teacher_};
  const char* const names[2] = {"contrast", "teacher"};
  for (int i = 0; i < 2 && status == RLSD_OK; ++i) {
    if (targets[i]->log_probs == nullptr) continue;
    status = check_logits(context_, names[i], targets[i]->view, ids_, a_.owner);
  }
  if (status != RLSD_OK || student_.log_probs == nullptr) return status;
  return check_logits(context_, "student", student_.view, ids_, a_.owner); /* the last: owner stays the student's */
}

void LogitsLoss::bind() {
  rows_.p = policy_tokens(batch_);
  rows_.o = &o_;
  rows_.loss_scale = out_.loss_scale;
  ids_ = {batch_.tokens, batch_.token_ids, batch_.completion_mask};
  student_ = target_of(batch_.student, out_.log_probs, a_.log_probs);
  teacher_ = target_of(batch_.teacher, out_.teacher_log_probs, a_.teacher);
  contrast_ = target_of(batch_.contrast, nullptr, a_.contrast);
  if (student_.log_probs != nullptr) rows_.p.log_probs = student_.log_probs;
  if (teacher_.log_probs != nullptr) rows_.p.teacher = teacher_.log_probs;
  if (contrast_.log_probs != nullptr) rows_.p.contrast = contrast_.log_probs;
  rows_.p.entropy = a_.entropy;
  rows_.p.skipped = a_.skipped;
}

void LogitsLoss::score_others(int64_t token) const {
  for (const Target* t : {&teacher_, &contrast_}) {
    if (t->log_probs == nullptr) continue;
    t->log_probs[token] = rounded(score_token(t->view, ids_, token, options_, nullptr).log_prob);
  }
}

RowScore LogitsLoss::score_student(int64_t token, float* scratch) const {
  const RowScore score = score_token(student_.view, ids_, token, options_, scratch);
  student_.log_probs[token] = rounded(score.log_prob);
  a_.entropy[token] = rounded(score.entropy);
  return score;
}

void LogitsLoss::write_gradient(int64_t row, int64_t token, const RowScore& score, const RowGradient& g,
                                const float* scratch) const {
  write_row_gradient(gradient_row(row), student_.view.at(row), student_.view.dtype, student_.view.vocab,
                     student_.view.columns, ids_.ids[token], options_, score, g, scratch);
}

void LogitsLoss::fill_zero(int64_t row) const {
  const LogitsView& v = student_.view;
  if (wants_gradient()) std::memset(gradient_row(row), 0, static_cast<size_t>(v.columns * element_bytes(v.dtype)));
}

void LogitsLoss::unowned_row(int64_t row, int64_t token) const {
  if (token == kMaskedToken || out_.clear_other_rows) fill_zero(row);
}

void LogitsLoss::score_only(int64_t row) {
  const int64_t token = token_of(row);
  if (token < 0 || is_masked(rows_.p, token)) return;
  if (student_.log_probs != nullptr) {
    if (skips(rows_.sequence_of(token), token)) {
      a_.skipped[token] = 1;
      return;
    }
    score_student(token, nullptr);
  }
  score_others(token);
}

void LogitsLoss::gradient_only(int64_t row, float* scratch) const {
  const int64_t token = token_of(row);
  if (token < 0) return unowned_row(row, token);
  if (a_.skipped[token]) return fill_zero(row);
  const RowGradient g = rows_.gradient(rows_.sequence_of(token), token);
  if (g.log_prob == 0.0 && g.entropy == 0.0) return fill_zero(row);
  float* const kept = gradient_uses_scratch(options_, g.entropy) ? scratch : nullptr;
  write_gradient(row, token, score_token(student_.view, ids_, token, options_, kept), g, kept);
}

void LogitsLoss::score_and_gradient(int64_t row, float* scratch) {
  const int64_t token = token_of(row);
  if (token < 0) return unowned_row(row, token);
  const int64_t sequence = rows_.sequence_of(token);
  if (skips(sequence, token)) {
    a_.skipped[token] = 1;
    return fill_zero(row);
  }
  score_others(token);
  const bool zero = rows_.has_no_gradient(sequence, token);
  float* const kept = !zero && gradient_uses_scratch(options_, entropy_coefficient(o_)) ? scratch : nullptr;
  const RowScore score = score_student(token, kept);
  write_gradient(row, token, score, zero ? RowGradient{0.0, 0.0} : rows_.gradient(sequence, token), kept);
}

rlsd_status LogitsLoss::run() {
  const uint64_t bytes = cut_arrays(context_, batch_, out_, context_->workspace, &a_);
  rlsd_status status = check_workspace(context_, bytes);
  if (status != RLSD_OK) return status;
  bind();
  status = check();
  if (status != RLSD_OK) return status;
  if (a_.skipped != nullptr) std::memset(a_.skipped, 0, static_cast<size_t>(batch_.tokens));
  rows_.begin(a_.terms, a_.moved);
  const int64_t rows = loop_rows(batch_);
  const int64_t columns = std::max({student_.view.columns, teacher_.view.columns, contrast_.view.columns});
  if (wants_gradient() && !rows_.whole_sequences) {
    rows_.find_terms(false);
    status = for_rows(context_, rows, columns, [&](int64_t r, int64_t slot) { score_and_gradient(r, scratch(slot)); });
  } else {
    status = for_rows(context_, rows, columns, [&](int64_t r, int64_t) { score_only(r); });
    if (status == RLSD_OK && wants_gradient()) {
      rows_.find_terms(true);
      status = for_rows(context_, rows, columns, [&](int64_t r, int64_t slot) { gradient_only(r, scratch(slot)); });
    }
  }
  return status == RLSD_OK ? policy_loss_tokens(context_, rows_.p, o_, out_) : status;
}

}  // namespace

bool is_logits_level(const rlsd_policy_batch& b) {
  const int32_t highest = std::max({b.student.level, b.teacher.level, b.contrast.level});
  return highest == RLSD_LOGITS;
}

rlsd_status policy_loss_logits_workspace(rlsd_context* context, const rlsd_policy_batch& batch, const rlsd_objective&,
                                         const rlsd_policy_outputs& outputs, uint64_t* bytes) {
  Arrays arrays;
  *bytes = cut_arrays(context, batch, outputs, nullptr, &arrays);
  return RLSD_OK;
}

rlsd_status policy_loss_logits(rlsd_context* context, const rlsd_policy_batch& batch, const rlsd_objective& objective,
                               const rlsd_policy_outputs& outputs) {
  return LogitsLoss(context, batch, objective, outputs).run();
}

}  // namespace rlsd::cpu
