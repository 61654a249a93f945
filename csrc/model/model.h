/* One decoder: its weights, and once it is trained its gradient and AdamW's moments; each one block
 * of float32. */
#ifndef RLSD_MODEL_MODEL_H_
#define RLSD_MODEL_MODEL_H_

#include <cstdint>
#include <vector>

#include "model/activations.h"
#include "model/device.h"
#include "model/layout.h"

namespace rlsd::model {

enum class Block { kWeights, kGradient, kFirstMoment, kSecondMoment };

struct Model {
  /* `batch_tokens`: rows that one forward and backward pass holds at once; a longer sequence has
   * its own pass. */
  Model(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads, uint64_t memory_limit,
        const Config& c, int64_t batch_tokens);

  /* Allocates the weights, all 0. */
  rlsd_status create(const float* inverse_frequencies);
  /* Gives all memory back; only create may follow. */
  void release();

  const float* at(int64_t offset) const { return offset < 0 ? nullptr : weights.floats() + offset; }
  float* gradient_at(int64_t offset) const { return gradient.floats() + offset; }
  rlsd_tensor head() const { return matrix(at(layout.head), config.vocab, config.hidden); }

  /* Zeroed memory for the gradient, when there is none yet. */
  rlsd_status need_gradient();
  rlsd_status need_moments();
  rlsd_status clear_gradient();

  /* `count` floats of a block from `offset` on, to or from host memory of the given type. */
  rlsd_status write(Block block, int64_t offset, int64_t count, int32_t dtype, const void* from);
  rlsd_status read(Block block, int64_t offset, int64_t count, int32_t dtype, void* to);

  /* Weights = other's (1 - rate) + own rate. */
  rlsd_status copy_from(Model& other, double rate);

  const Config config;
  const Layout layout;
  const int64_t batch_tokens;
  Device device;
  Buffer weights, gradient, first_moment, second_moment, inverse_frequencies;
  Activations activations;
  Buffer integers, scores; /* small arrays of the call that runs */
  int64_t updates = 0;

 private:
  Buffer* block_of(Block block);
  Buffer staging_;
};

/* Rows of several sequences, one after another. Host memory. */
struct PackedRows {
  const int32_t* ids;
  const int32_t* cu_seqlens; /* (sequences + 1), from 0 */
  int64_t sequences;

  int64_t rows() const { return cu_seqlens[sequences]; }
};

/* The same on the device. */
struct DeviceRows {
  const int32_t *ids, *positions, *cu_seqlens;
  int64_t rows, sequences;
};

/* Into `memory`, grown as needed. */
rlsd_status upload_rows(Model* model, const PackedRows& packed, Buffer* memory, DeviceRows* out);

/* Final hidden states of all rows into activations.hidden; with gradients, what backward needs is
 * kept. */
rlsd_status forward(Model* model, const DeviceRows& rows, bool gradients, Activations* a);

/* Called by forward after each layer's keys and values are made: prefill stores them. */
struct KeyValueSink {
  virtual ~KeyValueSink() = default;
  virtual rlsd_status store(int64_t layer, const float* k, const float* v) = 0;
};
rlsd_status forward_with_sink(Model* model, const DeviceRows& rows, Activations* a,
                              KeyValueSink* sink);

/* From activations.d_hidden, the gradient of the final hidden states: adds to every parameter's
 * gradient. */
rlsd_status backward(Model* model, const DeviceRows& rows, Activations* a);

/* The parts of a layer around attention, which decoding shares: queries, keys, values; and all that
 * follows. */
rlsd_status project(Model* model, int64_t layer, int64_t rows, const int32_t* positions,
                    Activations* a);
rlsd_status finish_layer(Model* model, int64_t layer, int64_t rows, float* x_next, Activations* a);
rlsd_status final_norm(Model* model, int64_t rows, Activations* a);

}  // namespace rlsd::model

#endif
