/* The CUDA backend's table, and the library's one export. Entries that are NULL are not served yet. */
#include "cuda/losses.h"
#include "cuda/memory.h"

namespace rlsd::cuda {
namespace {

rlsd_backend_v1 make_table() {
  rlsd_backend_v1 table{};
  table.struct_size = sizeof(table);
  table.abi_version = RLSD_ABI_VERSION;
  table.name = "cuda";
  fill_memory_entries(&table);
  table.policy_loss_workspace = policy_loss_workspace;
  table.policy_loss = policy_loss;
  table.token_log_probs_workspace = token_log_probs_workspace;
  table.token_log_probs = token_log_probs;
  table.describe_outcome = describe_outcome;
  table.policy_loss_rows = policy_loss_rows;
  return table;
}

}  // namespace
}  // namespace rlsd::cuda

extern "C" __attribute__((visibility("default"))) const rlsd_backend_v1* rlsd_backend_get(uint32_t abi_version) {
  static const rlsd_backend_v1 table = rlsd::cuda::make_table();
  return abi_version == RLSD_ABI_VERSION ? &table : nullptr;
}
