/** Names that a field has in other trainers and in papers, for whoever writes theirs. Compared as `closest` compares names. */
import { fold } from "./suggest.js";

type Names = ReadonlyMap<string, string>;

const names = (table: Readonly<Record<string, string>>): Names =>
  new Map(
    Object.entries(table).flatMap(([here, there]) => there.split(" ").map((name) => [fold(name), here] as const)),
  );

/** Of an objective: TRL, verl, the papers. */
export const OBJECTIVE_NAMES = names({
  creditMix: "lambda rlsd_lambda credit_weight",
  evidenceClip: "eps_w epsilon_w clip_w weight_clip",
  clipLow: "epsilon_low clip_ratio_low eps_low",
  clipHigh: "epsilon_high clip_ratio_high eps_high",
  "clipLow and clipHigh": "epsilon eps clip clip_ratio clip_range clip_eps cliprange",
  dualClip: "clip_ratio_c",
  ratioBound: "delta",
  klCoef: "beta kl_beta kl_loss_coef kl_coeff kl_coefficient kl_weight init_kl_coef",
  klEstimator: "kl_loss_type kl_penalty kl_type",
  entropyCoef: "entropy_coeff entropy_coefficient entropy_bonus ent_coef",
  reduction: "loss_type loss_agg_mode loss_aggregation aggregation",
  objective: "loss_mode policy_loss surrogate",
  importanceCorrection: "vllm_importance_sampling_mode vllm_importance_sampling_correction",
  importanceMin: "vllm_importance_sampling_clip_min",
  importanceMax: "vllm_importance_sampling_clip_max vllm_importance_sampling_cap",
  sapoTemperaturePos: "tau_pos",
  sapoTemperatureNeg: "tau_neg",
});

const MASKS = "mask loss_mask response_mask attention_mask action_mask";

/** Of what `policyLoss` takes. */
export const BATCH_NAMES = names({
  "student: { logProbs }": "log_probs logps per_token_logps policy_log_probs student_log_probs",
  "student: { logits }": "logits student_logits",
  "teacher: { logProbs }": "teacher_log_probs",
  "teacher: { logits }": "teacher_logits",
  "contrast: { logProbs }": "contrast_log_probs",
  tokenIds: "labels targets ids tokens input_ids response_ids completion_ids responses",
  completionMask: `${MASKS} completion_masks`,
  oldLogProbs: "old_logps old_per_token_logps",
  refLogProbs: "reference_log_probs ref_logps ref_per_token_logps ref_log_prob",
  samplerLogProbs: "rollout_log_probs sampling_log_probs sampling_per_token_logps",
  "advantages, made by groupAdvantages(rewards, groupIds)": "rewards scores returns",
  cuSeqlens: "lengths seqlens seq_lens sequence_lengths offsets",
});

/** Of what `Policy.accumulate` takes. */
export const TRAIN_BATCH_NAMES = names({
  teacherLogProbs: "teacher",
  contrastLogProbs: "contrast",
  sequences: "student requests prompts completions token_ids",
  completionMask: MASKS,
  "advantages, made by groupAdvantages(rewards, groupIds)": "rewards scores returns",
});

/** Of sampling: transformers, vLLM, TRL. */
export const SAMPLING_NAMES = names({
  count: "n num_return_sequences num_generations num_completions samples",
  maxTokens: "max_new_tokens max_completion_length max_response_length max_length",
  stopStrings: "stop stop_sequences stop_words",
  stopTokenIds: "eos_token_id eos_token_ids end_token_ids",
  "temperature: 0": "greedy do_sample",
});

/** Of an update: torch, transformers. */
export const STEP_NAMES = names({
  learningRate: "lr",
  weightDecay: "wd decay",
  betas: "beta1 beta2 adam_beta1 adam_beta2",
  eps: "epsilon adam_epsilon",
  maxGradientNorm: "max_norm max_grad_norm grad_clip gradient_clip clip clip_grad clip_grad_norm",
});
