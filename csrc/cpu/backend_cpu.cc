/* The CPU backend's table. Memory is the host's; every entry is done when it returns. */
#include "cpu/backend_cpu.h"

#include <cstring>

#include "core/error.h"
#include "cpu/distill_loss.h"
#include "cpu/matmul.h"
#include "cpu/model/model_entries.h"
#include "cpu/packed_weight.h"
#include "cpu/policy_loss.h"
#include "cpu/thread_pool.h"
#include "cpu/token_log_probs.h"
#include "system/aligned_memory.h"

namespace rlsd::cpu {
namespace {

constexpr size_t kAlignment = 64; /* a cache line, and the widest vector */

rlsd_status device_count(rlsd_context*, int32_t* count) {
  *count = 1;
  return RLSD_OK;
}

rlsd_status device_info(rlsd_context*, rlsd_device_info* info) {
  const uint32_t size = info->struct_size;
  std::memset(info, 0, sizeof(*info));
  info->struct_size = size;
  std::strcpy(info->name, "cpu");
  return RLSD_OK;
}

rlsd_status allocate(rlsd_context* context, uint64_t bytes, void** data) {
  const uint64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  *data = rounded >= bytes ? aligned_allocate(kAlignment, rounded > 0 ? rounded : kAlignment) : nullptr;
  if (*data != nullptr) return RLSD_OK;
  return fail(context, RLSD_OUT_OF_MEMORY, -1, "Could not allocate %llu bytes.",
              static_cast<unsigned long long>(bytes));
}

rlsd_status release(rlsd_context*, void* data) {
  aligned_release(data);
  return RLSD_OK;
}

rlsd_status copy(rlsd_context*, void* to, const void* from, uint64_t bytes, int32_t) {
  if (bytes > 0) std::memmove(to, from, bytes);
  return RLSD_OK;
}

rlsd_status fill_zero(rlsd_context*, void* data, uint64_t bytes) {
  if (bytes > 0) std::memset(data, 0, bytes);
  return RLSD_OK;
}

rlsd_status synchronize(rlsd_context*) { return RLSD_OK; }

rlsd_backend_v1 make_table() {
  rlsd_backend_v1 table{};
  table.struct_size = sizeof(table);
  table.abi_version = RLSD_ABI_VERSION;
  table.name = "cpu";
  table.device_count = device_count;
  table.device_info = device_info;
  table.allocate = allocate;
  table.release = release;
  table.allocate_host = allocate;
  table.release_host = release;
  table.copy = copy;
  table.fill_zero = fill_zero;
  table.synchronize = synchronize;
  table.policy_loss_workspace = policy_loss_workspace;
  table.policy_loss = policy_loss;
  table.token_log_probs_workspace = token_log_probs_workspace;
  table.token_log_probs = token_log_probs;
  table.distill_loss_workspace = distill_loss_workspace;
  table.distill_loss = distill_loss;
  table.matmul = matmul;
  table.matmul_types = 1u << RLSD_F32 | (bf16_matmul_kernels().step > 1 ? 1u << RLSD_BF16 : 0u);
  table.matmul_workspace = matmul_workspace;
  table.packed_weight_bytes = packed_weight_bytes;
  table.pack_weight = pack_weight;
  table.matmul_packed = matmul_packed;
  fill_model_entries(&table);
  return table;
}

}  // namespace

const rlsd_backend_v1* backend() {
  static const rlsd_backend_v1 table = make_table();
  return &table;
}

}  // namespace rlsd::cpu
