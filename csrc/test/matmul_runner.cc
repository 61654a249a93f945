/* Multiplies what it reads: the test's door to the matmul entry of librlsd_cpu.so (argv[1]).
 *
 * stdin holds products one after another, native byte order:
 *   int64  m, n, k, transpose_a, transpose_b, dtype of a, b, c, bias (-1: none), padding, threads, workspace off by,
 *          dtype of factors (f32, or bf16 where that is faster)
 *   double beta
 *   a, b, c, bias: rows in order, each followed by `padding` elements (not the bias)
 * stdout gets, for each, the status as int64 and c. Where b lies as weights do, the product is computed from its packed form
 * too; exit code 3: that has other bits, or was written beyond its end. */
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

constexpr size_t kBehind = size_t{1} << 18; /* bytes that nothing may write to */
constexpr int64_t kManyRows = 64;           /* of which packing gains */

/* Memory of `bytes` that is all ones, which are NaN: nothing may be read before it is written. */
struct Guarded {
  explicit Guarded(uint64_t bytes)
      : bytes(bytes), data(static_cast<unsigned char*>(std::aligned_alloc(64, (bytes + kBehind + 63) / 64 * 64))) {
    std::memset(data, 0xFF, bytes + kBehind);
  }
  ~Guarded() { std::free(data); }
  bool kept() const {
    return std::all_of(data + bytes, data + bytes + kBehind, [](int byte) { return byte == 0xFF; });
  }

  const uint64_t bytes;
  unsigned char* const data;
};

/* Whether the product from packed weights has the bits of `expected`; `c` is as it was before. */
bool packed_agrees(const rlsd_backend_v1& backend, rlsd_context* context, const Matrix& a, const Matrix& w, Matrix c,
                   const Matrix& bias, double beta, const std::vector<char>& expected) {
  uint64_t bytes = 0;
  if (backend.packed_weight_bytes(context, w.tensor, kManyRows, &bytes) != RLSD_OK) return false;
  if (bytes == 0) return true;
  const Guarded packed(bytes);
  if (backend.pack_weight(context, packed.data, w.tensor) != RLSD_OK) return false;
  rlsd_tensor unread = w.tensor;
  unread.data = nullptr;
  c.tensor.data = c.bytes.data();
  return backend.matmul_packed(context, c.tensor, a.tensor, unread, packed.data, bias.tensor, beta) == RLSD_OK &&
         packed.kept() && c.bytes == expected;
}

enum Result : int { kDone = 0, kShort = 1, kPackedDiffers = 3 };

Result one_product(const rlsd_backend_v1& backend, const Header& h) {
  Matrix a, b, c, bias;
  const bool read = a.read(h.transpose_a ? h.k : h.m, h.transpose_a ? h.m : h.k, h.padding, h.dtype_a) &&
                    b.read(h.transpose_b ? h.n : h.k, h.transpose_b ? h.k : h.n, h.padding, h.dtype_b) &&
                    c.read(h.m, h.n, h.padding, h.dtype_c) &&
                    (h.dtype_bias < 0 || bias.read(1, h.n, 0, h.dtype_bias));
  if (!read) return kShort;
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
    const Guarded workspace(needed);
    context.workspace = workspace.data;
    const Matrix before = c;
    status = backend.matmul(&context, c.tensor, a.tensor, b.tensor, bias.tensor, transpose_a, transpose_b, h.beta);
    if (status == RLSD_OK && h.transpose_a == 0 && h.transpose_b != 0 &&
        !packed_agrees(backend, &context, a, b, before, bias, h.beta, c.bytes)) {
      return kPackedDiffers;
    }
    if (!workspace.kept()) return kShort;
  }
  const int64_t code = status;
  const bool written = std::fwrite(&code, sizeof(code), 1, stdout) == 1 &&
                       std::fwrite(c.bytes.data(), 1, c.bytes.size(), stdout) == c.bytes.size();
  return written ? kDone : kShort;
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
    const Result result = one_product(*backend, header);
    if (result != kDone) return result;
  }
  return 0;
}
