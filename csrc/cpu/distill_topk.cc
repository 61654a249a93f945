/* The divergence over the teacher's k most probable tokens, in double: k is small beside V.
 *
 *   tail      one more bucket holds the rest of the mass, at least 1e-10 of it: dD/dlog q_j -= (dD/dlog q_tail) q_j / q_tail
 *   no tail   forward KL compares the k probabilities as they are (the official code); the others, which need
 *             distributions, renormalise both sides over the k */
#include <algorithm>
#include <cmath>

#include "cpu/distill_row.h"

namespace rlsd::cpu {
namespace {

/* A bucket of the rest never gets less, so that its logarithm stays finite. */
constexpr double kSmallestTail = 1e-10;

/* Order of a heap whose front is the first to go: the least probable, the larger id on a tie. */
struct ByRank {
  bool operator()(const ChosenToken& a, const ChosenToken& b) const {
    return a.teacher != b.teacher ? a.teacher > b.teacher : a.id < b.id;
  }
};

/* The k ids of the largest logits, the smaller id first on a tie; most probable first. */
void choose(const float* teacher, int64_t vocab, int64_t k, ChosenToken* chosen) {
  for (int64_t v = 0; v < k; ++v) chosen[v] = {static_cast<int32_t>(v), teacher[v], 0.0, 0.0};
  std::make_heap(chosen, chosen + k, ByRank{});
  for (int64_t v = k; v < vocab; ++v) {
    if (!(teacher[v] > chosen[0].teacher)) continue;
    std::pop_heap(chosen, chosen + k, ByRank{});
    chosen[k - 1] = {static_cast<int32_t>(v), teacher[v], 0.0, 0.0};
    std::push_heap(chosen, chosen + k, ByRank{});
  }
  std::sort_heap(chosen, chosen + k, ByRank{});
}

double term(double x, double log_ratio) { return x == 0.0 ? 0.0 : x * log_ratio; }

/* D's share of one bucket, and its slope dD/dlog q. */
double bucket(const DistillOptions& o, double log_p, double log_q, double* slope) {
  const double p = std::exp(log_p), q = std::exp(log_q);
  switch (o.divergence) {
    case RLSD_FORWARD_KL:
      *slope = -p;
      return term(p, log_p - log_q);
    case RLSD_REVERSE_KL:
      *slope = term(q, log_q - log_p + 1.0);
      return term(q, log_q - log_p);
    default: {
      const double log_m = std::log(o.beta * p + (1.0 - o.beta) * q);
      const double of_student = (1.0 - o.beta) * term(q, log_q - log_m);
      *slope = of_student;
      return o.beta * term(p, log_p - log_m) + of_student;
    }
  }
}

/* Mass outside the chosen tokens, summed and not subtracted: a small rest keeps its digits. Slopes are not known yet:
 * their places keep the chosen logits meanwhile. */
double rest_of(const Distribution& d, int64_t vocab, ChosenToken* chosen, int64_t k) {
  for (int64_t j = 0; j < k; ++j) {
    chosen[j].slope = d.scaled[chosen[j].id];
    d.scaled[chosen[j].id] = -INFINITY;
  }
  const double rest = sum_of_exponentials(d.scaled, vocab, d.largest) / std::exp(d.log_sum);
  for (int64_t j = 0; j < k; ++j) d.scaled[chosen[j].id] = static_cast<float>(chosen[j].slope);
  return rest;
}

double with_tail(const DistillOptions& o, double teacher_rest, double student_rest, ChosenToken* chosen, int64_t k) {
  double slope, value = bucket(o, std::log(std::max(teacher_rest, kSmallestTail)),
                               std::log(std::max(student_rest, kSmallestTail)), &slope);
  const double per_mass = student_rest >= kSmallestTail ? slope / student_rest : 0.0;
  for (int64_t j = 0; j < k; ++j) {
    value += bucket(o, chosen[j].teacher, chosen[j].student, &chosen[j].slope);
    chosen[j].slope -= per_mass * std::exp(chosen[j].student);
  }
  return value;
}

double without_tail(const DistillOptions& o, ChosenToken* chosen, int64_t k) {
  double teacher_log = 0.0, student_log = 0.0;
  const bool normalised = o.divergence != RLSD_FORWARD_KL;
  if (normalised) {
    double teacher = 0.0, student = 0.0;
    for (int64_t j = 0; j < k; ++j) {
      teacher += std::exp(chosen[j].teacher);
      student += std::exp(chosen[j].student);
    }
    teacher_log = std::log(teacher);
    student_log = std::log(student);
  }
  double value = 0.0, slopes = 0.0;
  for (int64_t j = 0; j < k; ++j) {
    value += bucket(o, chosen[j].teacher - teacher_log, chosen[j].student - student_log, &chosen[j].slope);
    slopes += chosen[j].slope;
  }
  for (int64_t j = 0; j < k && normalised; ++j) chosen[j].slope -= std::exp(chosen[j].student - student_log) * slopes;
  return value;
}

}  // namespace

RowDivergence top_k_divergence(const Distribution& teacher, const Distribution& student, int64_t vocab,
                               const DistillOptions& o, ChosenToken* chosen) {
  const int64_t k = std::min(o.top_k, vocab);
  choose(teacher.scaled, vocab, k, chosen);
  for (int64_t j = 0; j < k; ++j) {
    chosen[j].teacher = teacher.log_prob(chosen[j].id);
    chosen[j].student = student.log_prob(chosen[j].id);
  }
  RowDivergence result = {0.0, 0.0, k};
  if (o.tail) {
    const double teacher_rest = rest_of(teacher, vocab, chosen, k), student_rest = rest_of(student, vocab, chosen, k);
    result.value = with_tail(o, teacher_rest, student_rest, chosen, k);
  } else {
    result.value = without_tail(o, chosen, k);
  }
  for (int64_t j = 0; j < k; ++j) result.mean_slope += chosen[j].slope;
  return result;
}

}  // namespace rlsd::cpu
