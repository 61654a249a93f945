/* Times products of librlsd_cpu.so (argv[1]) beside the machine's peak of multiply-adds and its reading of memory, all in
 * this run.
 *
 * argv[2]: seconds to spend on a shape, argv[3]: threads. Then, for each shape, "m n k transpose_a transpose_b beta dtype"
 * on stdin, the rlsd_dtype of B; stdout has "peak GFLOP/s" of that moment, the GB/s at which B is read and summed up, and
 * the seconds of the product's fastest run. */
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "rlsd/rlsd.h"

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

constexpr int kChains = 12; /* independent sums: more than latency times throughput of any processor here */

/* `n` rounds of kChains multiply-adds; returns operations. */
double multiply_adds(long n) {
#if defined(__x86_64__)
#define RLSD_ROUND(op, reg)                                                             \
  for (long i = 0; i < n; ++i)                                                          \
  asm volatile(op " %%" reg "14,%%" reg "15,%%" reg "0\n" op " %%" reg "14,%%" reg      \
               "15,%%" reg "1\n" op " %%" reg "14,%%" reg "15,%%" reg "2\n" op " %%" reg \
               "14,%%" reg "15,%%" reg "3\n" op " %%" reg "14,%%" reg "15,%%" reg "4\n" op \
               " %%" reg "14,%%" reg "15,%%" reg "5\n" op " %%" reg "14,%%" reg "15,%%" reg \
               "6\n" op " %%" reg "14,%%" reg "15,%%" reg "7\n" op " %%" reg "14,%%" reg \
               "15,%%" reg "8\n" op " %%" reg "14,%%" reg "15,%%" reg "9\n" op " %%" reg \
               "14,%%" reg "15,%%" reg "10\n" op " %%" reg "14,%%" reg "15,%%" reg "11\n" :: \
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11")
  if (__builtin_cpu_supports("avx512f")) {
    RLSD_ROUND("vfmadd231ps", "zmm");
    return 2.0 * 16 * kChains * static_cast<double>(n);
  }
  if (__builtin_cpu_supports("fma")) {
    RLSD_ROUND("vfmadd231ps", "ymm");
    return 2.0 * 8 * kChains * static_cast<double>(n);
  }
#undef RLSD_ROUND
#endif
  typedef float Four __attribute__((vector_size(16)));
  Four sum[kChains] = {};
  const Four a = {1.0f, 1.0f, 1.0f, 1.0f};
  for (long i = 0; i < n; ++i) {
    for (Four& s : sum) {
      s += a * a;
      asm volatile("" : "+m"(s));
    }
  }
  return 2.0 * 4 * kChains * static_cast<double>(n);
}

double peak(int threads) {
  double best = 0.0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const double start = now();
    std::vector<double> operations(static_cast<size_t>(threads));
    std::vector<std::thread> others;
    for (double& count : operations) others.emplace_back([&count] { count = multiply_adds(3000000); });
    for (std::thread& thread : others) thread.join();
    double total = 0.0;
    for (double count : operations) total += count;
    best = std::max(best, total / (now() - start) / 1e9);
  }
  return best;
}

/* 16-bit elements are the high halves of floats, as bfloat16 has them; as float16 they are other numbers. */
struct Matrix {
  std::vector<float> values;
  rlsd_tensor tensor{};

  Matrix(int64_t rows, int64_t columns, int32_t dtype = RLSD_F32) {
    const size_t count = static_cast<size_t>(rows * columns);
    values.resize(dtype == RLSD_F32 ? count : (count + 1) / 2);
    for (size_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(i % 2039) / 2039.0f - 0.5f;
      if (dtype == RLSD_F32) {
        values[i] = value;
      } else {
        std::memcpy(reinterpret_cast<char*>(values.data()) + 2 * i, reinterpret_cast<const char*>(&value) + 2, 2);
      }
    }
    tensor.data = values.data();
    tensor.dtype = dtype;
    tensor.rank = 2;
    tensor.shape[0] = rows;
    tensor.shape[1] = columns;
    tensor.stride[0] = columns;
    tensor.stride[1] = 1;
  }
};

/* GB/s at which `threads` threads read memory once, adding it up in independent sums. */
double read_speed(const std::vector<float>& memory, int threads) {
  typedef float Wide __attribute__((vector_size(64), aligned(4), may_alias));
  double best = 0.0;
  const size_t share = memory.size() / static_cast<size_t>(threads) / 64 * 64;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double start = now();
    std::vector<std::thread> others;
    for (int t = 0; t < threads; ++t) {
      others.emplace_back([&memory, share, t] {
        const float* from = memory.data() + static_cast<size_t>(t) * share;
        Wide sum[4] = {};
        for (size_t i = 0; i < share; i += 64) {
          for (int j = 0; j < 4; ++j) sum[j] += *reinterpret_cast<const Wide*>(from + i + 16 * j);
        }
        asm volatile("" : : "m"(sum));
      });
    }
    for (std::thread& thread : others) thread.join();
    best = std::max(best, static_cast<double>(share) * threads * sizeof(float) / (now() - start) / 1e9);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  const auto get = library ? reinterpret_cast<rlsd_backend_get_fn>(dlsym(library, "rlsd_backend_get")) : nullptr;
  const rlsd_backend_v1* backend = get ? get(RLSD_ABI_VERSION) : nullptr;
  if (backend == nullptr) return 2;
  const double seconds = std::atof(argv[2]);
  rlsd_context context{};
  context.struct_size = sizeof(context);
  context.threads = std::atoi(argv[3]);
  context.matmul_dtype = argc == 5 ? RLSD_BF16 : RLSD_F32;
  long long m, n, k;
  int ta, tb, dtype;
  double beta;
  while (std::scanf("%lld %lld %lld %d %d %lf %d", &m, &n, &k, &ta, &tb, &beta, &dtype) == 7) {
    Matrix a(ta ? k : m, ta ? m : k), b(tb ? n : k, tb ? k : n, dtype), c(m, n);
    uint64_t bytes = 0;
    backend->matmul_workspace(&context, c.tensor, a.tensor, b.tensor, ta, tb, &bytes);
    void* workspace = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    context.workspace = workspace;
    context.workspace_bytes = bytes;
    const double best_peak = peak(context.threads), best_read = read_speed(b.values, context.threads);
    double fastest = 1e30;
    for (double end = now() + seconds; now() < end || fastest > 1e29;) {
      const double start = now();
      if (backend->matmul(&context, c.tensor, a.tensor, b.tensor, rlsd_tensor{}, ta, tb, beta) != RLSD_OK) return 1;
      fastest = std::min(fastest, now() - start);
    }
    std::free(workspace);
    std::printf("%.1f %.2f %.9f\n", best_peak, best_read, fastest);
    std::fflush(stdout);
  }
  return 0;
}
