#pragma once
#include "rlsd/rlsd.h"
namespace rlsd::cpu {
rlsd_status plain_matmul_workspace(rlsd_context*, rlsd_tensor, rlsd_tensor, rlsd_tensor, int32_t, int32_t, uint64_t*);
rlsd_status plain_matmul(rlsd_context*, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias, int32_t ta, int32_t tb, double beta);
void fill_plain(rlsd_backend_v1* table);
}
