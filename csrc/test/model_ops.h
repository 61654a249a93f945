/* What the checks of the model's operations share: repeatable numbers, arrays with their tensors,
 * and float64 to hold them to. */
#ifndef RLSD_TEST_MODEL_OPS_H_
#define RLSD_TEST_MODEL_OPS_H_

#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "core/philox.h"
#include "rlsd/rlsd.h"

namespace rlsd::test {

using Values = std::vector<double>;
using Formula = std::function<Values(const std::vector<Values>&)>;

inline const rlsd_backend_v1* backend = nullptr;

inline void report(const char* name, bool good, double error) {
  std::printf("%s %s (%.1e)\n", good ? "ok" : "failed", name, error);
}

/* Repeatable numbers in (-1, 1). */
inline Values noise(size_t count, uint64_t key) {
  Values out(count);
  for (size_t i = 0; i < count; ++i) {
    const rlsd::PhiloxBlock block = rlsd::philox(key, i, 0);
    out[i] = static_cast<float>(2.0 * rlsd::philox_uniform(block.word[0], block.word[1]) - 1.0);
  }
  return out;
}

struct Array {
  std::vector<float> data;
  rlsd_tensor tensor{};

  Array(const Values& values, std::vector<int64_t> shape) : data(values.begin(), values.end()) {
    tensor.data = data.data();
    tensor.rank = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (size_t i = shape.size(); i-- > 0;) {
      tensor.shape[i] = shape[i];
      tensor.stride[i] = stride;
      stride *= shape[i];
    }
  }
  explicit Array(std::vector<int64_t> shape, double fill = 0.0)
      : Array(Values(count(shape), fill), shape) {}
  Array(const Array&) = delete;

  static size_t count(const std::vector<int64_t>& shape) {
    size_t n = 1;
    for (int64_t s : shape) n *= static_cast<size_t>(s);
    return n;
  }
};

inline double error_of(const std::vector<float>& actual, const Values& expected) {
  double largest = 1e-30, difference = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::fmax(largest, std::fabs(expected[i]));
    const double d = std::fabs(static_cast<double>(actual[i]) - expected[i]);
    difference = d == d ? std::fmax(difference, d) : INFINITY;
  }
  return difference / largest;
}

inline void check_value(const char* name, const Array& actual, const Values& expected) {
  const double error = error_of(actual.data, expected);
  report(name, error < 3e-6, error);
}

/* d (sum of c times the formula's values) / d inputs[which], by central differences in float64. */
inline Values slopes(const Formula& formula, std::vector<Values> inputs, size_t which,
                     const Values& c) {
  Values out(inputs[which].size());
  const auto value = [&] {
    const Values y = formula(inputs);
    double sum = 0.0;
    for (size_t i = 0; i < y.size(); ++i) sum += c[i] * y[i];
    return sum;
  };
  for (size_t i = 0; i < out.size(); ++i) {
    const double x = inputs[which][i], h = 1e-5;
    inputs[which][i] = x + h;
    const double up = value();
    inputs[which][i] = x - h;
    out[i] = (up - value()) / (2.0 * h);
    inputs[which][i] = x;
  }
  return out;
}

inline void check_gradient(const char* name, const Array& actual, const Formula& formula,
                           const std::vector<Values>& inputs, size_t which, const Values& c) {
  const double error = error_of(actual.data, slopes(formula, inputs, which, c));
  report(name, error < 1e-5, error);
}

struct Context {
  rlsd_context value{};
  std::vector<char> workspace;

  explicit Context(int32_t threads = 1, uint64_t bytes = 0) : workspace(bytes + 64) {
    value.struct_size = sizeof(value);
    value.threads = threads;
    value.workspace = workspace.data();
    value.workspace_bytes = bytes;
  }
  operator rlsd_context*() { return &value; }
};

}  // namespace rlsd::test

#endif
