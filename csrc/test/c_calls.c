/* A caller in C99 who knows rlsd.h and nothing else: opens the library that is named, makes a few
 * calls right and many wrong in one way each. Prints a line a call: its name, the status, the loss,
 * the words. */
#include <dirent.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rlsd/rlsd.h"

enum { N = 4, B = 2, V = 8 };

static const rlsd_backend_v1* table;
static rlsd_context context;
static rlsd_objective objective;
static rlsd_policy_batch batch;
static rlsd_policy_outputs outputs;
static const float log_probs[N] = {-1.0f, -2.0f, -3.0f, -4.0f},
                   teacher[N] = {-0.5f, -2.0f, -4.0f, -6.0f};
static const float advantages[B] = {1.0f, -1.0f};
static const int32_t cu_seqlens[B + 1] = {0, 2, 4}, token_ids[N] = {0, 1, 2, 3};
static float results[5][N], logits[N * V], gradient[N * V];
static double stats[RLSD_STAT_COUNT];
static char memory[1 << 16]; /* a workspace that no allocator gave */

static void reset(void) {
  memset(&context, 0, sizeof(context));
  context.struct_size = sizeof(context);
  memset(&objective, 0, sizeof(objective));
  objective.struct_size = sizeof(objective);
  objective.clip_low = objective.clip_high = objective.evidence_clip = 0.2;
  objective.log_clip_low = objective.log_evidence_low = log(0.8);
  objective.log_clip_high = objective.log_evidence_high = log(1.2);
  objective.dual_clip = objective.ratio_bound = objective.importance_max = INFINITY;
  objective.kl_clamp = 10.0;
  objective.credit_mix = 0.5;
  objective.temperature = objective.sapo_temperature_pos = objective.sapo_temperature_neg = 1.0;
  memset(&batch, 0, sizeof(batch));
  batch.tokens = N;
  batch.sequences = B;
  batch.student.level = batch.teacher.level = RLSD_LOG_PROBS;
  batch.student.log_probs = log_probs;
  batch.teacher.log_probs = teacher;
  batch.cu_seqlens = cu_seqlens;
  batch.advantages = advantages;
  memset(&outputs, 0, sizeof(outputs));
  outputs.log_probs = results[0];
  outputs.teacher_log_probs = results[1];
  outputs.token_advantages = results[2];
  outputs.evidence_weights = results[3];
  outputs.gradient_log_probs = results[4];
  outputs.loss_scale = 1.0;
  outputs.stats = stats;
}

static rlsd_tensor matrix(float* data, int64_t rows, int64_t columns) {
  rlsd_tensor t;
  memset(&t, 0, sizeof(t));
  t.data = data;
  t.rank = 2;
  t.shape[0] = rows;
  t.shape[1] = t.stride[0] = columns;
  t.stride[1] = 1;
  return t;
}

static void use_logits(void) {
  batch.student.level = RLSD_LOGITS;
  batch.student.logits = matrix(logits, N, V);
  batch.student.vocab_size = V;
  batch.token_ids = token_ids;
  outputs.gradient_logits = matrix(gradient, N, V);
}

/* Logits as hidden states, a head that hands them through, and no bias: what use_logits has. */
static void use_hidden(void) {
  static float head[V * V], bias[V], d_head[V * V], d_bias[V];
  for (int i = 0; i < V; ++i) head[i * V + i] = 1.0f;
  batch.student.level = RLSD_HIDDEN;
  batch.student.hidden = matrix(logits, N, V);
  batch.student.head = matrix(head, V, V);
  batch.student.bias = matrix(bias, 1, V);
  batch.student.vocab_size = V;
  batch.token_ids = token_ids;
  outputs.gradient_hidden = matrix(gradient, N, V);
  outputs.gradient_head = matrix(d_head, V, V);
  outputs.gradient_bias = matrix(d_bias, 1, V);
}

static void call(const char* name) {
  uint64_t bytes = 0;
  rlsd_status status = table->policy_loss_workspace(&context, &batch, &objective, &outputs, &bytes);
  if (context.workspace == NULL) context.workspace = malloc(bytes + 1);
  context.workspace_bytes = bytes;
  if (status == RLSD_OK) status = table->policy_loss(&context, &batch, &objective, &outputs);
  printf("%s\t%d\t%.4f\t%s\n", name, (int)status, status == RLSD_OK ? stats[RLSD_STAT_LOSS] : 0.0,
         context.error);
  if (context.workspace != memory + 1) free(context.workspace);
}

static rlsd_distill_args distill;
static rlsd_token_log_probs_args scoring;

static void reset_others(void) {
  reset();
  use_logits();
  memset(&distill, 0, sizeof(distill));
  distill.tokens = N;
  distill.sequences = B;
  distill.student = distill.teacher = batch.student;
  distill.cu_seqlens = cu_seqlens;
  distill.value_clamp = INFINITY;
  distill.temperature = distill.loss_scale = 1.0;
  distill.gradient_logits = outputs.gradient_logits;
  distill.stats = stats;
  memset(&scoring, 0, sizeof(scoring));
  scoring.tokens = N;
  scoring.scores = batch.student;
  scoring.token_ids = token_ids;
  scoring.temperature = 1.0;
  scoring.log_probs = results[0];
}

static void call_others(const char* name, int distills) {
  uint64_t bytes = 0;
  rlsd_status status = distills ? table->distill_loss_workspace(&context, &distill, &bytes)
                                : table->token_log_probs_workspace(&context, &scoring, &bytes);
  context.workspace = malloc(bytes + 1);
  context.workspace_bytes = bytes;
  if (status == RLSD_OK) {
    status = distills ? table->distill_loss(&context, &distill)
                      : table->token_log_probs(&context, &scoring);
  }
  printf("%s\t%d\t%.4f\t%s\n", name, (int)status, distills ? stats[2] : (double)results[0][0],
         context.error);
  free(context.workspace);
}

/* What is written to rows of a gradient that lie `to_stride` apart, from logits `from_stride` apart
 * (0: the gradient lies over them), with token 1 masked. Between rows everything is 7. */
static const float* write_gradient(const char* name, int distills, int64_t from_stride,
                                   int64_t to_stride) {
  static const uint8_t mask[N] = {1, 0, 1, 1};
  static float from[2 * N * V], to[2 * N * V];
  const int64_t stride = from_stride > 0 ? from_stride : to_stride;
  float* const out = from_stride > 0 ? to : from;
  for (int64_t i = 0; i < 2 * N * V; ++i) from[i] = to[i] = 7.0f;
  for (int64_t i = 0; i < N * V; ++i) from[i / V * stride + i % V] = (float)(i * 37 % 11) / 4.0f;
  reset_others();
  batch.completion_mask = distill.completion_mask = mask;
  batch.student.logits.data = from;
  batch.student.logits.stride[0] = stride;
  outputs.gradient_logits.data = out;
  outputs.gradient_logits.stride[0] = to_stride;
  distill.student = batch.student;
  distill.gradient_logits = outputs.gradient_logits;
  if (distills) {
    call_others(name, 1);
  } else {
    call(name);
  }
  return out;
}

/* The largest difference from the gradient of rows side by side, and from what lay between the
 * rows. */
static void call_spread(const char* name, int distills, int64_t from_stride, int64_t to_stride) {
  float close[N * V], worst = 0.0f;
  memcpy(close, write_gradient(name, distills, V, V), sizeof(close));
  const float* const found = write_gradient(name, distills, from_stride, to_stride);
  for (int64_t i = 0; i < N * to_stride; ++i) {
    const float expected = i % to_stride < V ? close[i / to_stride * V + i % to_stride] : 7.0f;
    if (!(fabsf(found[i] - expected) <= worst)) worst = fabsf(found[i] - expected);
  }
  printf("%s: worst\t0\t%.4f\t\n", name, (double)worst);
}

#define DISTILL_CALL(change) (reset_others(), (void)(change), call_others(#change, 1))
#define SCORE_CALL(change) (reset_others(), (void)(change), call_others(#change, 0))
#define CALL(change) (reset(), (void)(change), call(#change))
#define LOGITS_CALL(change) (reset(), use_logits(), (void)(change), call(#change))
#define HIDDEN_CALL(change) (reset(), use_hidden(), (void)(change), call(#change))

static void call_policy_loss(void) {
  CALL(0);
  LOGITS_CALL(1);
  CALL(objective.struct_size = 8);
  CALL(objective.surrogate = 42);
  CALL(objective.reduction = -1);
  CALL(objective.importance = 5);
  CALL(objective.kl_estimator = 4);
  CALL(objective.kl_coef = 0.1);
  CALL(objective.temperature = 0.0);
  CALL(objective.temperature = NAN);
  CALL(objective.dual_clip = 0.0);
  CALL(objective.ratio_bound = 0.0);
  CALL((objective.kl_coef = 0.1, objective.kl_clamp = 0.0));
  CALL((objective.surrogate = RLSD_SAPO, objective.sapo_temperature_neg = 0.0));
  CALL((objective.importance = RLSD_TOKEN_MASK, objective.importance_max = 0.0));
  CALL(objective.log_clip_low = 0.0);
  CALL(objective.clip_high = 0.28);
  CALL(objective.log_evidence_high = 0.0);
  CALL(objective.student_source_old = 1);
  CALL(objective.entropy_coef = 0.1);
  CALL(objective.surrogate = RLSD_ROW_COEFFICIENT);
  CALL(batch.tokens = -1);
  CALL(batch.sequences = -1);
  CALL(batch.cu_seqlens = NULL);
  CALL(batch.advantages = NULL);
  CALL(batch.student.log_probs = NULL);
  CALL(batch.teacher.log_probs = NULL);
  CALL(batch.teacher.level = 7);
  CALL((batch.contrast = batch.teacher, batch.teacher.level = RLSD_ABSENT));
  CALL(outputs.stats = NULL);
  CALL(outputs.token_advantages = NULL);
  CALL(outputs.evidence_weights = NULL);
}

static void call_with_logits_and_hidden(void) {
  LOGITS_CALL(batch.token_ids = NULL);
  LOGITS_CALL(batch.student.logits.rank = 3);
  LOGITS_CALL(batch.student.logits.stride[1] = 2);
  LOGITS_CALL(batch.student.vocab_size = V + 1);
  LOGITS_CALL(outputs.gradient_logits.shape[0] = N - 1);
  LOGITS_CALL(outputs.gradient_logits.stride[0] = V - 1);
  LOGITS_CALL(batch.student.logits.shape[0] = -N);
  LOGITS_CALL(context.workspace = memory + 1);
  HIDDEN_CALL(4);
  reset();
  use_logits();
  batch.teacher = batch.student;
  batch.student.level = RLSD_LOG_PROBS;
  call("5"); /* log-probs have no gradient of logits: its place is left alone */
  HIDDEN_CALL(batch.student.bias.shape[1] = V - 1);
  HIDDEN_CALL(batch.student.hidden.stride[0] = V - 1);
  HIDDEN_CALL(outputs.gradient_hidden.stride[0] = V - 1);
  HIDDEN_CALL(outputs.gradient_head.stride[1] = 2);
  HIDDEN_CALL(outputs.gradient_bias.shape[1] = V - 1);
}

static void call_distillation_and_scoring(void) {
  DISTILL_CALL(2);
  DISTILL_CALL(distill.tokens = -1);
  DISTILL_CALL(distill.sequences = -1);
  DISTILL_CALL(distill.cu_seqlens = NULL);
  DISTILL_CALL(distill.stats = NULL);
  DISTILL_CALL(distill.divergence = 3);
  DISTILL_CALL(distill.reduction = 4);
  DISTILL_CALL(distill.top_k = -1);
  DISTILL_CALL(distill.temperature = 0.0);
  DISTILL_CALL(distill.value_clamp = 0.0);
  DISTILL_CALL((distill.divergence = RLSD_JSD, distill.beta = 0.0));
  DISTILL_CALL((distill.divergence = RLSD_JSD, distill.beta = NAN));
  DISTILL_CALL(distill.teacher.level = RLSD_ABSENT);
  DISTILL_CALL(distill.gradient_logits.shape[1] = V / 2);
  SCORE_CALL(3);
  SCORE_CALL(scoring.tokens = -1);
  SCORE_CALL(scoring.log_probs = NULL);
  SCORE_CALL(scoring.temperature = INFINITY);
  SCORE_CALL(scoring.token_ids = NULL);
  SCORE_CALL(scoring.scores.logits.stride[1] = 2);
  call_spread("logits apart", 0, 2 * V, V);
  call_spread("gradient apart", 0, V, 2 * V);
  call_spread("both apart", 0, V + 3, V + 1);
  call_spread("in place, apart", 0, 0, V + 3);
  call_spread("distilled, apart", 1, V + 3, V + 1);
}

/* Threads of this process, on Linux; else 0. */
static int count_threads(void) {
  int count = 0;
  DIR* const tasks = opendir("/proc/self/task");
  if (tasks == NULL) return 0;
  while (readdir(tasks) != NULL) ++count;
  closedir(tasks);
  return count - 2; /* . and .. */
}

/* A call that is large enough for the pool's threads: they stay when it ends. */
static void call_with_threads(void) {
  enum { MANY = 1 << 16 };
  static float ones[MANY], written[5][MANY];
  static int32_t ends[MANY + 1];
  for (int i = 0; i < MANY; ++i) {
    ones[i] = -1.0f;
    ends[i + 1] = i + 1;
  }
  reset();
  batch.tokens = batch.sequences = MANY;
  batch.student.log_probs = batch.teacher.log_probs = batch.advantages = ones;
  batch.cu_seqlens = ends;
  outputs.log_probs = written[0];
  outputs.teacher_log_probs = written[1];
  outputs.token_advantages = written[2];
  outputs.evidence_weights = written[3];
  outputs.gradient_log_probs = written[4];
  call("6");
  printf("threads: %d\t0\t0\t\n", count_threads());
}

int main(int argc, char** argv) {
  rlsd_backend_get_fn get;
  void* library = dlopen(argv[argc - 1], RTLD_NOW);
  if (library == NULL) return 1;
  *(void**)&get = dlsym(library, "rlsd_backend_get");
  if (get(RLSD_ABI_VERSION + 1) != NULL) return 2;
  table = get(RLSD_ABI_VERSION);
  call_policy_loss();
  call_with_logits_and_hidden();
  call_distillation_and_scoring();
  call_with_threads();
  dlclose(library); /* not its last use: threads of its own are in it */
  library = dlopen(argv[argc - 1], RTLD_NOW | RTLD_NOLOAD);
  printf("closed: %s\t0\t0\t\n", library == NULL ? "gone" : "there");
  return 0;
}
