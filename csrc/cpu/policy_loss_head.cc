/* policy_loss with hidden states and an LM head: gradients of both out, logits never whole.
 *
 * Teacher and contrast are reduced to (N) log-probs first, a chunk of logits at a time: 2 N V H operations. The
 * student's logits of a chunk are made once, turned in place into their gradient as soon as the row's coefficient is
 * known, and multiplied into the gradients of hidden states and head: 6 N V H. Tokens that are masked are in no
 * product; those whose gradient is known to be 0 are scored, in chunks of their own at the end, but not multiplied.
 *
 * Objectives whose coefficient depends on other rows of the sequence make the logits twice, unless all tokens fit one
 * chunk: 8 N V H. */
#include "cpu/policy_loss_head.h"

#include <algorithm>
#include <cstring>

#include "cpu/head_gradient.h"
#include "cpu/head_views.h"
#include "cpu/policy_loss.h"
#include "cpu/policy_rows.h"
#include "cpu/row_tasks.h"

namespace rlsd::cpu {
namespace {

/* The workspace's arrays; NULL where the batch has no use for one. */
struct Arrays {
  int32_t* owner; /* (most rows of any view) */
  int32_t* order; /* (N) */
  SequenceTerms* terms;
  uint8_t* moved; /* (B) */
  float* log_probs;
  float* teacher;
  float* contrast;
  float* entropy;
  uint8_t* skipped;
  RowScore* scores; /* (chunk rows) */
  HeadChunk chunk;
};

class HeadLoss {
 public:
  HeadLoss(rlsd_context* context, const rlsd_policy_batch& b, const rlsd_objective& o, const rlsd_policy_outputs& out)
      : context_(context),
        batch_(b),
        out_(out),
        options_(row_options(o.temperature, o.logit_softcap, o.logit_rounding_bf16 != 0)),
        student_(head_view(b.student)),
        gradient_(student_, out.gradient_hidden, out.gradient_head, out.gradient_bias, out.accumulate != 0) {
    rows_.p = policy_tokens(b);
    rows_.o = &o;
    rows_.loss_scale = out.loss_scale;
    ids_ = {b.tokens, b.token_ids, b.completion_mask};
  }

  /* Cuts the workspace at `base`, or counts its bytes where that is NULL. */
  uint64_t cut(void* base);
  rlsd_status run();

 private:
  bool has_student() const { return batch_.student.level == RLSD_HIDDEN; }
  rlsd_status check();
  rlsd_status lower_level();
  rlsd_status each_chunk(int64_t first, int64_t last, rlsd_status (HeadLoss::*body)(const int32_t*, int64_t));
  rlsd_status score_chunk(const int32_t* tokens, int64_t count);
  rlsd_status score_and_add(const int32_t* tokens, int64_t count);
  rlsd_status add_scored(const int32_t* tokens, int64_t count);
  rlsd_status student_pass();
  void score_row_of(const int32_t* tokens, int64_t i);
  void gradient_row_of(const int32_t* tokens, int64_t i);
  void clear_rows() const;

  rlsd_context* context_;
  const rlsd_policy_batch& batch_;
  const rlsd_policy_outputs& out_;
  const RowOptions options_;
  const HeadView student_;
  HeadGradient gradient_;
  PolicyRows rows_{};
  TokenIds ids_{};
  Arrays a_{};
  LogitsView logits_{};
  TokenOrder order_{};
  uint64_t used_ = 0;
};

uint64_t HeadLoss::cut(void* base) {
  Workspace w(base);
  const rlsd_policy_batch& b = batch_;
  a_ = Arrays{};
  a_.owner = w.cut<int32_t>(most_rows(b));
  a_.order = w.cut<int32_t>(b.tokens);
  a_.terms = w.cut<SequenceTerms>(b.sequences);
  a_.moved = w.cut<uint8_t>(b.sequences);
  if (has_student() && out_.log_probs == nullptr) a_.log_probs = w.cut<float>(b.tokens);
  if (is_scored_here(b, b.teacher) && out_.teacher_log_probs == nullptr) a_.teacher = w.cut<float>(b.tokens);
  if (is_scored_here(b, b.contrast)) a_.contrast = w.cut<float>(b.tokens);
  HeadView views[3];
  int count = 0;
  for (const rlsd_scores* s : {&b.student, &b.teacher, &b.contrast}) {
    if (s->level == RLSD_HIDDEN) views[count++] = head_view(*s);
  }
  a_.chunk = cut_head_chunk(context_, views, count, b.tokens, 1, &w);
  if (has_student()) {
    a_.entropy = w.cut<float>(b.tokens);
    a_.skipped = w.cut<uint8_t>(b.tokens);
    a_.scores = w.cut<RowScore>(a_.chunk.rows);
    gradient_.cut(a_.chunk, b.tokens, &w);
    logits_ = chunk_view(student_, a_.chunk);
  }
  return w.bytes();
}

rlsd_status HeadLoss::check() {
  rlsd_status status = check_policy_tokens(context_, rows_.p);
  if (status == RLSD_OK) status = check_views(context_, batch_, ids_, a_.owner);
  if (status == RLSD_OK && has_student()) status = gradient_.check(context_);
  for (const rlsd_tensor* gradient : {&out_.gradient_hidden, &out_.gradient_head, &out_.gradient_bias}) {
    if (status == RLSD_OK) status = check_apart(context_, *gradient, batch_.teacher);
    if (status == RLSD_OK) status = check_apart(context_, *gradient, batch_.contrast);
  }
  return status;
}

/* The student is logits or log-probs: with the other views reduced to log-probs, that level does the rest. */
rlsd_status HeadLoss::lower_level() {
  const rlsd_policy_batch batch = without_heads(batch_, rows_.p.teacher, rows_.p.contrast);
  void* const workspace = context_->workspace;
  const uint64_t bytes = context_->workspace_bytes;
  context_->workspace = static_cast<char*>(workspace) + used_;
  context_->workspace_bytes = bytes - used_;
  const rlsd_status status = policy_loss(context_, &batch, rows_.o, &out_);
  context_->workspace = workspace;
  context_->workspace_bytes = bytes;
  return status;
}

void HeadLoss::score_row_of(const int32_t* tokens, int64_t i) {
  const int64_t token = tokens[i];
  const RowScore score = score_row(logits_.at(i), RLSD_F32, logits_.vocab, ids_.ids[token], options_, nullptr);
  a_.scores[i] = score;
  const_cast<float*>(rows_.p.log_probs)[token] = rounded(score.log_prob);
  a_.entropy[token] = rounded(score.entropy);
}

/* Row i of the chunk becomes its own gradient. */
void HeadLoss::gradient_row_of(const int32_t* tokens, int64_t i) {
  const int64_t token = tokens[i];
  const RowGradient g = rows_.gradient(rows_.sequence_of(token), token);
  if (g.log_prob == 0.0 && g.entropy == 0.0) gradient_.drop(i);
  char* const row = reinterpret_cast<char*>(a_.chunk.logits + i * a_.chunk.stride);
  write_row_gradient(row, row, RLSD_F32, logits_.vocab, logits_.vocab, ids_.ids[token], options_, a_.scores[i], g,
                     nullptr);
}

rlsd_status HeadLoss::score_chunk(const int32_t* tokens, int64_t count) {
  const rlsd_status status = head_logits(context_, student_, tokens, count, a_.chunk);
  if (status != RLSD_OK) return status;
  return for_rows(context_, count, logits_.vocab, [&](int64_t i, int64_t) { score_row_of(tokens, i); });
}

/* The chunk's logits and scores are there, and the sequences' terms. */
rlsd_status HeadLoss::add_scored(const int32_t* tokens, int64_t count) {
  gradient_.begin_chunk(count);
  const rlsd_status status =
      for_rows(context_, count, logits_.vocab, [&](int64_t i, int64_t) { gradient_row_of(tokens, i); });
  return status == RLSD_OK ? gradient_.add(context_, tokens, count, a_.chunk) : status;
}

rlsd_status HeadLoss::score_and_add(const int32_t* tokens, int64_t count) {
  rlsd_status status = head_logits(context_, student_, tokens, count, a_.chunk);
  if (status != RLSD_OK) return status;
  gradient_.begin_chunk(count);
  status = for_rows(context_, count, logits_.vocab, [&](int64_t i, int64_t) {
    score_row_of(tokens, i);
    gradient_row_of(tokens, i);
  });
  return status == RLSD_OK ? gradient_.add(context_, tokens, count, a_.chunk) : status;
}

rlsd_status HeadLoss::each_chunk(int64_t first, int64_t last,
                                 rlsd_status (HeadLoss::*body)(const int32_t*, int64_t)) {
  rlsd_status status = RLSD_OK;
  for (int64_t at = first; at < last && status == RLSD_OK; at += a_.chunk.rows) {
    status = (this->*body)(order_.tokens + at, std::min(a_.chunk.rows, last - at));
  }
  return status;
}

rlsd_status HeadLoss::student_pass() {
  const int64_t zeros = order_.with_gradient, end = order_.count;
  if (!rows_.whole_sequences || zeros == 0) {
    rows_.find_terms(false);
    const rlsd_status status = each_chunk(0, zeros, &HeadLoss::score_and_add);
    return status == RLSD_OK ? each_chunk(zeros, end, &HeadLoss::score_chunk) : status;
  }
  /* Tokens with a gradient last, so that the logits of a single chunk are still there. */
  rlsd_status status = each_chunk(zeros, end, &HeadLoss::score_chunk);
  if (status == RLSD_OK) status = each_chunk(0, zeros, &HeadLoss::score_chunk);
  if (status != RLSD_OK) return status;
  rows_.find_terms(true);
  return each_chunk(0, zeros, zeros <= a_.chunk.rows ? &HeadLoss::add_scored : &HeadLoss::score_and_add);
}

/* Rows of the hidden states' gradient that no product writes. */
void HeadLoss::clear_rows() const {
  for (int64_t row = 0; row < student_.hidden.shape[0]; ++row) {
    const int32_t token = a_.owner[row];
    if (token >= 0 ? a_.skipped[token] != 0 : token == kMaskedToken || out_.clear_other_rows != 0) {
      gradient_.zero_row(row);
    }
  }
  for (int64_t i = order_.with_gradient; i < order_.count; ++i) gradient_.zero_row(student_.row(order_.tokens[i]));
}

rlsd_status HeadLoss::run() {
  used_ = cut(context_->workspace);
  rlsd_status status = check_workspace(context_, used_);
  if (status == RLSD_OK) status = check();
  if (status != RLSD_OK) return status;
  PolicyTokens& p = rows_.p;
  float* const teacher = out_.teacher_log_probs != nullptr ? out_.teacher_log_probs : a_.teacher;
  if (is_scored_here(batch_, batch_.teacher)) p.teacher = teacher;
  if (is_scored_here(batch_, batch_.contrast)) p.contrast = a_.contrast;
  if (has_student()) {
    p.log_probs = out_.log_probs != nullptr ? out_.log_probs : a_.log_probs;
    p.entropy = a_.entropy;
    p.skipped = a_.skipped;
    std::memset(a_.skipped, 0, static_cast<size_t>(batch_.tokens));
  }
  rows_.begin(a_.terms, a_.moved);
  /* A student of log-probs is read whole by the level that ends the call, and so are the views beside it. */
  const bool skips = out_.skip_zero_rows != 0 && batch_.student.level != RLSD_LOG_PROBS;
  order_ = list_tokens(rows_, skips, a_.order, a_.skipped);
  if (!has_student() || !gradient_.wanted()) order_.with_gradient = 0;
  const auto score = [&](const rlsd_scores& view, float* log_probs) {
    if (status != RLSD_OK || !is_scored_here(batch_, view)) return;
    status = score_view(context_, view, ids_, order_, options_, a_.chunk, log_probs);
  };
  score(batch_.teacher, teacher);
  score(batch_.contrast, a_.contrast);
  if (status != RLSD_OK) return status;
  if (!has_student()) return lower_level();
  clear_rows();
  status = student_pass();
  if (status == RLSD_OK) status = gradient_.finish(context_);
  return status == RLSD_OK ? policy_loss_tokens(context_, p, *rows_.o, out_) : status;
}

}  // namespace

bool is_head_level(const rlsd_policy_batch& b) {
  return std::max({b.student.level, b.teacher.level, b.contrast.level}) == RLSD_HIDDEN;
}

rlsd_status policy_loss_head_workspace(rlsd_context* context, const rlsd_policy_batch& batch,
                                       const rlsd_objective& objective, const rlsd_policy_outputs& outputs,
                                       uint64_t* bytes) {
  *bytes = HeadLoss(context, batch, objective, outputs).cut(nullptr);
  if (batch.student.level == RLSD_HIDDEN) return RLSD_OK;
  const rlsd_policy_batch lower = without_heads(batch, nullptr, nullptr);
  uint64_t more = 0;
  const rlsd_status status = policy_loss_workspace(context, &lower, &objective, &outputs, &more);
  *bytes += more;
  return status;
}

rlsd_status policy_loss_head(rlsd_context* context, const rlsd_policy_batch& batch, const rlsd_objective& objective,
                             const rlsd_policy_outputs& outputs) {
  return HeadLoss(context, batch, objective, outputs).run();
}

}  // namespace rlsd::cpu
