/* The model group of the CPU's table; csrc/include/rlsd/rlsd.h says what each entry computes. */
#ifndef RLSD_CPU_MODEL_MODEL_ENTRIES_H_
#define RLSD_CPU_MODEL_MODEL_ENTRIES_H_

#include "rlsd/rlsd.h"

namespace rlsd::cpu {

void fill_model_entries(rlsd_backend_v1* table);

rlsd_status embedding(rlsd_context*, rlsd_tensor out, rlsd_tensor table, const int32_t* ids);
rlsd_status embedding_backward(rlsd_context*, rlsd_tensor d_table, rlsd_tensor d_out,
                               const int32_t* ids);
rlsd_status rms_norm(rlsd_context*, rlsd_tensor out, rlsd_tensor rstd, rlsd_tensor x,
                     rlsd_tensor weight, double offset, double eps);
rlsd_status rms_norm_backward(rlsd_context*, rlsd_tensor d_x, rlsd_tensor d_weight,
                              rlsd_tensor d_out, rlsd_tensor x, rlsd_tensor weight,
                              rlsd_tensor rstd, double offset);
rlsd_status rope(rlsd_context*, rlsd_tensor x, const int32_t* positions,
                 const float* inverse_frequencies, double attention_factor, int32_t direction);
rlsd_status attention(rlsd_context*, const rlsd_attention_args*);
rlsd_status attention_decode(rlsd_context*, const rlsd_attention_decode_args*);
rlsd_status attention_backward(rlsd_context*, const rlsd_attention_args*);
rlsd_status attention_backward_workspace(rlsd_context*, const rlsd_attention_args*,
                                         uint64_t* bytes);
rlsd_status cache_append(rlsd_context*, rlsd_tensor k, rlsd_tensor v, float* const* blocks,
                         const int32_t* positions, int64_t k_offset, int64_t v_offset);
rlsd_status glu(rlsd_context*, rlsd_tensor out, rlsd_tensor gate, rlsd_tensor up,
                int32_t activation);
rlsd_status glu_backward(rlsd_context*, rlsd_tensor d_gate, rlsd_tensor d_up, rlsd_tensor d_out,
                         rlsd_tensor gate, rlsd_tensor up, int32_t activation);
rlsd_status residual_add(rlsd_context*, rlsd_tensor x, rlsd_tensor y);
rlsd_status scale(rlsd_context*, rlsd_tensor x, double factor);
rlsd_status convert(rlsd_context*, rlsd_tensor to, rlsd_tensor from);
rlsd_status bias_backward(rlsd_context*, rlsd_tensor d_bias, rlsd_tensor d_out);
rlsd_status adamw(rlsd_context*, const rlsd_adamw_args*);
rlsd_status squared_norm(rlsd_context*, rlsd_tensor x, double* sum);
rlsd_status sample(rlsd_context*, const rlsd_sample_args*);
rlsd_status sample_workspace(rlsd_context*, const rlsd_sample_args*, uint64_t* bytes);

}  // namespace rlsd::cpu

#endif
