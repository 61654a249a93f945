import { modelUnder } from "../policy/adapter-folder.js";
import { readModelFolder } from "../policy/model-folder.js";
import type { Policy } from "../policy/policy.js";
import { createPrivilegedBlock, privilegedPrompt } from "../prompt/privileged.js";
import type { Prompter } from "../prompt/prompter.js";
import { ALGORITHMS, asksTeacher, imitates, showsPrivileged } from "./algorithms.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import { type DiskPlan, planDisk } from "./disk.js";
import { checkComparable } from "./distillation.js";
import { memoryOf, shapeOf } from "./memory-plan.js";
import { quantiles } from "./metrics.js";
import { disposeMaterials, heldOutInTraining, type Materials, prepare } from "./prepare.js";
import { rowText } from "./privileged-text.js";
import { settleConfig } from "./resolve-model.js";
import type { Prompted } from "./rollout.js";
import { resolveSettings } from "./schema.js";
import { trainSchema } from "./settings.js";
import { extremes, mean } from "./statistics.js";
import { loadStudent, type ParameterCounts, parametersOf, policyLoader } from "./student.js";
import { type SuccessRule, successRule } from "./success.js";
import { toolName } from "./talk.js";
import { checkTeacher, type LoadPolicy } from "./teacher.js";
import { planTime, type TimePlan } from "./time-plan.js";
import { checkTraces, type TraceCheck } from "./trace-check.js";
import { type UnusedSettings, unusedSettings } from "./unused-settings.js";
import { learningRateOf } from "./update.js";

/** Of a list of lengths, in tokens. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly p95: number;
  readonly max: number;
}

/** What a run would be. Sizes are bytes, lengths tokens. */
export interface DryRun extends ParameterCounts {
  /** Every setting, defaults included; files and models as they were found. */
  readonly config: ResolvedConfig;
  /** Longest sequence of the model, prompt and completion together. */
  readonly maxLength: number;
  /** Rows that are used, and those that do not fit (`data.invalid: skip`), of data.train and data.eval together. */
  readonly rows: { readonly train: number; readonly eval: number; readonly leftOut: number };
  /** Held-out prompts that are training prompts as well, word for word. */
  readonly heldOutInTraining: number;
  /** Which column has what, of the first file of data.train and of data.eval; null: no file was read. */
  readonly columns: Materials["columns"];
  /** The first row, decoded from its ids: what the tokenizer lost is not in it. */
  readonly asked: {
    /** The prompt. */
    readonly student: string;
    /** What the teacher reads; null: it reads none. */
    readonly teacher: string | null;
    /** What the model learns to say; null: it learns from what it draws. */
    readonly demonstration: string | null;
    /** Turns that it learns before that one, each behind its own prompt; absent: there are none. */
    readonly earlier?: readonly string[];
  };
  /** Whether the model has a chat template; without, contents are read one after the other. */
  readonly chat: boolean;
  /** Tokens and texts that end a completion before its limit; null: the policy does not tell. */
  readonly endings: readonly string[] | null;
  /** The token with which the chat template ends a turn, where a completion goes on behind it; null: there is none. */
  readonly turnEnd: string | null;
  /** Who answers the model's turns; null: it has one. */
  readonly environment: {
    /** Names of what it may call. */
    readonly tools: readonly string[];
    /** Of the model, at most. */
    readonly turns: number;
  } | null;
  /** Of training prompts. */
  readonly promptTokens: Spread;
  /** Of traces that are learned; null: there are none. */
  readonly traceTokens: Spread | null;
  /** Completions, or traces, of one step. */
  readonly sequencesPerStep: number;
  /** Longest batch of a step: every completion at its full length, or every trace as long as the longest row. */
  readonly tokensPerStep: number;
  /**
   * Bytes of the largest step: `weights`, `gradient`, `optimizer`, `teacher`, `reference`, `keyValueCache`, `activations`. The last
   * two are absent where the policy does not tell.
   */
  readonly memory: Readonly<Record<string, number>>;
  /** What counts as right. */
  readonly success: SuccessRule;
  /** What the verifier says of the first rows' traces; null: it is not asked. */
  readonly judgedTraces: TraceCheck | null;
  /** Bytes of checkpoints, and what is free. */
  readonly disk: DiskPlan;
  /** What the training rows bring for the teacher; counts are 0 where no step asks for it. */
  readonly privileged: {
    /** Rows whose privileged text fits as it is. */
    readonly whole: number;
    /** Rows whose privileged text fits when its end is cut. */
    readonly cut: number;
    /** Rows where nothing of it fits. */
    readonly noRoom: number;
    /** Rows that have none. */
    readonly none: number;
    /** True: it is made from completions, so rows cannot be counted before. */
    readonly fromRollouts: boolean;
    /** Of the teacher's prompts; null: none is known. */
    readonly teacherPromptTokens: Spread | null;
    /** Places (file:line) of the first five rows that have none. */
    readonly firstWithout: readonly string[];
  };
  /** lambda and learning rate at the first step, at quarters of the run and at its end; steps count from 1. */
  readonly schedule: readonly { readonly step: number; readonly creditMix: number; readonly learningRate: number }[];
  /** How often the run goes through the training rows. */
  readonly passes: number;
  /** Settings that are not their defaults and that the run has no use for. */
  readonly unused: readonly UnusedSettings[];
  /** What the run takes on this machine, by a few tokens that were drawn; or why that is not known. */
  readonly time: TimePlan | { readonly unknown: string };
}

export function spread(values: readonly number[]): Spread {
  const [median, p95] = quantiles(Float64Array.from(values), [0.5, 0.95]);
  const { min, max } = extremes(values);
  return { min, median: median!, p95: p95!, max };
}

const learnedTokens = ({ imitations = [] }: Prompted): number =>
  imitations.reduce((n, { ids, mask }) => n + (mask?.filter((kept) => kept === 1) ?? ids).length, 0);

/** Turns as they are learned, decoded from their ids. */
function learned(
  { imitations = [] }: Prompted,
  prompter: Prompter,
): Pick<DryRun["asked"], "demonstration" | "earlier"> {
  const turns = imitations.flatMap(({ ids, mask }) => {
    const places = [...ids.keys()].filter((t) => mask?.[t] !== 0);
    // A turn begins where what is learned does not go on.
    const starts = places.flatMap((t, i) => (i > 0 && places[i - 1] === t - 1 ? [] : [i]));
    return starts.map((start, i) => prompter.decode(places.slice(start, starts[i + 1]).map((t) => ids[t]!)));
  });
  const earlier = turns.slice(0, -1);
  return { demonstration: turns.at(-1) ?? null, ...(earlier.length > 0 && { earlier }) };
}

/** What a step would show its teacher of each row. */
function privilegedRows(
  config: ResolvedConfig,
  materials: Materials,
  policy: Policy,
): { readonly privileged: DryRun["privileged"]; readonly asked: DryRun["asked"] } {
  const { source, maxTokens } = config.privileged;
  const fromRollouts = rowText(materials.train[0]!.example, source) === undefined;
  const block = createPrivilegedBlock(config.privileged.template);
  const counts = { whole: 0, cut: 0, noRoom: 0, none: 0 };
  const lengths: number[] = [];
  const firstWithout: string[] = [];
  const [first] = materials.train;
  let teacher: string | null = null;
  for (const prompt of fromRollouts || !showsPrivileged(config) ? [] : materials.train) {
    const text = rowText(prompt.example, source) ?? null;
    if (text === null || text === "") {
      counts.none++;
      if (firstWithout.length < 5) firstWithout.push(prompt.example.where);
      continue;
    }
    const { messages, tools, answer, row } = prompt.example;
    const limits = { budget: policy.maxLength - config.rollout.maxTokens, maxTokens };
    const made = privilegedPrompt(
      { messages, tools, privileged: text, answer, row },
      block,
      materials.prompter,
      limits,
    );
    if (made === undefined) counts.noRoom++;
    else {
      counts[made.truncated ? "cut" : "whole"]++;
      lengths.push(made.ids.length);
      if (prompt === first) teacher = materials.prompter.decode(made.ids);
    }
  }
  const teacherPromptTokens = lengths.length === 0 ? null : spread(lengths);
  return {
    privileged: { ...counts, fromRollouts, teacherPromptTokens, firstWithout },
    asked: { student: materials.prompter.decode(first!.ids), teacher, ...learned(first!, materials.prompter) },
  };
}

function environmentOf({ talk }: Materials): DryRun["environment"] {
  if (talk === undefined) return null;
  return { tools: talk.environment.tools.map(toolName), turns: talk.turns };
}

function endingsOf({ rollout }: ResolvedConfig, { tokenizer }: Materials, policy: Policy): string[] | null {
  const tokens = policy.endTokenIds?.map((id) => tokenizer.decode([id]) || `token ${id}`);
  // Two end tokens may read alike, and a stop string as one of them.
  return tokens === undefined ? null : [...new Set([...tokens, ...rollout.stopStrings])];
}

/** A character that no template writes. */
const MARK = "\ue000";

/** As those of base models, whose template is that of their siblings: `<|im_end|>`, but `<|endoftext|>` alone ends a completion. */
function turnEndOf({ tokenizer, prompter, train }: Materials, endings: readonly string[] | null): string | null {
  const { messages } = train[0]!.example;
  const said = { role: "assistant", content: MARK };
  const [, behind = ""] = (prompter.answered(messages, said) ?? "").split(MARK);
  const [first] = tokenizer.encode(behind.trimStart());
  if (endings === null || first === undefined || tokenizer.decode([first], { skipSpecialTokens: true }) !== "")
    return null;
  const text = tokenizer.decode([first]);
  return endings.includes(text) ? null : text;
}

/** Whether the teacher can be had, and be learned from, as far as that is seen without its weights. */
async function checkTaught(config: ResolvedConfig, policy: Policy, hook: LoadPolicy | undefined): Promise<void> {
  if (!asksTeacher(config)) return;
  checkTeacher(config.teacher, policy);
  checkComparable(config, policy);
  if (config.teacher.kind !== "external" || hook !== undefined) return;
  const { config: teacher } = await readModelFolder(await modelUnder(config.teacher.model));
  checkComparable(config, policy, teacher);
}

/** Loads and checks everything a run needs, and says what the run would be. Nothing is trained or written. */
export async function dryRun(
  settings: TrainConfig,
  hooks: { readonly loadPolicy?: LoadPolicy | undefined } = {},
): Promise<DryRun> {
  const config = await settleConfig(resolveConfig(settings));
  const policy = await loadStudent(config, undefined, policyLoader(config, hooks.loadPolicy));
  try {
    await checkTaught(config, policy, hooks.loadPolicy);
    const materials = await prepare(config, policy);
    const judgedTraces = await checkTraces(config, materials).finally(() => disposeMaterials(materials));
    const shape = shapeOf(config, materials);
    const endings = endingsOf(config, materials, policy);
    const algorithm = ALGORITHMS[config.algorithm];
    const promptLengths = materials.train.map((prompt) => prompt.ids.length);
    const told = privilegedRows(config, materials, policy);
    const marks = new Set([1, 0.25, 0.5, 0.75, 1].map((share, i) => (i === 0 ? 1 : Math.round(share * config.steps))));
    return {
      config,
      ...parametersOf(policy),
      maxLength: policy.maxLength,
      rows: {
        train: materials.train.length,
        eval: materials.eval.length,
        leftOut: materials.skipped.train + materials.skipped.eval,
      },
      heldOutInTraining: heldOutInTraining(materials),
      columns: materials.columns,
      chat: materials.prompter.chat,
      endings,
      turnEnd: turnEndOf(materials, endings),
      environment: environmentOf(materials),
      promptTokens: spread(promptLengths),
      traceTokens: imitates(config) ? spread(materials.train.map(learnedTokens)) : null,
      sequencesPerStep: shape.sequences,
      tokensPerStep: shape.tokens,
      success: successRule(config.reward, config.eval.successThreshold),
      judgedTraces,
      memory: await memoryOf(config, policy, shape),
      disk: await planDisk(config, policy, config.model),
      ...told,
      schedule: [...marks]
        .filter((step) => step >= 1)
        .map((step) => ({
          step,
          creditMix: algorithm.creditMix(config, step),
          learningRate: learningRateOf(step, config.steps, config.optimizer),
        })),
      passes: (config.steps * config.rollout.prompts) / materials.train.length,
      unused: unusedSettings(config, resolveSettings(trainSchema, {})),
      time: await planTime(config, policy, materials, {
        own: hooks.loadPolicy === undefined,
        teacher: told.privileged.teacherPromptTokens?.median ?? mean(promptLengths),
        traces: imitates(config) ? mean(materials.train.map(learnedTokens)) : 0,
      }),
    };
  } finally {
    await policy.dispose();
  }
}
