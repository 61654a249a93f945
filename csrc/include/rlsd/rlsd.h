/* rlsd.h - the C boundary between the typed layer and a compute backend.
 *
 * One backend is one shared object with one export, rlsd_backend_get, which returns a table of
 * functions over plain structs. The CPU backend is linked into the addon; others are opened by path.
 *
 * Rules that every entry obeys:
 *  - the first argument is the context: device, stream, thread count, workspace, cancel flag, last error;
 *  - it is ordered on the context's stream (CPU: done on return);
 *  - it allocates nothing: the matching _workspace entry says how many bytes the context must carry;
 *  - what it is given stays the caller's, and is not looked at after the call (CUDA: after its work on the stream);
 *  - pointers are memory of the backend's device, unless a comment says "host";
 *  - it returns a status, writes text only into context->error, prints nothing and throws nothing;
 *  - an entry that a backend lacks is NULL.
 * The context, the objective, the table and the device's description carry struct_size: fields are appended, never moved.
 * Batches, outputs and arguments do not: they are zeroed by the caller, and change with RLSD_ABI_VERSION alone.
 *
 * Letters: N response tokens of a batch, packed; B sequences; V vocabulary; H hidden size. Row-major.
 */
#ifndef RLSD_RLSD_H_
#define RLSD_RLSD_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RLSD_ABI_VERSION 1u

typedef enum rlsd_status {
  RLSD_OK = 0,
  RLSD_INVALID_ARGUMENT = 1,
  RLSD_UNSUPPORTED = 2,
  RLSD_OUT_OF_MEMORY = 3,
  RLSD_NON_FINITE = 4, /* the call finished; bad rows were found and left out */
  RLSD_CANCELLED = 5,
  RLSD_DEVICE = 6, /* the device's runtime failed; error holds its words */
  RLSD_INTERNAL = 7
} rlsd_status;

typedef enum rlsd_dtype {
  RLSD_F32 = 0,
  RLSD_F16 = 1,
  RLSD_BF16 = 2,
  RLSD_I32 = 3,
  RLSD_U8 = 4,
  RLSD_F64 = 5
} rlsd_dtype;

/* A strided view. stride counts elements; the last dimension has stride 1, and rows do not overlap. What lies between
 * rows is neither read nor written. data NULL: absent. */
typedef struct rlsd_tensor {
  void* data;
  int32_t dtype; /* rlsd_dtype */
  int32_t rank;
  int64_t shape[4];
  int64_t stride[4];
} rlsd_tensor;

#define RLSD_ERROR_BYTES 512

typedef struct rlsd_context {
  uint32_t struct_size;
  int32_t device;  /* ordinal */
  void* stream;    /* cudaStream_t; NULL on the CPU */
  int32_t threads; /* 0: the whole pool */
  int32_t matmul_dtype; /* of products, sums are float32. RLSD_F32: exact. RLSD_BF16: factors are rounded to it where that is
                           faster here, see matmul_types */
  void* workspace; /* aligned as malloc aligns */
  uint64_t workspace_bytes;
  const volatile int32_t* cancel; /* host; nonzero: stop at the next block of rows. May be NULL */
  int64_t error_index;            /* row, token or sequence that error speaks of; -1: none */
  int64_t error_count;            /* how many such rows */
  char error[RLSD_ERROR_BYTES];   /* what was expected and what came; an entry that succeeds leaves it as it was */
} rlsd_context;

/* ---- losses ------------------------------------------------------------------------------- */

typedef enum rlsd_level { RLSD_ABSENT = 0, RLSD_LOG_PROBS = 1, RLSD_LOGITS = 2, RLSD_HIDDEN = 3 } rlsd_level;

/* One view of the same N tokens: as log-probs, as logits, or as hidden states and an LM head. */
typedef struct rlsd_scores {
  int32_t level; /* rlsd_level */
  int32_t reserved;
  const float* log_probs; /* (N), at the rollout's temperature */
  rlsd_tensor logits;     /* (R, V) */
  rlsd_tensor hidden;     /* (R, H) */
  rlsd_tensor head;       /* (V, H) */
  rlsd_tensor bias;       /* (V) */
  const int32_t* rows;    /* (N): the row of logits or hidden that predicts token i; NULL: row i */
  int64_t vocab_size;     /* columns at or beyond are padding: p = 0, gradient 0 */
} rlsd_scores;

typedef enum rlsd_surrogate {
  RLSD_PPO_CLIP = 0,
  RLSD_GSPO = 1,
  RLSD_GSPO_TOKEN = 2,
  RLSD_CISPO = 3,
  RLSD_SAPO = 4,
  RLSD_LUSPO = 5,
  RLSD_GMPO = 6,
  RLSD_ROW_COEFFICIENT = 7
} rlsd_surrogate;

typedef enum rlsd_reduction {
  RLSD_TOKEN_MEAN = 0,
  RLSD_SEQUENCE_MEAN = 1,
  RLSD_SEQUENCE_SUM = 2,
  RLSD_TOKEN_SUM = 3
} rlsd_reduction;

typedef enum rlsd_kl_estimator { RLSD_K1 = 0, RLSD_K2 = 1, RLSD_K3 = 2, RLSD_KL_ABS = 3 } rlsd_kl_estimator;

typedef enum rlsd_importance {
  RLSD_IMPORTANCE_NONE = 0,
  RLSD_TOKEN_TRUNCATE = 1,
  RLSD_TOKEN_MASK = 2,
  RLSD_SEQUENCE_TRUNCATE = 3,
  RLSD_SEQUENCE_MASK = 4
} rlsd_importance;

/* An objective: everything that is a choice, nothing that is data. "Off" is written as infinity: an objective of zeros is
 * refused, docs/c.md has one to begin with. */
typedef struct rlsd_objective {
  uint32_t struct_size;
  int32_t surrogate;  /* rlsd_surrogate */
  int32_t reduction;  /* rlsd_reduction */
  int32_t importance; /* rlsd_importance */
  int32_t kl_estimator;
  int32_t kl_importance_correction; /* multiply KL by the ratio */
  int32_t negative_only;
  int32_t pessimistic;        /* clipMode */
  int32_t normalize_sequence; /* credit's mean over a sequence is 1 */
  int32_t student_source_old; /* delta uses log P_old */
  int32_t non_finite_skip;
  int32_t logit_rounding_bf16;
  double clip_low, clip_high;
  double dual_clip;   /* infinity: off */
  double ratio_bound; /* infinity: off */
  double normalizer;  /* replaces the reduction's divisor; 0: the reduction's own */
  double kl_coef;
  double kl_clamp; /* bound of the k3 term; infinity: neither it nor the clamp of its exponent */
  double temperature;
  double entropy_coef;
  double logit_softcap; /* 0: none */
  double credit_mix;    /* lambda */
  double evidence_clip; /* eps_w */
  double sapo_temperature_pos, sapo_temperature_neg;
  double importance_min, importance_max; /* 0 and infinity: unbounded */
  /* Logarithms of the clip bounds, taken once: log(1 - clip_low) and log(1 - evidence_clip) (-infinity where the
   * argument is not above 0), log(1 + clip_high), log(1 + evidence_clip). */
  double log_clip_low, log_clip_high, log_evidence_low, log_evidence_high;
} rlsd_objective;

typedef struct rlsd_policy_batch {
  int64_t tokens;    /* N */
  int64_t sequences; /* B */
  rlsd_scores student, teacher, contrast;
  const int32_t* token_ids;       /* (N); may be NULL when every view is log-probs */
  const int32_t* cu_seqlens;      /* (B + 1) */
  const uint8_t* completion_mask; /* (N) of 0 and 1; NULL: all 1 */
  const uint8_t* span_mask;       /* (N); NULL: all 1 */
  const float* advantages;        /* (B), or (N) when advantages_per_token */
  int64_t advantages_per_token;
  const float* old_log_probs; /* (N); NULL: on-policy */
  const float* ref_log_probs;
  const float* sampler_log_probs;
} rlsd_policy_batch;

/* Index of each statistic in the stats array. NaN: the quantity is absent. Means are over unmasked tokens. */
typedef enum rlsd_stat {
  RLSD_STAT_TOKENS = 0,
  RLSD_STAT_SEQUENCES,
  RLSD_STAT_LOSS,
  RLSD_STAT_POLICY_LOSS,
  RLSD_STAT_KL_MEAN,
  RLSD_STAT_ENTROPY_MEAN,
  RLSD_STAT_RATIO_MEAN,
  RLSD_STAT_RATIO_CLIPPED_HIGH,
  RLSD_STAT_RATIO_CLIPPED_LOW,
  RLSD_STAT_DUAL_CLIPPED,
  RLSD_STAT_ADVANTAGE_MEAN,
  RLSD_STAT_ADVANTAGE_ABS_MEAN,
  RLSD_STAT_DELTA_MEAN,
  RLSD_STAT_DELTA_MEAN_POSITIVE,
  RLSD_STAT_DELTA_MEAN_NEGATIVE,
  RLSD_STAT_EVIDENCE_WEIGHT_MEAN,
  RLSD_STAT_CLIPPED_WEIGHT_MEAN,
  RLSD_STAT_EVIDENCE_CLIPPED_LOW,
  RLSD_STAT_EVIDENCE_CLIPPED_HIGH,
  RLSD_STAT_NON_FINITE_ROWS,
  RLSD_STAT_NAN_TEACHER_ROWS,
  RLSD_STAT_SKIPPED_ROWS,
  RLSD_STAT_COUNT
} rlsd_stat;

/* What a call found that returned before its work was done. Device memory, written with the results. */
typedef struct rlsd_outcome {
  int32_t status; /* rlsd_status */
  int32_t reason; /* the backend's own; describe_outcome has the words */
  int64_t index;  /* as in rlsd_context */
  int64_t count;
  int64_t values[2];
  double value;
} rlsd_outcome;

/* What a loss writes. Gradient tensors with data NULL are not wanted. With gradient_log_probs NULL only the credit is
 * computed (token_advantages, evidence_weights and their statistics), and scores may be infinite. */
typedef struct rlsd_policy_outputs {
  float* log_probs;          /* (N); NULL: not wanted */
  float* teacher_log_probs;  /* (N); NULL without a teacher */
  float* token_advantages;   /* (N) */
  float* evidence_weights;   /* (N) */
  float* gradient_log_probs; /* (N); NULL: credit only */
  rlsd_tensor gradient_logits; /* (R, V); may alias the student's logits */
  rlsd_tensor gradient_hidden; /* (R, H) */
  rlsd_tensor gradient_head;   /* (V, H) */
  rlsd_tensor gradient_bias;   /* (V) */
  int32_t accumulate;          /* add to gradient_head and gradient_bias */
  int32_t skip_zero_rows;      /* do not even read rows whose gradient is known to be 0 */
  int32_t clear_other_rows;    /* zero the rows of gradient_logits, gradient_hidden that no token names */
  int32_t reserved;
  double loss_scale;
  double* stats; /* (RLSD_STAT_COUNT) */
  rlsd_outcome* outcome; /* NULL: the call waits for its work and returns the status itself */
  float* loss;           /* the loss once more, beside the results; NULL: not wanted */
} rlsd_policy_outputs;

/* Log-probs and, where wanted, entropies of the tokens under one view. */
typedef struct rlsd_token_log_probs_args {
  int64_t tokens;
  rlsd_scores scores;
  const int32_t* token_ids;
  const uint8_t* completion_mask;
  double temperature, logit_softcap;
  int32_t logit_rounding_bf16;
  int32_t non_finite_skip;
  float* log_probs; /* (N) */
  float* entropy;   /* (N); NULL: not wanted */
  rlsd_outcome* outcome; /* as in rlsd_policy_outputs */
} rlsd_token_log_probs_args;

typedef enum rlsd_divergence { RLSD_FORWARD_KL = 0, RLSD_REVERSE_KL = 1, RLSD_JSD = 2 } rlsd_divergence;

typedef struct rlsd_distill_args {
  int64_t tokens, sequences;
  rlsd_scores student, teacher; /* logits or hidden */
  const int32_t* cu_seqlens;
  const uint8_t* completion_mask;
  int32_t divergence; /* rlsd_divergence */
  int32_t reduction;
  int32_t top_k;         /* 0: the whole vocabulary; else the teacher's top k */
  int32_t tail;          /* one more bucket for the rest of the mass */
  int32_t non_finite_skip;
  int32_t accumulate;
  int32_t clear_other_rows;
  int32_t reserved;
  double beta;        /* of RLSD_JSD: above 0, below 1 */
  double value_clamp; /* each token's value is clamped to +- this, gradient 0 beyond; infinity: off */
  double temperature, logit_softcap, normalizer, loss_scale;
  rlsd_tensor gradient_logits, gradient_hidden, gradient_head, gradient_bias;
  float* token_losses; /* (N); NULL: not wanted */
  double* stats;       /* tokens, sequences, loss, mean, non-finite rows, clamped fraction */
} rlsd_distill_args;

#define RLSD_DISTILL_STATS 6

/* ---- model -------------------------------------------------------------------------------- */

/* Of a gated linear unit's gate. */
typedef enum rlsd_activation {
  RLSD_SILU = 0,
  RLSD_GELU_TANH = 1 /* GELU by its approximation with tanh */
} rlsd_activation;

/* Packed attention: sequence b owns the keys cu_seqlens[b] .. cu_seqlens[b+1] and the queries cu_queries[b] ..
 * cu_queries[b+1], which stand at its last positions; causal inside it. */
typedef struct rlsd_attention_args {
  rlsd_tensor q;    /* (queries, heads, D); heads % kv_heads == 0 */
  rlsd_tensor k, v; /* (keys, kv_heads, D) */
  rlsd_tensor out;  /* (queries, heads, D) */
  rlsd_tensor lse;  /* (queries, heads) f32: log-sum-exp of each row of scores */
  rlsd_tensor d_out, dq, dk, dv; /* backward only; dq, dk, dv are overwritten */
  const int32_t* cu_seqlens;
  int64_t sequences;
  double scale;
  const int32_t* cu_queries; /* (sequences + 1); NULL: cu_seqlens, every position has a query */
  int64_t window;            /* keys that a query sees, its own the last of them; 0: all up to its own */
} rlsd_attention_args;

/* Tokens of one block of a cache. */
#define RLSD_KEY_BLOCK 64

/* New tokens of sequences against their cache; the caller has appended their k and v already. Sequence b has the
 * queries cu_queries[b] .. cu_queries[b+1], which stand at its last positions. Each layer has its place in every block:
 * from k_offset on keys as scores read them, (kv_heads, D, RLSD_KEY_BLOCK), from v_offset on values, (kv_heads,
 * RLSD_KEY_BLOCK, D); offsets count floats. Sequences that begin alike may have the same blocks for what they have in
 * common; a backend may read those once for neighbours. */
typedef struct rlsd_attention_decode_args {
  rlsd_tensor q, out;        /* (queries, heads, D) */
  float* const* blocks;      /* (sequences, most_blocks): in the order of the tokens; NULL where no query sees any */
  const int32_t* lengths;    /* (sequences): cached tokens, the new ones included */
  const int32_t* cu_queries; /* (sequences + 1) */
  int64_t sequences, most_blocks, kv_heads, k_offset, v_offset;
  double scale;
  int64_t window; /* as in rlsd_attention_args */
} rlsd_attention_decode_args;

/* Draw one token a row. Row i uses the stream (seed[i], counter[i]) alone: no other row matters. */
typedef struct rlsd_sample_args {
  rlsd_tensor logits;    /* (B, V) */
  const uint64_t* seed;  /* (B), host */
  const uint64_t* counter; /* (B), host */
  double temperature;    /* 0: argmax, smallest id on a tie */
  int32_t top_k;         /* 0: off */
  int32_t reserved;
  double top_p, min_p;   /* 1 and 0: off */
  int64_t vocab_size;
  int32_t* token_ids;    /* (B) */
  float* log_probs;      /* (B): of the untruncated distribution at `temperature` (1 when it is 0) */
} rlsd_sample_args;

typedef struct rlsd_adamw_args {
  rlsd_tensor weight, m, v, gradient; /* f32, one shape */
  double learning_rate, beta1, beta2, eps, weight_decay, gradient_scale;
  int64_t step; /* 1 at the first update */
} rlsd_adamw_args;

/* ---- the table ---------------------------------------------------------------------------- */

typedef enum rlsd_copy_kind { RLSD_HOST_TO_DEVICE = 0, RLSD_DEVICE_TO_HOST = 1, RLSD_DEVICE_TO_DEVICE = 2 } rlsd_copy_kind;

#define RLSD_UNKNOWN_BYTES UINT64_MAX

typedef struct rlsd_device_info {
  uint32_t struct_size;
  int32_t ordinal;
  char name[128];
  uint64_t memory_bytes;
  uint64_t free_bytes; /* RLSD_UNKNOWN_BYTES where this process does not use the device yet */
  int32_t compute_major, compute_minor;
  int32_t driver_version, runtime_version;
} rlsd_device_info;

typedef enum rlsd_row_kernel { RLSD_ROWS_NONE = 0, RLSD_ROWS_PLAIN = 1, RLSD_ROWS_RESIDENT = 2 } rlsd_row_kernel;

/* Which kernel a policy loss gets for its rows of logits. */
typedef struct rlsd_rows {
  uint32_t struct_size;
  int32_t kernel;    /* rlsd_row_kernel; RLSD_ROWS_NONE: the call has no logits */
  int32_t cluster;   /* blocks that share a row */
  int32_t preferred; /* what `cluster` is where the device has room for it; 0: rows of this call cannot be kept */
  int32_t at_once;   /* rows that the device holds at a time, of those that are kept; 0: none is */
  int32_t reserved;
} rlsd_rows;

typedef struct rlsd_ipc_handle {
  uint8_t bytes[64];
  uint64_t offset;
} rlsd_ipc_handle;

typedef struct rlsd_backend_v1 {
  uint32_t struct_size;
  uint32_t abi_version;
  const char* name; /* "cpu", "cuda" */

  /* memory and streams */
  rlsd_status (*device_count)(rlsd_context*, int32_t* count);
  rlsd_status (*device_info)(rlsd_context*, rlsd_device_info* info);
  rlsd_status (*allocate)(rlsd_context*, uint64_t bytes, void** data);
  rlsd_status (*release)(rlsd_context*, void* data);
  rlsd_status (*allocate_host)(rlsd_context*, uint64_t bytes, void** data); /* pinned */
  rlsd_status (*release_host)(rlsd_context*, void* data);
  rlsd_status (*copy)(rlsd_context*, void* to, const void* from, uint64_t bytes, int32_t kind);
  rlsd_status (*fill_zero)(rlsd_context*, void* data, uint64_t bytes);
  rlsd_status (*stream_create)(rlsd_context*, void** stream);
  rlsd_status (*stream_destroy)(rlsd_context*, void* stream);
  rlsd_status (*synchronize)(rlsd_context*);
  rlsd_status (*event_create)(rlsd_context*, void** event);
  rlsd_status (*event_destroy)(rlsd_context*, void* event);
  rlsd_status (*event_record)(rlsd_context*, void* event);
  rlsd_status (*event_wait)(rlsd_context*, void* event);
  rlsd_status (*event_query)(rlsd_context*, void* event, int32_t* done);
  rlsd_status (*ipc_export)(rlsd_context*, void* data, rlsd_ipc_handle* handle);
  rlsd_status (*ipc_import)(rlsd_context*, const rlsd_ipc_handle* handle, void** data);
  rlsd_status (*ipc_close)(rlsd_context*, void* data);

  /* losses. A _workspace entry writes the bytes that the context must carry for the same arguments. */
  rlsd_status (*policy_loss_workspace)(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*,
                                       const rlsd_policy_outputs*, uint64_t* bytes);
  rlsd_status (*policy_loss)(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*,
                             const rlsd_policy_outputs*);
  rlsd_status (*token_log_probs_workspace)(rlsd_context*, const rlsd_token_log_probs_args*, uint64_t* bytes);
  rlsd_status (*token_log_probs)(rlsd_context*, const rlsd_token_log_probs_args*);
  rlsd_status (*distill_loss_workspace)(rlsd_context*, const rlsd_distill_args*, uint64_t* bytes);
  rlsd_status (*distill_loss)(rlsd_context*, const rlsd_distill_args*);

  /* model: forward */
  /* out (N, H) = table[ids], widened */
  rlsd_status (*embedding)(rlsd_context*, rlsd_tensor out, rlsd_tensor table, const int32_t* ids);
  /* out = x * rstd * (offset + weight), rstd = 1 / sqrt(mean(x^2) + eps) per row of x (R, C); rstd (R) f32 */
  rlsd_status (*rms_norm)(rlsd_context*, rlsd_tensor out, rlsd_tensor rstd, rlsd_tensor x, rlsd_tensor weight,
                          double offset, double eps);
  /* in place on x (N, heads, D), which may be the first D numbers of wider heads, halves rotated;
   * inverse_frequencies (D/2) f32; direction -1 is the backward */
  rlsd_status (*rope)(rlsd_context*, rlsd_tensor x, const int32_t* positions, const float* inverse_frequencies,
                      double attention_factor, int32_t direction);
  rlsd_status (*attention)(rlsd_context*, const rlsd_attention_args*);
  rlsd_status (*attention_decode)(rlsd_context*, const rlsd_attention_decode_args*);
  /* Row i of k and v (R, kv_heads, D) becomes the key and value at positions[i] % RLSD_KEY_BLOCK of blocks[i], as
   * rlsd_attention_decode_args has them; blocks[i] NULL: left out */
  rlsd_status (*cache_append)(rlsd_context*, rlsd_tensor k, rlsd_tensor v, float* const* blocks,
                              const int32_t* positions, int64_t k_offset, int64_t v_offset);
  /* out = activation(gate) * up; activation as in rlsd_activation */
  rlsd_status (*glu)(rlsd_context*, rlsd_tensor out, rlsd_tensor gate, rlsd_tensor up, int32_t activation);
  /* x += y */
  rlsd_status (*residual_add)(rlsd_context*, rlsd_tensor x, rlsd_tensor y);
  /* c (M, N) = op(a) op(b) + beta c, plus bias (N) on each row where its data is not NULL; f32 accumulation */
  rlsd_status (*matmul)(rlsd_context*, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b, rlsd_tensor bias,
                        int32_t transpose_a, int32_t transpose_b, double beta);
  rlsd_status (*matmul_workspace)(rlsd_context*, rlsd_tensor c, rlsd_tensor a, rlsd_tensor b,
                                  int32_t transpose_a, int32_t transpose_b, uint64_t* bytes);
  /* to = from, converted between f32, f16 and bf16 (round to nearest even) */
  rlsd_status (*convert)(rlsd_context*, rlsd_tensor to, rlsd_tensor from);

  /* model: backward. Parameter gradients are added to, activation gradients overwritten. */
  rlsd_status (*embedding_backward)(rlsd_context*, rlsd_tensor d_table, rlsd_tensor d_out, const int32_t* ids);
  /* d_weight with data NULL is not wanted. */
  rlsd_status (*rms_norm_backward)(rlsd_context*, rlsd_tensor d_x, rlsd_tensor d_weight, rlsd_tensor d_out,
                                   rlsd_tensor x, rlsd_tensor weight, rlsd_tensor rstd, double offset);
  rlsd_status (*attention_backward)(rlsd_context*, const rlsd_attention_args*);
  rlsd_status (*attention_backward_workspace)(rlsd_context*, const rlsd_attention_args*, uint64_t* bytes);
  rlsd_status (*glu_backward)(rlsd_context*, rlsd_tensor d_gate, rlsd_tensor d_up, rlsd_tensor d_out,
                              rlsd_tensor gate, rlsd_tensor up, int32_t activation);
  /* d_bias (N) += sum over rows of d_out (M, N) */
  rlsd_status (*bias_backward)(rlsd_context*, rlsd_tensor d_bias, rlsd_tensor d_out);

  /* model: optimiser and sampling */
  rlsd_status (*adamw)(rlsd_context*, const rlsd_adamw_args*);
  rlsd_status (*squared_norm)(rlsd_context*, rlsd_tensor x, double* sum); /* host result, a fixed order of sums */
  rlsd_status (*scale)(rlsd_context*, rlsd_tensor x, double factor);
  rlsd_status (*sample_workspace)(rlsd_context*, const rlsd_sample_args*, uint64_t* bytes);
  rlsd_status (*sample)(rlsd_context*, const rlsd_sample_args*);

  /* The status of a host copy of an outcome, its words and index in the context. NULL where every call waits. */
  rlsd_status (*describe_outcome)(rlsd_context*, const rlsd_outcome*);

  /* Bit 1 << dtype: what context.matmul_dtype may ask for with effect on this machine. 0: float32 alone. */
  uint32_t matmul_types;

  /* What policy_loss does with the same arguments on this device as it is now. NULL where there is one way. */
  rlsd_status (*policy_loss_rows)(rlsd_context*, const rlsd_policy_batch*, const rlsd_objective*,
                                  const rlsd_policy_outputs*, rlsd_rows*);

  /* Weights w (N, K) that many products a w^T read before they change, laid out once as products read them under the
   * context's matmul_dtype. NULL, all three, where products read rows as they are.
   * bytes: what that takes; 0 where products of `rows` rows gain nothing */
  rlsd_status (*packed_weight_bytes)(rlsd_context*, rlsd_tensor w, int64_t rows, uint64_t* bytes);
  rlsd_status (*pack_weight)(rlsd_context*, void* packed, rlsd_tensor w);
  /* c (M, N) = a w^T + beta c, plus bias (N): the bits and the workspace of matmul. Of w the shape is read alone. */
  rlsd_status (*matmul_packed)(rlsd_context*, rlsd_tensor c, rlsd_tensor a, rlsd_tensor w, const void* packed,
                               rlsd_tensor bias, double beta);
} rlsd_backend_v1;

/* The one export. NULL when this build cannot serve abi_version. */
const rlsd_backend_v1* rlsd_backend_get(uint32_t abi_version);
typedef const rlsd_backend_v1* (*rlsd_backend_get_fn)(uint32_t abi_version);

#ifdef __cplusplus
}
#endif

#endif /* RLSD_RLSD_H_ */
