import type { DistillLossOptions } from "../objectives/distill-options.js";
import type { Objective } from "../objectives/objective.js";
import type { DType } from "../tensor/dtype.js";
import type { PolicyResult } from "../tensor/results.js";
import type { CachedDraw } from "./cache-bytes.js";
import type { LoraConfig, LoraOptions } from "./lora.js";

/** How tokens are drawn. Truncation (`topK`, `topP`, `minP`) changes what is drawn, never the log-probs reported. */
export interface SamplingOptions {
  /** Default 1. 0 is greedy: the largest logit, the smallest id on a tie, log-probs at temperature 1. */
  readonly temperature?: number | undefined;
  /** 0 (default): off. */
  readonly topK?: number | undefined;
  /** 1 (default): off. */
  readonly topP?: number | undefined;
  /** 0 (default): off. */
  readonly minP?: number | undefined;
  /** New tokens of a completion at most: one number for all, or one a prompt. */
  readonly maxTokens: number | readonly number[];
  /** Ids that end a completion (kept as its last token). Default: the model's end tokens. */
  readonly stopTokenIds?: readonly number[] | undefined;
  /** Texts that end a completion once they appear in what is decoded. */
  readonly stopStrings?: readonly string[] | undefined;
  /**
   * One number: completion j of prompt i draws from the stream (seed, i * count + j). One a prompt: from (seed of prompt i, j), so that
   * it is drawn alike whatever prompts share the call. No batch size or thread count matters.
   */
  readonly seed: number | readonly number[];
  /** Completions of each prompt; the prompt is computed once. Default 1. */
  readonly count?: number | undefined;
  /** Stops between tokens; the call rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called with each new token, in the order they are drawn. */
  readonly onToken?: ((prompt: number, completion: number, tokenId: number, logProb: number) => void) | undefined;
  /** Called with each completion once it is whole, in any order, while others are still drawn; by a policy that can. */
  readonly onCompletion?: ((prompt: number, completion: number, drawn: Completion) => void) | undefined;
}

/** What was drawn after a prompt. */
export interface Completion {
  /** An end token is the last of them. */
  readonly tokenIds: Int32Array;
  /** Log-probs of the tokens at `temperature`, from the untruncated distribution. Same length as tokenIds. */
  readonly logProbs: Float32Array;
  /** "stop": by a token or text that ends it. "length": by maxTokens or the model's longest sequence. */
  readonly finish: "stop" | "length";
}

/** One sequence: the tokens of `completion` are scored after `prompt`. */
export interface ScoreRequest {
  /** Token ids, at least one. */
  readonly prompt: Int32Array;
  /** Token ids, possibly none. */
  readonly completion: Int32Array;
}

/** How `Policy.score` scores. */
export interface ScoreOptions {
  /** Default 1. */
  readonly temperature?: number | undefined;
  /** Stops between operations; the call rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Of a pass that adds to the gradient. */
export interface PassOptions {
  /** Multiplies the gradient, not the loss. Default 1. */
  readonly lossScale?: number | undefined;
  /** Stops between operations; the call rejects with its reason, and the gradient that was added up is 0. */
  readonly signal?: AbortSignal | undefined;
}

/** Token batch for one gradient: `sequences[b]` gives rows cuSeqlens[b]..cuSeqlens[b+1] of every (N) array. */
export interface TrainBatch {
  /** B sequences; N is the sum of their completions' lengths. */
  readonly sequences: readonly ScoreRequest[];
  /** (N) of 0 and 1; default all 1. A masked token has no loss and no gradient. */
  readonly completionMask?: Uint8Array | undefined;
  /** (B) or (N) */
  readonly advantages: Float32Array;
  /** (N) of the same tokens, re-read under privileged information. */
  readonly teacherLogProbs?: Float32Array | undefined;
  /** (N) under a wrong hint: evidence is measured against it instead of the policy. */
  readonly contrastLogProbs?: Float32Array | undefined;
  /** (N) when the update began. Absent: on-policy, ratio 1. */
  readonly oldLogProbs?: Float32Array | undefined;
  /** (N) of the KL reference. Needed when klCoef > 0. */
  readonly refLogProbs?: Float32Array | undefined;
  /** (N) as the sampling engine reported them: importance correction. */
  readonly samplerLogProbs?: Float32Array | undefined;
  /** (N) of 0 and 1: credit only where 1. */
  readonly spanMask?: Uint8Array | undefined;
}

/** How a student's distributions are compared with a teacher's; the fields of distillLoss. */
export type DistillOptions = DistillLossOptions;

/** The same completions after the student's prompts and after the teacher's. */
export interface DistillBatch {
  /** B sequences; N is the sum of their completions' lengths. */
  readonly sequences: readonly ScoreRequest[];
  /** A policy with the same vocabulary, or this one, as it is now; what it says as the teacher gets no gradient. */
  readonly teacher: Policy;
  /** (B): the same completions after the teacher's prompts. */
  readonly teacherSequences: readonly ScoreRequest[];
  /** (N) of 0 and 1; default all 1. */
  readonly completionMask?: Uint8Array | undefined;
}

/** Statistics of one `Policy.distill`. */
export interface DistillStats {
  /** Unmasked tokens. */
  readonly tokens: number;
  /** B, empty ones included. */
  readonly sequences: number;
  /** As `DistillResult.loss`. */
  readonly loss: number;
  /** Mean divergence of a token, in nats. */
  readonly mean: number;
  /** Unmasked rows that were left out: a logit that is not finite, or an infinite divergence. */
  readonly nonFiniteRows: number;
  /** Fraction of rows whose value the clamp changed. */
  readonly clampedFraction: number;
}

/** What `Policy.distill` returns; the gradient stays in the policy. */
export interface DistillResult {
  /** The reduced divergence, in nats; not multiplied by lossScale. */
  readonly loss: number;
  /** (N): each token's divergence; 0 where masked. */
  readonly tokenLosses: Float32Array;
  /** Of the whole batch. */
  readonly stats: DistillStats;
}

/** One AdamW update (arXiv 1711.05101): w -= learningRate (m / (sqrt(v) + eps) + weightDecay w), moments without their bias. */
export interface StepOptions {
  /** At least 0; 0 moves the moments alone. */
  readonly learningRate: number;
  /** Decoupled; not applied to norms and biases. Default 0. */
  readonly weightDecay?: number | undefined;
  /** Default [0.9, 0.95]. */
  readonly betas?: readonly [number, number] | undefined;
  /** Default 1e-8; at least 2^-126, the least normal float32. */
  readonly eps?: number | undefined;
  /** Global gradient norm is clipped to this. Default 1; Infinity: off. */
  readonly maxGradientNorm?: number | undefined;
}

/** What `Policy.step` did. */
export interface StepResult {
  /** Global L2 norm, before clipping. */
  readonly gradientNorm: number;
  /** True when the norm was not finite: the weights were left as they were. */
  readonly skipped: boolean;
}

/**
 * What a trainer needs of a language model. Nothing here blocks the event loop; calls on one policy run first in,
 * first out. Every error is an RlsdError.
 */
export interface Policy {
  /** V: ids are below it. */
  readonly vocabSize: number;
  /** Longest sequence, prompt and completion together. */
  readonly maxLength: number;
  /** Of the model and its adapters. */
  readonly parameterCount: number;
  /** Of them, those that `step` changes. Absent: all. */
  readonly trainedParameterCount?: number | undefined;
  /** The adapters that are trained in the place of the weights. Absent: it has none. */
  readonly lora?: LoraConfig | undefined;
  /**
   * Input tokens that one forward and backward pass holds, what neighbouring sequences have in common counted once. A
   * longer batch costs a second forward. Absent: any number.
   */
  readonly batchTokens?: number | undefined;
  /** Sequences that are drawn at once, each with its keys and values. Absent: all. */
  readonly maxSequences?: number | undefined;
  /** Ids that end a completion. Absent: not known. */
  readonly endTokenIds?: readonly number[] | undefined;
  /** `count` completions of each prompt: result[i][j] is completion j of prompt i. A prompt has at least one token. */
  generate(prompts: readonly Int32Array[], options: SamplingOptions): Promise<Completion[][]>;
  /**
   * From then on `generate` keeps the keys and values of what it drew, up to `maxBytes` of them (default: those of one
   * sequence of the longest length; 0: none), and does not compute again what a later prompt begins with alike. What was
   * not used for longest goes first, all of it when the policy trains or its weights change, and any of it where another
   * call needs the memory. The same tokens and log-probs come out. Absent: it cannot.
   */
  keepPrefixes?(maxBytes?: number): Promise<void>;
  /** Log-probs of each completion's tokens at `temperature` (default 1); independent of the batch around it. */
  score(requests: readonly ScoreRequest[], o?: ScoreOptions): Promise<Float32Array[]>;
  /** Forward, fused loss and backward in one native call; gradients are added up until `step`. */
  accumulate(batch: TrainBatch, objective: Objective, o?: PassOptions): Promise<PolicyResult>;
  /** As accumulate, for a loss that matches a teacher's distributions; the two add up. Absent: it cannot. */
  distill?(batch: DistillBatch, options: DistillOptions, o?: PassOptions): Promise<DistillResult>;
  /** One AdamW update from the accumulated gradient, which it clears. */
  step(options: StepOptions): Promise<StepResult>;
  /** A copy of the weights alone: no gradient, no optimizer state. */
  snapshot(): Promise<Policy>;
  /**
   * The type in which its weights, those under its adapters, lie in memory; it has each of them exactly. That of the files
   * they came from, until they are trained or overwritten. Absent: f32.
   */
  heldType?(): Promise<DType>;
  /** Bytes of activations that one pass over `tokens` tokens needs; `gradients`: for training. Absent: not known. */
  activationBytes?(tokens: number, gradients: boolean): number;
  /**
   * Bytes of keys and values while `generate` draws, where every completion has its full length and prompts have nothing in
   * common. Absent: not known.
   */
  cacheBytes?(draw: CachedDraw): number;
  /** Overwrite the weights: other * (1 - rate) + own * rate with rate 0 by default. Of adapters: those on the same weights. */
  copyFrom(other: Policy, rate?: number): Promise<void>;
  /**
   * A policy of the same weights with adapters on them, which alone it trains. The weights are shared, not copied: nobody
   * may change them until one of the two is disposed of. Absent: it cannot.
   */
  withLora?(options?: LoraOptions): Promise<Policy>;
  /** A policy of the same weights with the adapters of a folder of the PEFT library, in the place of its own. Absent: it cannot. */
  withAdapters?(directory: string): Promise<Policy>;
  /** The policy without its adapters; it reads the same weights. */
  base?(): Promise<Policy>;
  /** A copy of its own weights, its adapters added to them. */
  merge?(): Promise<Policy>;
  /**
   * Weights (`model.safetensors`, `config.json`, tokenizer files) and, with `optimizer`, its state. Written aside, flushed,
   * renamed. A policy with adapters writes these alone (`adapter_model.safetensors`, `adapter_config.json`).
   */
  save(directory: string, o?: { optimizer?: boolean | undefined; dtype?: DType | undefined }): Promise<void>;
  /** AdamW's moments and count of updates, as `save` with `optimizer` left them there. */
  loadOptimizer(directory: string): Promise<void>;
  /** Gives the memory back once the calls that were made before have ended. Twice is once. */
  dispose(): Promise<void>;
}
