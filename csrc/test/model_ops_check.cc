/* Holds the model's operations of librlsd_cpu.so (argv[1]) to float64: values by their formulas,
 * gradients by central differences of those. Prints one line a check, "ok" or "failed" first. */
#include <dlfcn.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/philox.h"
#include "cpu/model/simd.h"
#include "test/model_ops.h"
#include "test/model_ops_attention.h"

namespace rlsd::test {
namespace {

void random_numbers() {
  const rlsd::PhiloxBlock zero = rlsd::philox(0, 0, 0);
  const rlsd::PhiloxBlock pi =
      rlsd::philox(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu);
  const uint32_t wanted_zero[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const uint32_t wanted_pi[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  report("philox gives Random123's known answers",
         std::memcmp(zero.word, wanted_zero, 16) == 0 && std::memcmp(pi.word, wanted_pi, 16) == 0,
         0.0);
}

void exponential() {
  double worst = 0.0;
  for (float x = -87.0f; x < 88.0f; x += 0.00137f) {
    const double exact = std::exp(static_cast<double>(x));
    worst =
        std::fmax(worst, std::fabs(static_cast<double>(rlsd::cpu::exp_approx(x)) / exact - 1.0));
  }
  report("exp is within 2.5e-7", worst < 2.5e-7, worst);
  report("exp is 1 at 0, 0 at -inf, inf at inf, NaN at NaN",
         rlsd::cpu::exp_approx(0.0f) == 1.0f && rlsd::cpu::exp_approx(-INFINITY) == 0.0f &&
             rlsd::cpu::exp_approx(INFINITY) == INFINITY && std::isnan(rlsd::cpu::exp_approx(NAN)),
         0.0);
}

void norms(double offset) {
  const int64_t rows = 5, columns = 37;
  const std::vector<Values> in = {noise(rows * columns, 1), noise(columns, 2)};
  const Formula formula = [&](const std::vector<Values>& v) {
    Values out(v[0].size());
    for (int64_t i = 0; i < rows; ++i) {
      double sum = 0.0;
      for (int64_t k = 0; k < columns; ++k) sum += v[0][i * columns + k] * v[0][i * columns + k];
      for (int64_t k = 0; k < columns; ++k) {
        const double h = v[0][i * columns + k] / std::sqrt(sum / columns + 1e-3);
        out[i * columns + k] = h * (offset + v[1][k]);
      }
    }
    return out;
  };
  Context context;
  const Values c = noise(rows * columns, 3);
  Array x(in[0], {rows, columns}), weight(in[1], {columns}), out({rows, columns}), rstd({rows}),
      d_out(c, {rows, columns});
  Array d_x({rows, columns}, 7.0), d_weight({columns});
  backend->rms_norm(context, out.tensor, rstd.tensor, x.tensor, weight.tensor, offset, 1e-3);
  backend->rms_norm_backward(context, d_x.tensor, d_weight.tensor, d_out.tensor, x.tensor,
                             weight.tensor, rstd.tensor, offset);
  check_value(offset == 0.0 ? "rms_norm" : "rms_norm with an offset", out, formula(in));
  check_gradient("rms_norm_backward: x, overwritten", d_x, formula, in, 0, c);
  check_gradient("rms_norm_backward: weight", d_weight, formula, in, 1, c);
  Array d_x_alone({rows, columns}, 7.0);
  rlsd_tensor unwanted = d_weight.tensor;
  unwanted.data = nullptr;
  backend->rms_norm_backward(context, d_x_alone.tensor, unwanted, d_out.tensor, x.tensor,
                             weight.tensor, rstd.tensor, offset);
  report("rms_norm_backward: x alone, the same bits", d_x_alone.data == d_x.data, 0.0);
}

double silu(double g) { return g / (1.0 + std::exp(-g)); }

double gelu_tanh(double g) {
  const double pi = 3.14159265358979323846;
  return 0.5 * g * (1.0 + std::tanh(std::sqrt(2.0 / pi) * (g + 0.044715 * g * g * g)));
}

void gates(const char* name, int32_t kind, double (*activation)(double)) {
  const int64_t n = 67;
  std::vector<Values> in = {noise(n, 4), noise(n, 5)};
  for (double& g : in[0]) g *= 12.0;
  const Formula formula = [=](const std::vector<Values>& v) {
    Values out(v[0].size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = activation(v[0][i]) * v[1][i];
    return out;
  };
  Context context;
  const Values c = noise(n, 6);
  Array gate(in[0], {1, n}), up(in[1], {1, n}), out({1, n}), d_out(c, {1, n}), d_gate({1, n}, 7.0),
      d_up({1, n}, 7.0);
  backend->glu(context, out.tensor, gate.tensor, up.tensor, kind);
  backend->glu_backward(context, d_gate.tensor, d_up.tensor, d_out.tensor, gate.tensor, up.tensor,
                        kind);
  check_value(name, out, formula(in));
  check_gradient("glu_backward: gate", d_gate, formula, in, 0, c);
  check_gradient("glu_backward: up", d_up, formula, in, 1, c);
}

void unknown_gates() {
  Context context;
  Array x({1, 8}, 1.0);
  report("glu refuses an activation that it does not know",
         backend->glu(context, x.tensor, x.tensor, x.tensor, 2) == RLSD_UNSUPPORTED &&
             backend->glu_backward(context, x.tensor, x.tensor, x.tensor, x.tensor, x.tensor, -1) ==
                 RLSD_UNSUPPORTED,
         0.0);
}

/* The first `dim` numbers of heads that are `width` wide; the others stay as they are. */
void rotations(int64_t width) {
  const int64_t rows = 3, heads = 2, dim = 10, half = dim / 2;
  const std::vector<int32_t> positions = {0, 7, 31};
  const Values frequencies = {1.0, 0.4, 0.11, 0.03, 0.002}, in = noise(rows * heads * width, 8);
  Values wanted = in;
  for (int64_t i = 0; i < rows * heads; ++i) {
    for (int64_t d = 0; d < half; ++d) {
      const double angle =
          positions[i / heads] * static_cast<double>(static_cast<float>(frequencies[d]));
      const double a = in[i * width + d], b = in[i * width + d + half];
      wanted[i * width + d] = 1.5 * (a * std::cos(angle) - b * std::sin(angle));
      wanted[i * width + d + half] = 1.5 * (a * std::sin(angle) + b * std::cos(angle));
    }
  }
  Context context;
  Array x(in, {rows, heads, width}), f(frequencies, {half});
  x.tensor.shape[2] = dim;
  backend->rope(context, x.tensor, positions.data(), f.data.data(), 1.5, 1);
  check_value("rope", x, wanted);
  backend->rope(context, x.tensor, positions.data(), f.data.data(), 1.0 / 1.5, -1);
  check_value("rope turned back", x, in);
}

/* Rows of a table of each type, whose numbers all three types hold exactly. */
void embeddings(rlsd_context* context, const std::vector<int32_t>& ids, int64_t columns) {
  Values table(7 * columns), wanted;
  for (size_t i = 0; i < table.size(); ++i) table[i] = (static_cast<double>(i % 201) - 100) / 64;
  for (int32_t id : ids)
    wanted.insert(wanted.end(), &table[id * columns], &table[id * columns] + columns);
  for (int32_t dtype : {RLSD_F32, RLSD_F16, RLSD_BF16}) {
    Array wide(table, {7, columns}), narrow(table, {7, columns});
    Array out({static_cast<int64_t>(ids.size()), columns}, 7.0);
    narrow.tensor.dtype = dtype;
    backend->convert(context, narrow.tensor, wide.tensor);
    backend->embedding(context, out.tensor, narrow.tensor, ids.data());
    const bool same = out.data == std::vector<float>(wanted.begin(), wanted.end());
    report("embedding widens its table exactly", same, 0.0);
  }
}

void sums_over_rows() {
  const int64_t rows = 40, columns = 70;
  const Values c = noise(rows * columns, 13);
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * i % 7);
  Values table(7 * columns, 0.5), bias(static_cast<size_t>(columns), 0.5);
  double squares = 0.0;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < columns; ++k) {
      table[ids[i] * columns + k] += c[i * columns + k];
      bias[k] += c[i * columns + k];
      squares += c[i * columns + k] * c[i * columns + k];
    }
  }
  Context context(2);
  embeddings(context, ids, columns);
  Array d_out(c, {rows, columns}), d_table({7, columns}, 0.5), d_bias({columns}, 0.5);
  backend->embedding_backward(context, d_table.tensor, d_out.tensor, ids.data());
  backend->bias_backward(context, d_bias.tensor, d_out.tensor);
  check_value("embedding_backward adds rows of one id", d_table, table);
  check_value("bias_backward adds rows", d_bias, bias);
  double sum = 0.0;
  backend->squared_norm(context, d_out.tensor, &sum);
  report("squared_norm", std::fabs(sum / squares - 1.0) < 1e-12, sum / squares - 1.0);
}

}  // namespace
}  // namespace rlsd::test

int main(int argc, char** argv) {
  using namespace rlsd::test;
  void* library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : nullptr;
  if (library == nullptr) return 2;
  backend =
      reinterpret_cast<rlsd_backend_get_fn>(dlsym(library, "rlsd_backend_get"))(RLSD_ABI_VERSION);
  random_numbers();
  exponential();
  for (double offset : {0.0, 1.0}) norms(offset);
  gates("glu by silu", RLSD_SILU, silu);
  gates("glu by gelu's approximation", RLSD_GELU_TANH, gelu_tanh);
  unknown_gates();
  rotations(10);
  rotations(14);
  attention();
  for (int64_t window : {0, 3, 65, 130}) decoding(window);
  cost_of_decoding();
  rows_without_a_block();
  sums_over_rows();
  return 0;
}
