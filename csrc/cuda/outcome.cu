/* The words of an outcome; the same as the CPU backend's. */
#include "cuda/outcome.h"

namespace rlsd::cuda {
namespace {

const char* name_of_view(int32_t reason) {
  switch (reason >> 8) {
    case kContrast:
      return "contrast";
    case kTeacher:
      return "teacher";
    case kStudent:
      return "student";
    default:
      return "scores";
  }
}

rlsd_status invalid(rlsd_context* c, const rlsd_outcome& o) {
  const auto index = static_cast<long long>(o.index);
  const auto a = static_cast<long long>(o.values[0]), b = static_cast<long long>(o.values[1]);
  const char* const view = name_of_view(o.reason);
  switch (static_cast<Reason>(o.reason & 0xFF)) {
    case Reason::kFirstOffset:
      return fail(c, RLSD_INVALID_ARGUMENT, 0, "Expected cuSeqlens[0] to be 0 but received %lld.", a);
    case Reason::kDescending:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index,
                  "Expected cuSeqlens to ascend but cuSeqlens[%lld] is %lld, after %lld.", index, a, b);
    case Reason::kLastOffset:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index, "Expected cuSeqlens to end at N = %lld but it ends at %lld.", a, b);
    case Reason::kMask:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index,
                  "Expected completionMask to hold 0 or 1 but completionMask[%lld] is %lld.", index, a);
    case Reason::kSpanMask:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index, "Expected spanMask to hold 0 or 1 but spanMask[%lld] is %lld.",
                  index, a);
    case Reason::kAdvantage:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index, "Expected advantages to be finite but advantages[%lld] is %g.",
                  index, o.value);
    case Reason::kTokenId:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index,
                  "Expected 0 to %lld, the vocabulary of %s, but tokenIds[%lld] is %lld.", a, view, index, b);
    case Reason::kRow:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index, "Expected 0 to %lld but %s.rows[%lld] is %lld.", a, view, index, b);
    case Reason::kRowTwice:
      return fail(c, RLSD_INVALID_ARGUMENT, o.index, "Expected each row once but %s.rows[%lld] and [%lld] are both %lld.",
                  view, a, index, b);
    default:
      return fail(c, RLSD_INTERNAL, -1, "The device reported reason %d.", o.reason);
  }
}

}  // namespace

rlsd_status describe_outcome(rlsd_context* context, const rlsd_outcome* outcome) {
  switch (outcome->status) {
    case RLSD_OK:
      return RLSD_OK;
    case RLSD_NON_FINITE:
      context->error_count = outcome->count;
      return fail(context, RLSD_NON_FINITE, outcome->index,
                  "Expected finite log-probs at unmasked tokens but token %lld is not finite (%lld in all).",
                  static_cast<long long>(outcome->index), static_cast<long long>(outcome->count));
    default:
      return invalid(context, *outcome);
  }
}

rlsd_status await_outcome(rlsd_context* context, const rlsd_outcome* outcome) {
  rlsd_outcome found{};
  RLSD_CUDA_CHECK(context,
                  cudaMemcpyAsync(&found, outcome, sizeof(found), cudaMemcpyDeviceToHost, stream_of(context)),
                  "Could not read the call's outcome");
  RLSD_CUDA_CHECK(context, cudaStreamSynchronize(stream_of(context)), "The call failed on the device");
  return describe_outcome(context, &found);
}

}  // namespace rlsd::cuda
