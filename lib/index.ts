/// <reference lib="esnext.disposable" preserve="true" />
export { type ReportOptions, type RunReport, reportRun } from "./cli/report-run.js";
export type {
  Answer,
  CheckedReply,
  Environment,
  EnvironmentFault,
  EnvironmentFunction,
  Reply,
  Turn,
} from "./environments/environment.js";
export { createEnvironment, type EnvironmentSpec } from "./environments/registry.js";
export type { ToolContext, ToolFunction, Tools } from "./environments/tools.js";
export { RlsdError } from "./errors.js";
export type { DeviceDescription } from "./native/device-binding.js";
export type { DistillLossOptions } from "./objectives/distill-options.js";
export type {
  ImportanceCorrection,
  KlEstimator,
  Objective,
  ObjectiveFields,
  Reduction,
  Surrogate,
} from "./objectives/objective.js";
export {
  bnpo,
  cispo,
  dapo,
  drGrpo,
  gmpo,
  grpo,
  gspo,
  luspo,
  type ObjectiveOptions,
  rlsd,
  rowCoefficient,
  sapo,
} from "./objectives/presets.js";
export { type AdvantageOptions, type GroupSummary, groupAdvantages, summarizeGroups } from "./ops/advantages.js";
export { type BackendInfo, backendInfo } from "./ops/backend-info.js";
export type { PolicyBatch } from "./ops/batch.js";
export type { Call, DeviceCall, DevicePolicyOut, PolicyOut } from "./ops/call.js";
export { type CreditInput, type CreditOptions, type CreditResult, type CreditStats, rlsdCredit } from "./ops/credit.js";
export {
  type DistillLossBatch,
  type DistillLossCall,
  type DistillLossGradient,
  type DistillLossResult,
  type DistillLossStats,
  distillLoss,
  distillLossSync,
} from "./ops/distill-loss.js";
export { type PackedTokens, packTokens } from "./ops/pack.js";
export { policyLoss, policyLossSync } from "./ops/policy-loss.js";
export { type CreditSchedule, creditMixAt } from "./ops/schedule.js";
export type { DistributionScores, Scores } from "./ops/scores.js";
export { tokenLogProbs, tokenLogProbsSync } from "./ops/token-log-probs.js";
export type {
  DeviceTokenLogProbs,
  DeviceTokenLogProbsOptions,
  TokenLogProbs,
  TokenLogProbsOptions,
} from "./ops/token-log-probs-options.js";
export type { ModelType } from "./policy/architecture.js";
export type { CachedDraw } from "./policy/cache-bytes.js";
export type { ModelConfig, Multipliers } from "./policy/config.js";
export { EnginePolicy } from "./policy/engine-policy.js";
export type { GgufSaveOptions, GgufSummary } from "./policy/gguf/save.js";
export type { GgufDType } from "./policy/gguf/tensors.js";
export {
  type CreateOptions,
  createPolicy,
  loadPolicy,
  type PolicyOptions,
} from "./policy/load.js";
export type { LoraConfig, LoraOptions, LoraTarget } from "./policy/lora.js";
export type { NewModelConfig } from "./policy/new-config.js";
export type {
  Completion,
  DistillBatch,
  DistillOptions,
  DistillResult,
  DistillStats,
  PassOptions,
  Policy,
  SamplingOptions,
  ScoreOptions,
  ScoreRequest,
  StepOptions,
  StepResult,
  TrainBatch,
} from "./policy/policy.js";
export type { PrefixUse } from "./policy/prefixes.js";
export type { RopeConfig } from "./policy/rope.js";
export type { SaveOptions } from "./policy/save.js";
export { type LearningRateSchedule, learningRateAt } from "./policy/schedule.js";
export { createTokenizer, loadTokenizer, type Tokenizer } from "./policy/tokenizer.js";
export type { SlidingWindow } from "./policy/window.js";
export {
  type ChatTemplate,
  createChatTemplate,
  loadChatTemplate,
  type RenderOptions,
} from "./prompt/chat-template.js";
export type { ChatMessage, Tool, ToolCall } from "./prompt/messages.js";
export { type TensorBoardHooks, tensorBoard } from "./report/tensorboard.js";
export { toDType } from "./tensor/convert.js";
export { createStream } from "./tensor/device.js";
export type { DType } from "./tensor/dtype.js";
export type { DevicePolicyResult, PolicyGradient, PolicyResult, Stats } from "./tensor/results.js";
export type { Stream } from "./tensor/stream.js";
export { empty, type Tensor, tensor } from "./tensor/tensor.js";
export { toDevice, toDeviceAsync, toHost, toHostAsync } from "./tensor/transfer.js";
export type { ResolvedConfig, TrainConfig } from "./trainer/config.js";
export { type CreditHooks, type CreditSettings, creditCompletions } from "./trainer/credit-run.js";
export type { DiskPlan } from "./trainer/disk.js";
export { type DryRun, dryRun } from "./trainer/dry-run.js";
export { type EvalHooks, type EvalStart, type EvalSummary, evaluateModel } from "./trainer/eval-run.js";
export { exampleSettings } from "./trainer/example/config.js";
export { type ExportOptions, type ExportSummary, exportModel } from "./trainer/export-model.js";
export type { MetricsLine } from "./trainer/metrics-line.js";
export type { ObjectiveSetting } from "./trainer/objective-fields.js";
export type { Prediction } from "./trainer/predict.js";
export type { PrivilegedFunction, PrivilegedInput } from "./trainer/privileged-text.js";
export { type RunConfig, readRunConfig, type SampleLine } from "./trainer/run-folder.js";
export { readMetrics, readSamples } from "./trainer/run-logs.js";
export type { RewardSetting, WeightedReward } from "./trainer/settings.js";
export type { Stage } from "./trainer/stage.js";
export type { EnvironmentSetting } from "./trainer/talk.js";
export type { LoadPolicy } from "./trainer/teacher.js";
export type { TimePlan } from "./trainer/time-plan.js";
export { train } from "./trainer/train.js";
export type { RunStart, TrainHooks, TrainSummary } from "./trainer/train-hooks.js";
export type { UnusedSettings } from "./trainer/unused-settings.js";
export { gated, type Part, switched, weightedSum } from "./verifiers/combine.js";
export type { Judgement, VerifyFunction } from "./verifiers/function.js";
export type { HarnessStats } from "./verifiers/harness-options.js";
export { createVerifier, listVerifiers, type VerifierSpec, type WorkerVerifier } from "./verifiers/registry.js";
export type { MadeVerifier, Message, Sample, Verdict, Verifier } from "./verifiers/verifier.js";
