/** Every setting of a run: its type, default, range and meaning. */
import { ALL_TARGETS, LORA_TARGETS, MOST_RANK } from "../policy/lora.js";
import { MATMUL_TYPES } from "../policy/matmul-type.js";
import { LEAST_EPS } from "../policy/step-options.js";
import type { VerifyFunction } from "../verifiers/function.js";
import type { VerifierSpec } from "../verifiers/registry.js";
import type { Verifier } from "../verifiers/verifier.js";
import { ALGORITHM_NAMES, DIVERGENCES } from "./algorithms.js";
import type { ObjectiveSetting } from "./objective-fields.js";
import {
  anything,
  type Field,
  filledText,
  flag,
  integer,
  listOf,
  nullable,
  number,
  oneOf,
  open,
  text,
} from "./schema.js";
import type { EnvironmentSetting } from "./talk.js";

/** One of several rewards that are added up. */
export interface WeightedReward {
  /** As a single reward is given. */
  readonly verifier: VerifierSpec | VerifyFunction | Verifier;
  /** Default 1. */
  readonly weight?: number | undefined;
  /** Key in a sample's `detail`; default: the verifier's type. */
  readonly name?: string | undefined;
}

/** What judges a completion: a verifier by its name or spec, a function, a verifier of one's own, or several that are added up. */
export type RewardSetting = VerifierSpec | VerifyFunction | Verifier | readonly WeightedReward[];

/** Below, sampling is greedy but for rounding; above, it is uniform. */
const TEMPERATURES = { min: 0.01, max: 100 };

/** Column names; dots reach into objects. null: guessed from the rows. */
const fields = {
  messages: nullable(text("", ""), "column with a list of {role, content}"),
  prompt: nullable(text("", ""), "column with the question as text, or a list of {role, content}"),
  answer: nullable(text("", ""), "column with the right answer"),
  trace: nullable(text("", ""), "column with a full right solution"),
  document: nullable(text("", ""), "column with any other privileged text"),
  id: nullable(text("", ""), "column that names a row"),
  tools: nullable(text("", ""), "column with a list of the tools that the model may call"),
};

/** docs/training.md prints this table, and the declarations in dist have its words for editors (scripts/document-settings.mjs). */
export const trainSchema = {
  model: text(
    "",
    "folder with config.json, model.safetensors and tokenizer.json, or of adapters on one; a run or checkpoint; or a name in Hugging Face's cache",
  ),
  output: text("", "run folder; empty: a new one under runs/"),
  algorithm: oneOf(ALGORITHM_NAMES, "rlsd", "how the update is made"),
  seed: integer(1, "of prompts, rollouts and intervals"),
  steps: integer(100, "updates of the policy", { min: 0 }),
  matmulType: oneOf(MATMUL_TYPES, "f32", "of the factors of matrix products; bf16: faster where `rlsd doctor` says so"),
  maxLength: nullable(
    integer(1, "", { min: 1 }),
    "longest sequence, prompt and completion; null: the model's, or before a scaling by longrope",
  ),
  data: {
    train: listOf(
      text("", ""),
      [],
      "JSONL, JSON, CSV, TSV or Parquet files, folders of them, or patterns such as shards/*.jsonl.gz",
    ),
    eval: listOf(text("", ""), [], "held-out files of the same kind; empty: no evaluation"),
    fields,
    system: nullable(text("", ""), "system message put before every prompt that has none"),
    templateVariables: open<Readonly<Record<string, unknown>>>(
      "more variables for the chat template, such as enable_thinking",
    ),
    invalid: oneOf(
      ["error", "skip"],
      "error",
      "what to do with rows that do not fit: stop before training, or leave out",
    ),
    shuffle: flag(true, "a new order in every pass over the data"),
  },
  rollout: {
    prompts: integer(8, "prompts a step", { min: 1 }),
    count: integer(8, "completions of each prompt (the group); 1 only where no verdict is learned from", { min: 1 }),
    temperature: number(1, "of sampling, and of every log-prob in the loss", TEMPERATURES),
    topK: integer(0, "0: off", { min: 0, max: 0x7fffffff }),
    topP: number(1, "1: off", { above: 0, max: 1 }),
    minP: number(0, "0: off", { min: 0, max: 1 }),
    maxTokens: integer(
      256,
      "new tokens of a completion at most; of a conversation, what is read between turns included",
      {
        min: 1,
      },
    ),
    turns: integer(8, "environment: turns of the model in a conversation at most", { min: 1 }),
    stopStrings: listOf(filledText(), [], "texts that end a completion, or a turn"),
  },
  environment: anything<EnvironmentSetting | null>(
    null,
    "null, {type: tools or module, path, ...options}, or a function",
    "what answers the model's turns; null: it has one",
  ),
  reward: anything<RewardSetting>(
    "numeric",
    "a verifier's name, its {type, ...options}, or a list of {verifier, weight}",
    "what judges a completion",
  ),
  overlong: {
    mode: oneOf(
      ["keep", "mask", "penalty"],
      "keep",
      "completions cut at maxTokens: kept, left out of the loss, or fined",
    ),
    buffer: integer(0, "penalty: the last tokens before maxTokens over which the fine grows from 0 to full"),
    penalty: number(1, "penalty: the full fine", { min: 0 }),
  },
  groups: {
    zeroVariance: oneOf(
      ["keep", "drop", "resample"],
      "keep",
      "groups whose rewards are all equal: kept in the normaliser, left out, or replaced",
    ),
    maxResamples: integer(3, "resample: further draws a step at most", { min: 1 }),
  },
  advantage: {
    baseline: oneOf(["mean", "leave-one-out"], "mean", "what a reward is compared with"),
    scale: oneOf(["group", "batch", "none"], "group", "standard deviation that it is divided by"),
    eps: number(1e-6, "added to the standard deviation", { min: 0 }),
    ddof: integer(1, "delta degrees of freedom of the standard deviation", { min: 0, max: 1 }) as Field<0 | 1>,
  },
  objective: open<ObjectiveSetting>("fields of the objective (README.md), and `preset`: the objective they change"),
  creditSchedule: {
    warmup: integer(0, "steps over which creditMix rises to its peak"),
    hold: integer(0, "steps at the peak"),
    decay: integer(0, "steps down to 0; 0: never"),
    stepBase: integer(1, "number of the first step: 1 official code, 0 ms-swift", { min: 0, max: 1 }),
  },
  lora: {
    rank: integer(0, "of low-rank adapters, which are trained in the place of the weights; 0: the weights are", {
      min: 0,
      max: MOST_RANK,
    }),
    alpha: nullable(number(1, "", { min: 1e-6 }), "adapters are scaled by alpha / rank; null: 2 rank"),
    rankStabilized: flag(false, "scaled by alpha / sqrt(rank) instead"),
    targets: listOf(
      oneOf(ALL_TARGETS, "q_proj", ""),
      LORA_TARGETS,
      "matrices of each layer that have one; in a phi3 qkv_proj holds the first three, gate_up_proj those of its name",
    ),
  },
  teacher: {
    kind: oneOf(
      ["frozen", "shared", "periodic", "ema", "base", "external"],
      "frozen",
      "whose weights the teacher has; base: the model without its adapters",
    ),
    every: integer(10, "periodic: copied from the student after every so many updates", { min: 1 }),
    rate: number(0.99, "ema: share of its own weights that it keeps in an update", { min: 0, max: 1 }),
    model: text("", "external: folder of the model, a run or checkpoint"),
  },
  privileged: {
    source: oneOf(
      ["auto", "answer", "trace", "document", "feedback", "sibling", "sibling+feedback", "none"],
      "auto",
      "what the teacher sees; auto: document, else trace, else answer (sdpo: sibling+feedback)",
    ),
    template: text(
      "{{ content }}\n\nA verified reference, for you alone:\n{{ privileged }}\n\nSolve the task in your own words and in the usual format.",
      "Jinja; what the last user message becomes: content, privileged, answer, row, messages",
    ),
    maxTokens: integer(4096, "privileged text is cut to this, and further where the model's length asks for it", {
      min: 1,
    }),
    contrast: flag(false, "a second teacher sees the group's worst rejected completion; evidence is the difference"),
    successThreshold: nullable(
      number(1, ""),
      "sibling, sibling+feedback, contrast: rewards from here on are successes; null: 1, and of several parts that which judges the answer gives it",
    ),
  },
  distill: {
    divergence: oneOf(
      DIVERGENCES,
      "jsd",
      "opsd, sdpo, grpo+opsd, opd: of the student's distribution from the teacher's; sampled: of drawn tokens alone, as their advantages",
    ),
    beta: number(0.5, "jsd: share of the teacher in the mixture", { above: 0, below: 1 }),
    topK: integer(0, "compare the teacher's k likeliest tokens alone; 0: the whole vocabulary", {
      min: 0,
      max: 0x7fffffff,
    }),
    tail: flag(true, "topK: one more bucket holds the rest of the mass"),
    valueClamp: nullable(
      number(10, "", { above: 0 }),
      "bound of a token's value; null: 10 with topK or sampled, else none",
    ),
    weight: number(1, "grpo+opsd: of the divergence in the loss", { min: 0 }),
  },
  span: {
    open: text("", "credit and distillation only inside this tag's text, such as <think>; empty: everywhere"),
    close: text("", "the tag that ends it"),
  },
  sft: {
    turns: oneOf(
      ["last", "all"],
      "last",
      "turns of the assistant that algorithm sft learns of a conversation: the trace, or the earlier ones too",
    ),
  },
  optimizer: {
    learningRate: number(1e-6, "AdamW", { min: 0 }),
    schedule: oneOf(["constant", "linear", "cosine"], "constant", "after the warm-up"),
    warmup: integer(0, "steps from 0 to learningRate"),
    minRatio: number(0, "learning rate at the end, as a share", { min: 0, max: 1 }),
    weightDecay: number(0, "decoupled", { min: 0 }),
    betas: listOf(number(0, "", { min: 0, below: 1 }), [0.9, 0.95], "of the moments"),
    eps: number(1e-8, "of AdamW", { min: LEAST_EPS }),
    maxGradientNorm: nullable(number(1, "", { min: 1e-12 }), "gradients are scaled down to this norm; null: off", 1),
  },
  update: {
    recompute: flag(
      false,
      "keep each layer's input alone and compute it again: less memory, up to a third more time, the same bits",
    ),
    epochs: integer(1, "passes over the rollouts of a step", { min: 1 }),
    minibatches: integer(1, "updates a pass", { min: 1 }),
    microbatchTokens: integer(
      16384,
      "tokens of one forward and backward, a prompt counted once for its completions; less where the policy holds less",
      { min: 1 },
    ),
  },
  eval: {
    every: integer(20, "steps; 0: only at the end"),
    atStart: flag(true, "before the first update"),
    limit: integer(0, "rows at most; 0: all"),
    samples: integer(0, "completions a row for avg@k and pass@k; 0: greedy only"),
    temperature: number(1, "of those", TEMPERATURES),
    passAt: listOf(integer(1, "", { min: 1 }), [1], "the k of pass@k, each at most `samples`"),
    successThreshold: nullable(
      number(1, ""),
      "rewards from here on are right; null: 1, and of several parts that which judges the answer gives it",
    ),
  },
  stop: {
    patience: integer(0, "evaluations without a better result before the run ends; 0: never"),
    minDelta: number(0, "what counts as better", { min: 0 }),
    target: nullable(number(0, "", { min: 0, max: 1 }), "accuracy that ends the run"),
  },
  checkpoint: {
    every: integer(20, "steps; 0: only at the end"),
    keep: integer(2, "latest checkpoints kept, besides the best", { min: 1 }),
  },
  log: {
    samples: integer(
      8,
      "completions a step written to samples.jsonl, the first of the batch; of algorithm sft an evaluation, of the first held-out rows",
    ),
  },
  leak: {
    patterns: listOf(
      text("", ""),
      ["reference", "according to the (hint|solution|answer)", "given answer"],
      "regular expressions, case ignored; a completion that matches one leaks the privileged text",
    ),
  },
};
