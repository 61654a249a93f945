#ifndef RLSD_MODEL_INITIALIZE_H_
#define RLSD_MODEL_INITIALIZE_H_

#include "model/model.h"

namespace rlsd::model {

/* Random weights: matrices normal(0, deviation), norms that multiply by 1, biases 0. With
 * scale_residual the two matrices of a layer that write to the residual stream are divided by
 * sqrt(2 layers), as GPT-2 did. A parameter's numbers depend on the seed and its place in the
 * layout alone. */
rlsd_status initialize(Model* model, uint64_t seed, double deviation, bool scale_residual);

/* LoRA's usual start: A uniform in +-1 / sqrt(in), B 0, so that the model is as without adapters.
 */
rlsd_status initialize_adapters(Model* model, uint64_t seed);

}  // namespace rlsd::model

#endif
