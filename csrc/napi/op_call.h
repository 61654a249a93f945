/* What the calls of every op share: a backend, a context with its workspace, inputs that a queued call owns, and the
 * two ways to run: on this thread, or on the queue with a promise. */
#ifndef RLSD_NAPI_OP_CALL_H_
#define RLSD_NAPI_OP_CALL_H_

#include <node_api.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "napi/args.h"
#include "rlsd/rlsd.h"
#include "system/aligned_memory.h"

namespace rlsd::addon {

/* Copies of a call's small inputs, in memory that no caller can reach. */
class OwnedInputs {
 public:
  /* Points *pointer at a copy of its `count` elements; NULL stays NULL. */
  template <class T>
  bool own(const T** pointer, size_t count) {
    if (*pointer == nullptr) return true;
    void* block = copy(*pointer, count * sizeof(T));
    if (block != nullptr) *pointer = static_cast<const T*>(block);
    return block != nullptr;
  }

  bool own_scores(rlsd_scores* s, size_t tokens) { return own(&s->log_probs, tokens) && own(&s->rows, tokens); }

 private:
  void* copy(const void* from, size_t bytes);

  std::vector<std::unique_ptr<void, decltype(&std::free)>> blocks_;
};

class OpCall {
 public:
  virtual ~OpCall() = default;

  /* Looks for the op's entries, allocates what they ask for, runs them. */
  rlsd_status run();

  /* Copies the inputs of N or B elements, which may change while a queued call waits. */
  virtual bool own_inputs() { return true; }

  bool bind(int32_t backend_index, double threads);

  const rlsd_backend_v1* backend = nullptr;
  rlsd_context context{};

 protected:
  /* The op's two entries in the backend's table; RLSD_UNSUPPORTED where they are NULL. */
  virtual rlsd_status workspace_bytes(uint64_t* bytes) = 0;
  virtual rlsd_status compute() = 0;
  rlsd_status unsupported(const char* op);

  OwnedInputs owned_;

 private:
  std::unique_ptr<void, decltype(&aligned_release)> workspace_{nullptr, &aligned_release};
};

/* A view from eight numbers (level, rows, V, H, vocabSize, dtype, head dtype, bias dtype) and four arrays (log-probs,
 * logits or hidden; head; bias; rows). False when an array has another type or count. */
constexpr int kScoreFields = 8;
constexpr int kScoreArrays = 4;
bool read_scores(const double* fields, const ArrayArg* arrays, size_t tokens, rlsd_scores* scores);

/* Where the gradients of a view's tensors go: logits, hidden, head, bias, empty ones for those that are absent. `dtypes` and
 * `arrays` are four each. False as above. */
bool read_gradients(const double* fields, const double* dtypes, const ArrayArg* arrays, rlsd_tensor* logits,
                    rlsd_tensor* hidden, rlsd_tensor* head, rlsd_tensor* bias);

/* Flags of a queued call, shared with JavaScript: [0] nonzero stops it, [1] is set when it starts. A caller that
 * stops a call and then finds it not started knows that it never will. */
constexpr size_t kCancelFlags = 2;

/* The status of a call that could not begin, words kept for lastError. */
napi_value refuse(napi_env env, rlsd_status status, const char* message);

/* A status, with words kept for lastError. */
napi_value finish(napi_env env, rlsd_status status, const rlsd_context& context);

/* How a queued call failed, [status, message, index, count]: jobs may complete together, so each carries its own words. */
napi_value failure(napi_env env, rlsd_status status, const char* message, int64_t index, int64_t count);

/* Runs on this thread; a status, with words kept for lastError. */
napi_value run_call(napi_env env, OpCall* call);

/* Queues the call with inputs of its own; a promise of RLSD_OK or of its failure. Until then the arrays of `held` stay
 * alive; their leases keep them from being written by others. `cancel` may be absent. */
napi_value queue_call(napi_env env, std::unique_ptr<OpCall> call, const ArrayArg& cancel, const ArrayArg* held,
                      size_t held_count);

}  // namespace rlsd::addon

#endif
