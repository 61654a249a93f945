/* One decoder: its weights, and once it is trained its gradient and AdamW's moments, each in one
 * block. Models that differ in their adapters alone share the weights, which nobody may change
 * then. */
#ifndef RLSD_MODEL_MODEL_H_
#define RLSD_MODEL_MODEL_H_

#include <cstdint>
#include <memory>

#include "model/activations.h"
#include "model/device.h"
#include "model/kv_cache.h"
#include "model/layout.h"
#include "model/packed_weights.h"
#include "model/prefixes.h"
#include "model/weights.h"

namespace rlsd::model {

enum class Block { kWeights, kGradient, kFirstMoment, kSecondMoment };

struct Model {
  /* `batch_tokens`: rows that one forward and backward pass holds at once; a longer sequence has
   * its own pass. */
  Model(const rlsd_backend_v1* table, int32_t ordinal, int32_t threads, uint64_t memory_limit,
        const Config& c, int64_t batch_tokens, bool recompute);

  /* Allocates the weights, all 0; `dtype` is that of the matrices until one is changed. */
  rlsd_status create(const float* inverse_frequencies, int32_t dtype);
  /* Takes the weights of a model of the same shape; allocates the adapters, all 0. */
  rlsd_status share(const Model& other);
  /* Gives all memory back; only create may follow. */
  void release();

  /* A norm or a bias. */
  const float* at(int64_t offset) const {
    return offset < 0 ? nullptr : static_cast<const float*>(weights->address(offset));
  }
  rlsd_tensor weight(int64_t offset, int64_t rows, int64_t columns) const;
  const float* adapter_at(int64_t offset) const { return adapter.floats() + offset; }
  /* (head_dim / 2): rotary frequencies of a layer. */
  const float* frequencies(int64_t layer) const {
    return weights->inverse_frequencies.floats() +
           (config.turns_locally(layer) ? config.frequency_count() : 0);
  }

  /* What is trained: the adapters where there are any, else the weights. Gradient and moments have
   * its offsets. */
  const ParameterBlock& trained() const {
    return config.has_adapters() ? static_cast<const ParameterBlock&>(adapters) : layout;
  }
  uint64_t trained_bytes() const { return static_cast<uint64_t>(trained().count) * sizeof(float); }
  /* Float32 once there is a gradient. */
  float* trained_weights() const {
    return config.has_adapters() ? adapter.floats() : weights->block.floats();
  }
  float* gradient_at(int64_t offset) const { return gradient.floats() + offset; }
  AdapterOffsets adapter_of(int64_t layer, Projection p) const {
    return config.has_adapters() ? adapters.layers[static_cast<size_t>(layer)][p]
                                 : AdapterOffsets{};
  }
  rlsd_tensor head() const { return weight(layout.head, config.vocab, config.hidden); }
  /* Without data where the head is not trained. */
  rlsd_tensor head_gradient() const {
    return matrix(config.has_adapters() ? nullptr : gradient_at(layout.head), config.vocab,
                  config.hidden);
  }

  /* What was computed of them, and is kept, goes. */
  void weights_change();
  /* Keys and values of sequences that were drawn stay, of so many bytes. */
  void keep_prefixes(uint64_t bytes);

  /* Memory for the gradient, zeroed unless there is one: to be added to. Polls cancel. */
  rlsd_status need_gradient();
  rlsd_status need_moments();
  /* What the gradient holds counts as 0; it is written when one is needed next, so that a call that
   * was aborted ends without. */
  void clear_gradient() { gradient_cleared_ = true; }

  /* `count` floats of a block from `offset` on, to or from host memory of the given type. */
  rlsd_status write(Block block, int64_t offset, int64_t count, int32_t dtype, const void* from);
  rlsd_status read(Block block, int64_t offset, int64_t count, int32_t dtype, void* to);

  /* What is trained = other's (1 - rate) + own rate. */
  rlsd_status copy_from(Model& other, double rate);
  /* Weights = those that `source` has with its adapters: W + scale B A. */
  rlsd_status merge(Model& source);

  const Config config;
  const Layout layout;
  const AdapterLayout adapters;
  const int64_t batch_tokens;
  const bool recompute; /* layers are computed again for the backward pass */
  Device device;
  std::shared_ptr<Weights> weights;
  PackedWeights packed; /* from the first draw until they change or memory is short */
  Buffer adapter, gradient, first_moment, second_moment;
  Activations activations;
  Buffer integers, scores; /* small arrays of the call that runs */
  Buffer copies;           /* of what sequences share, one for each */
  Buffer said;             /* hidden states of a model that teaches itself */
  KeyValueCache cache;     /* of sequences that are drawn */
  Prefixes prefixes;       /* that stay in it between calls */
  int64_t updates = 0;

 private:
  rlsd_status take(std::shared_ptr<Weights> from);
  rlsd_status add_adapters();
  rlsd_status told(rlsd_status status, Weights& of);
  /* Fails where a change of what is trained would change another model. */
  rlsd_status check_own();
  rlsd_status check_room_to_train();
  rlsd_status merge_one(const Model& source, const LinearOffsets& linear, AdapterOffsets at);
  /* Makes the weights, which are this model's own, float32. */
  rlsd_status widen();
  rlsd_status copy_weights(const Weights& from, double rate);
  rlsd_status blend(float* own, const float* theirs, int64_t count, double rate);
  rlsd_status store(rlsd_tensor to, int32_t dtype, const void* from);
  rlsd_status fetch(rlsd_tensor from, int32_t dtype, void* to);
  const Buffer& block_of(Block block) const;
  rlsd_status zero_gradient();
  Buffer staging_;
  bool gradient_cleared_ = true;
};

/* Rows of several sequences, one after another. Host memory. */
struct PackedRows {
  const int32_t* ids;
  const int32_t* cu_seqlens; /* (sequences + 1), from 0 */
  int64_t sequences;

  int64_t rows() const { return cu_seqlens[sequences]; }
};

/* Where sequences share rows, attention reads copies of their keys and values. Device memory. */
struct SharedKeys {
  const int32_t* cu_queries; /* (sequences + 1): each one's own rows, its last positions */
  const int32_t* row_of;     /* (count): the row that each key is */
  int64_t count;             /* 0: nothing is shared, keys are rows */
  float *k, *v, *dk, *dv;    /* (count, kv_width) scratch; gradients in training alone */
};

/* The same on the device; cu_seqlens counts keys. */
struct DeviceRows {
  const int32_t *ids, *positions, *cu_seqlens;
  int64_t rows, sequences;
  SharedKeys shared;
};

/* Into `memory`, grown as needed. */
rlsd_status upload_rows(Model* model, const PackedRows& packed, Buffer* memory, DeviceRows* out);

/* Final hidden states of all rows into activations.hidden; with gradients, what backward needs is
 * kept. */
rlsd_status forward(Model* model, const DeviceRows& rows, bool gradients, Activations* a);

/* From activations.d_hidden, the gradient of the final hidden states: adds to every parameter's
 * gradient. */
rlsd_status backward(Model* model, const DeviceRows& rows, Activations* a);

/* x (rows, H) = what enters the first layer. */
rlsd_status embed(Model* model, const int32_t* ids, int64_t rows, float* x);

/* y = x w^T + beta y + bias, where w are the weights at `offset`. */
rlsd_status multiply_weight(Model* model, rlsd_tensor y, rlsd_tensor x, int64_t offset, double beta,
                            const float* bias);

/* The parts of a layer around attention, which decoding shares: queries, keys, values; and all that
 * follows. */
rlsd_status project(Model* model, int64_t layer, int64_t rows, const int32_t* positions,
                    Activations* a);
rlsd_status finish_layer(Model* model, int64_t layer, int64_t rows, float* x_next, Activations* a);
rlsd_status final_norm(Model* model, int64_t rows, Activations* a);

/* All that the backward pass needs of a layer whose input alone was kept. */
rlsd_status compute_again(Model* model, int64_t layer, const DeviceRows& rows, Activations* a);

/* What attention reads and writes of a layer, but for gradients; shared keys and values are copied.
 */
rlsd_status attention_of(Model* model, int64_t layer, const DeviceRows& rows, const Activations& a,
                         rlsd_attention_args* args);

/* low (rows, rank) = scale x A^T */
rlsd_status adapter_low(Model* model, AdapterOffsets at, rlsd_tensor x, float* low);

}  // namespace rlsd::model

#endif
