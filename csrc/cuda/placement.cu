#include "cuda/placement.h"

#include <mutex>

namespace rlsd::cuda {
namespace {

/* More shapes than a process has; beyond them the oldest is forgotten, and asked for again. */
constexpr int kMostShapes = 64;

struct Known {
  std::mutex mutex;
  int count = 0, next = 0;
  RowShape shapes[kMostShapes];
  Placement placements[kMostShapes];

  int find(const RowShape& shape) const {
    for (int i = 0; i < count; ++i) {
      if (shapes[i] == shape) return i;
    }
    return -1;
  }
};

Known known;

}  // namespace

bool recall_placement(const RowShape& shape, Placement* placement) {
  const std::lock_guard<std::mutex> lock(known.mutex);
  const int at = known.find(shape);
  if (at >= 0) *placement = known.placements[at];
  return at >= 0;
}

void remember_placement(const RowShape& shape, const Placement& placement) {
  const std::lock_guard<std::mutex> lock(known.mutex);
  int at = known.find(shape);
  if (at < 0) {
    at = known.next;
    known.next = (known.next + 1) % kMostShapes;
    if (known.count < kMostShapes) ++known.count;
  }
  known.shapes[at] = shape;
  known.placements[at] = placement;
}

}  // namespace rlsd::cuda
