#include "cpu/model/model_entries.h"

namespace rlsd::cpu {

void fill_model_entries(rlsd_backend_v1* table) {
  table->embedding = embedding;
  table->embedding_backward = embedding_backward;
  table->rms_norm = rms_norm;
  table->rms_norm_backward = rms_norm_backward;
  table->rope = rope;
  table->attention = attention;
  table->attention_decode = attention_decode;
  table->attention_backward = attention_backward;
  table->attention_backward_workspace = attention_backward_workspace;
  table->cache_append = cache_append;
  table->glu = glu;
  table->glu_backward = glu_backward;
  table->residual_add = residual_add;
  table->scale = scale;
  table->convert = convert;
  table->bias_backward = bias_backward;
  table->adamw = adamw;
  table->squared_norm = squared_norm;
  table->sample = sample;
  table->sample_workspace = sample_workspace;
}

}  // namespace rlsd::cpu
