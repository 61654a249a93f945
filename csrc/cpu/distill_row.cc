#include "cpu/distill_row.h"

#include <cmath>
#include <cstring>

#include "cpu/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A lambda in a kernel's loop has to take that loop's instruction set. */
#define RLSD_LAMBDA_INLINE __attribute__((always_inline))

namespace rlsd::cpu {
namespace {

constexpr int64_t kBlock = 1024; /* columns summed in float32 before they are added in double */

struct RowPair {
  const float* student;
  const float* teacher;
  float student_largest, teacher_largest;
  float student_log_sum, teacher_log_sum;
  float log_sum_difference; /* teacher's minus student's */
};

struct DistillKernels {
  double (*exponentials)(const float* row, int64_t vocab, float largest);
  float (*largest)(const float* row, int64_t vocab);
  void (*scale)(float* row, int64_t vocab, float temperature, float softcap);
  double (*value[2])(const RowPair&, int64_t vocab); /* by rlsd_divergence: forward and reverse KL */
  double (*jsd_value)(const RowPair&, int64_t vocab, float beta, bool of_teacher);
  /* by rlsd_divergence; `cap`: softcap / temperature, 0: none */
  void (*gradient[3])(float* out, const RowPair&, int64_t vocab, float beta, float mean, float weight, float cap);
  void (*scale_probabilities)(float* row, int64_t vocab, float highest, float log_sum, float factor, float cap);
};

#define RLSD_KERNELS "cpu/distill_row_kernels.inc"
#include "cpu/each_isa.inc"

const DistillKernels& kernels() {
  static const DistillKernels instance = choose();
  return instance;
}

RowPair pair_of(const Distribution& teacher, const Distribution& student) {
  return {student.scaled,
          teacher.scaled,
          student.largest,
          teacher.largest,
          static_cast<float>(student.log_sum),
          static_cast<float>(teacher.log_sum),
          static_cast<float>(teacher.log_sum - student.log_sum)};
}

float cap_of(const DistillOptions& o) { return static_cast<float>(o.logit_softcap / o.temperature); }

}  // namespace

void scale_logits(float* row, int64_t vocab, const DistillOptions& o) {
  kernels().scale(row, vocab, static_cast<float>(o.temperature), static_cast<float>(o.logit_softcap));
}

double sum_of_exponentials(const float* scaled, int64_t vocab, float largest) {
  return kernels().exponentials(scaled, vocab, largest);
}

Distribution distribution_of(float* scaled, int64_t vocab) {
  const float largest = kernels().largest(scaled, vocab);
  if (!std::isfinite(largest)) return {scaled, largest, NAN};
  return {scaled, largest, std::log(sum_of_exponentials(scaled, vocab, largest))};
}

RowDivergence row_divergence(const Distribution& teacher, const Distribution& student, int64_t vocab,
                             const DistillOptions& o, ChosenToken* chosen) {
  if (std::isnan(teacher.log_sum) || std::isnan(student.log_sum)) return {NAN, 0.0, 0};
  if (o.top_k > 0) return top_k_divergence(teacher, student, vocab, o, chosen);
  const RowPair pair = pair_of(teacher, student);
  if (o.divergence == RLSD_JSD) {
    const float beta = static_cast<float>(o.beta);
    const double of_student = kernels().jsd_value(pair, vocab, beta, false);
    return {o.beta * kernels().jsd_value(pair, vocab, beta, true) + (1.0 - o.beta) * of_student, of_student, 0};
  }
  const double value = kernels().value[o.divergence](pair, vocab);
  return {value, value, 0};
}

void write_divergence_gradient(const Distribution& teacher, const Distribution& student, int64_t vocab,
                               const DistillOptions& o, const RowDivergence& divergence, const ChosenToken* chosen,
                               double weight) {
  float* const row = student.scaled;
  if (weight == 0.0) {
    std::memset(row, 0, static_cast<size_t>(vocab) * sizeof(float));
    return;
  }
  const double per_logit = weight / o.temperature;
  if (o.top_k == 0) {
    kernels().gradient[o.divergence](row, pair_of(teacher, student), vocab, static_cast<float>(o.beta),
                                     static_cast<float>(divergence.mean_slope), static_cast<float>(per_logit),
                                     cap_of(o));
    return;
  }
  /* The chosen rows' scaled logits are needed after the row was overwritten: log-probs were kept, tanh follows. */
  const double cap = o.logit_softcap / o.temperature;
  kernels().scale_probabilities(row, vocab, student.largest, static_cast<float>(student.log_sum),
                                static_cast<float>(-per_logit * divergence.mean_slope), cap_of(o));
  for (int64_t j = 0; j < divergence.chosen; ++j) {
    const double q = std::exp(chosen[j].student);
    const double scaled = chosen[j].student + student.log_sum + student.largest;
    const double tanh = cap != 0.0 ? scaled / cap : 0.0;
    const double g = per_logit * (chosen[j].slope - q * divergence.mean_slope) * (1.0 - tanh * tanh);
    row[chosen[j].id] = q == 0.0 && chosen[j].slope == 0.0 ? 0.0f : static_cast<float>(g);
  }
}

}  // namespace rlsd::cpu
