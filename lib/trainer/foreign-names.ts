/** What settings are called in TRL, verl, axolotl, unsloth and prime-rl, for those who come from there. */
export const FOREIGN: Readonly<Record<string, readonly string[]>> = {
  "advantage.scale": ["scale_rewards", "norm_adv_by_std_in_grpo"],
  "checkpoint.every": ["save_steps", "save_freq"],
  "checkpoint.keep": ["save_total_limit", "save_limit"],
  "data.eval": ["eval_file", "val_file", "val_files", "test_file", "test_datasets"],
  "data.fields.answer": ["answer_key", "answer_column"],
  "data.fields.prompt": ["prompt_key", "prompt_column"],
  "data.system": ["system_prompt"],
  "data.template": ["format_prompt", "prompt_template"],
  "data.train": ["dataset", "datasets", "dataset_name", "dataset_path", "train_file", "train_files"],
  "eval.every": ["eval_steps", "test_freq", "val_freq"],
  "lora.alpha": ["lora_alpha"],
  "lora.rank": ["lora_r", "lora.r"],
  "lora.targets": ["target_modules", "lora_target_modules"],
  model: ["base_model", "model_name", "model_name_or_path", "model_path"],
  "objective.clipHigh": ["epsilon_high", "clip_ratio_high"],
  "objective.clipLow": ["epsilon", "clip_ratio", "clip_ratio_low", "clip_range"],
  "objective.klCoef": ["beta", "kl_beta", "kl_loss_coef"],
  "objective.preset": ["loss_type", "adv_estimator"],
  "optimizer.learningRate": ["lr"],
  "optimizer.maxGradientNorm": ["max_grad_norm", "grad_clip", "clip_grad"],
  "optimizer.schedule": ["lr_scheduler", "lr_scheduler_type"],
  "optimizer.warmup": ["warmup_steps", "lr_warmup_steps"],
  output: ["output_dir", "default_local_dir"],
  "overlong.mode": ["mask_truncated_completions"],
  reward: ["reward_funcs", "reward_fn", "reward_function", "reward_model"],
  "rollout.count": ["num_generations", "group_size", "rollouts_per_example", "n", "rollout.n"],
  "rollout.maxTokens": ["max_completion_length", "max_response_length", "max_new_tokens"],
  "rollout.prompts": ["batch_size", "train_batch_size", "per_device_train_batch_size", "rollout_batch_size"],
  steps: ["max_steps", "total_training_steps", "train_steps", "num_train_epochs", "num_epochs", "total_epochs"],
  "update.epochs": ["num_iterations", "ppo_epochs"],
  "update.microbatchTokens": ["gradient_accumulation_steps", "ppo_max_token_len_per_gpu"],
  "update.minibatches": ["ppo_mini_batch_size", "steps_per_generation"],
  "update.recompute": ["gradient_checkpointing", "enable_gradient_checkpointing"],
};

const fold = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9.]/g, "");

const OURS: ReadonlyMap<string, string> = new Map(
  Object.entries(FOREIGN).flatMap(([ours, names]) => names.map((name) => [fold(name), ours] as const)),
);

/** Our name of a setting that others call so, at its place or by its own name; undefined: it is not known. */
export const ourName = (path: string): string | undefined =>
  OURS.get(fold(path)) ?? OURS.get(fold(path.slice(path.lastIndexOf(".") + 1)));
