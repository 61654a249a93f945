#pragma once
#include "rlsd/rlsd.h"
namespace rlsd::cpu {
void fill_plain(rlsd_backend_v1* table);
}
