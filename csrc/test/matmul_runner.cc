/* Multiplies what it reads: the test's door to the matmul entry of librlsd_cpu.so (argv[1]).
 *
 * stdin holds products one after another, native byte order:
 *   int64  m, n, k, transpose_a, transpose_b, dtype of a, b, c, bias (-1: none), padding, threads, workspace off by,
 *          dtype of factors (f32, or bf16 where that is faster)
 *   double beta
 *   a, b, c, bias: rows in order, each followed by `padding` elements (not the bias)
 * stdout gets, for each, the status as int64 and c. */
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "rlsd/rlsd.h"

namespace {

struct Header {
  int64_t m, n, k, transpose_a, transpose_b, dtype_a, dtype_b, dtype_c, dtype_bias, padding, threads, short_by, dtype_factors;
  double beta;
};

int64_t width(int64_t dtype) { return dtype == RLSD_F32 ? 4 : 2; }

struct Matrix {
  rlsd_tensor tensor{};
  std::vector<char> bytes;

  bool read(int64_t rows, int64_t columns, int64_t padding, int64_t dtype) {
    bytes.resize(static_cast<size_t>(rows * (columns + padding) * width(dtype)));
    tensor.data = bytes.data();
    tensor.dtype = static_cast<int32_t>(dtype);
    tensor.rank = 2;
    tensor.shape[0] = rows;
    tensor.shape[1] = columns;
    tensor.stride[0] = columns + padding;
    tensor.stride[1] = 1;
    return std::fread(bytes.data(), 1, bytes.size(), stdin) == bytes.size();
  }
};

bool one_product(const rlsd_backend_v1& backend, const Header& h) {
  Matrix a, b, c, bias;
  const bool read = a.read(h.transpose_a ? h.k : h.m, h.transpose_a ? h.m : h.k, h.padding, h.dtype_a) &&
                    b.read(h.transpose_b ? h.n : h.k, h.transpose_b ? h.k : h.n, h.padding, h.dtype_b) &&
                    c.read(h.m, h.n, h.padding, h.dtype_c) &&
                    (h.dtype_bias < 0 || bias.read(1, h.n, 0, h.dtype_bias));
  if (!read) return false;
  bias.tensor.rank = 1;
  bias.tensor.shape[0] = h.n;
  rlsd_context context{};
  context.struct_size = sizeof(context);
  context.threads = static_cast<int32_t>(h.threads);
  context.matmul_dtype = static_cast<int32_t>(h.dtype_factors);
  const auto transpose_a = static_cast<int32_t>(h.transpose_a), transpose_b = static_cast<int32_t>(h.transpose_b);
  uint64_t needed = 0;
  rlsd_status status =
      backend.matmul_workspace(&context, c.tensor, a.tensor, b.tensor, transpose_a, transpose_b, &needed);
  if (status == RLSD_OK) {
    context.workspace_bytes = needed - static_cast<uint64_t>(h.short_by);
    constexpr size_t kBehind = size_t{1} << 18; /* bytes that nothing may write to */
    auto* const workspace = static_cast<unsigned char*>(std::aligned_alloc(64, (needed + kBehind + 63) / 64 * 64));
    context.workspace = workspace;
    std::memset(workspace, 0xFF, needed + kBehind); /* NaN: nothing may be read before it is written */
    status = backend.matmul(&context, c.tensor, a.tensor, b.tensor, bias.tensor, transpose_a, transpose_b, h.beta);
    const bool kept = std::all_of(workspace + needed, workspace + needed + kBehind, [](int byte) { return byte == 0xFF; });
    std::free(workspace);
    if (!kept) return false;
  }
  const int64_t code = status;
  return std::fwrite(&code, sizeof(code), 1, stdout) == 1 &&
         std::fwrite(c.bytes.data(), 1, c.bytes.size(), stdout) == c.bytes.size();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  const auto get = reinterpret_cast<rlsd_backend_get_fn>(dlsym(library, "rlsd_backend_get"));
  const rlsd_backend_v1* backend = get == nullptr ? nullptr : get(RLSD_ABI_VERSION);
  if (backend == nullptr || backend->matmul == nullptr) return 2;
  Header header;
  while (std::fread(&header, sizeof(header), 1, stdin) == 1) {
    if (!one_product(*backend, header)) return 1;
  }
  return 0;
}
