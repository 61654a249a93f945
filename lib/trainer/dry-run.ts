import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { modelUnder } from "../policy/adapter-folder.js";
import { readModelFolder } from "../policy/model-folder.js";
import type { Policy } from "../policy/policy.js";
import { createPrivilegedBlock, privilegedPrompt } from "../prompt/privileged.js";
import { ALGORITHMS, asksTeacher } from "./algorithms.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import type { FieldMap } from "./data/fields.js";
import { rowText } from "./evidence.js";
import { quantiles } from "./metrics.js";
import { heldOutInTraining, heldOutText, type Materials, prepare } from "./prepare.js";
import { extremes } from "./statistics.js";
import { loadStudent, type ParameterCounts, parametersOf, parametersText, policyLoader } from "./student.js";
import { checkTeacher, type LoadPolicy } from "./teacher.js";
import { learningRateOf } from "./update.js";

interface Spread {
  readonly min: number;
  readonly median: number;
  readonly p95: number;
  readonly max: number;
}

/** What a run would be. Sizes are bytes, lengths tokens. */
export interface DryRun extends ParameterCounts {
  readonly config: ResolvedConfig;
  readonly maxLength: number;
  readonly rows: { readonly train: number; readonly eval: number; readonly leftOut: number };
  /** Held-out prompts that are training prompts as well, word for word. */
  readonly heldOutInTraining: number;
  readonly columns: Materials["columns"];
  /** The first row as the model reads it, decoded from its ids: what the tokenizer lost is not in it; and as its teacher does, null where it reads none. */
  readonly asked: { readonly student: string; readonly teacher: string | null };
  /** Tokens and texts that end a completion before its limit; null: the policy does not tell. */
  readonly endings: readonly string[] | null;
  readonly promptTokens: Spread;
  readonly sequencesPerStep: number;
  /** Longest batch of a step: every completion at its full length. */
  readonly tokensPerStep: number;
  readonly memory: Readonly<Record<string, number>>;
  readonly privileged: {
    /** Rows with privileged text that fits, fits only cut, does not fit at all, and rows that have none. */
    readonly whole: number;
    readonly cut: number;
    readonly noRoom: number;
    readonly none: number;
    /** True: it is made from completions, so rows cannot be counted before. */
    readonly fromRollouts: boolean;
    readonly teacherPromptTokens: Spread | null;
    readonly firstWithout: readonly string[];
  };
  readonly schedule: readonly { readonly step: number; readonly creditMix: number; readonly learningRate: number }[];
  readonly passes: number;
}

export function spread(values: readonly number[]): Spread {
  const [median, p95] = quantiles(Float64Array.from(values), [0.5, 0.95]);
  const { min, max } = extremes(values);
  return { min, median: median!, p95: p95!, max };
}

/** Bytes of one token in the key and value cache, from the model's own configuration. */
async function cacheBytesPerToken(model: string): Promise<number> {
  const file = join(await modelUnder(model), "config.json");
  const json = JSON.parse(await readFile(file, "utf8")) as Record<string, number | undefined>;
  const heads = json.num_attention_heads ?? 1;
  const headDim = json.head_dim ?? (json.hidden_size ?? 0) / heads;
  return 2 * (json.num_hidden_layers ?? 0) * (json.num_key_value_heads ?? heads) * headDim * 4;
}

async function memoryOf(config: ResolvedConfig, policy: Policy, longest: number): Promise<Record<string, number>> {
  const counts = parametersOf(policy);
  const trained = 4 * counts.trained;
  const under = counts.parameters - counts.trained;
  const width = ((await policy.heldType?.()) ?? "f32") === "f32" ? 4 : 2;
  // Of a model that is not trained; of one that is, what is copied before the first update.
  const [model, copy] = under > 0 ? [width * under, trained] : [width * counts.parameters, width * counts.parameters];
  const { kind } = config.teacher;
  const algorithm = ALGORITHMS[config.algorithm]!;
  const { prompts, count } = config.rollout;
  const sequences = Math.min(prompts * count, policy.maxSequences ?? Number.POSITIVE_INFINITY);
  return {
    weights: under > 0 ? model + trained : trained,
    gradient: trained,
    optimizer: 2 * trained,
    teacher: asksTeacher(config)
      ? { shared: 0, base: 0, external: model, frozen: copy, periodic: trained, ema: trained }[kind]
      : 0,
    reference: algorithm.objective(config).klCoef > 0 ? copy : 0,
    keyValueCache: sequences * (longest + config.rollout.maxTokens) * (await cacheBytesPerToken(config.model)),
    ...activationsOf(config, policy, longest),
  };
}

/** A chunk of logits, of a vocabulary of any size (docs/engine.md, "Memory"). */
const LOGIT_BYTES = 2 ** 26;

/** What the largest pass of an update keeps for its way back; nothing where the policy cannot tell. */
function activationsOf(config: ResolvedConfig, policy: Policy, longest: number): { activations?: number } {
  if (policy.activationBytes === undefined) return {};
  const { prompts, count, maxTokens } = config.rollout;
  const step = prompts * (longest + count * maxTokens);
  const pass = Math.min(step, config.update.microbatchTokens, policy.batchTokens ?? step);
  const tokens = Math.max(pass, longest + maxTokens);
  const logits = Math.min(LOGIT_BYTES, 4 * tokens * policy.vocabSize);
  return { activations: policy.activationBytes(tokens, true) + logits };
}

/** What a step would show its teacher of each row. */
function privilegedRows(
  config: ResolvedConfig,
  materials: Materials,
  policy: Policy,
): { readonly privileged: DryRun["privileged"]; readonly asked: DryRun["asked"] } {
  const { source, maxTokens } = config.privileged;
  const fromRollouts = source === "feedback" || source === "sibling";
  const block = createPrivilegedBlock(config.privileged.template);
  const counts = { whole: 0, cut: 0, noRoom: 0, none: 0 };
  const lengths: number[] = [];
  const firstWithout: string[] = [];
  const [first] = materials.train;
  let teacher: string | null = null;
  for (const prompt of fromRollouts || !asksTeacher(config) ? [] : materials.train) {
    const text = rowText(prompt.example, source) ?? null;
    if (text === null || text === "") {
      counts.none++;
      if (firstWithout.length < 5) firstWithout.push(prompt.example.where);
      continue;
    }
    const { messages, answer, row } = prompt.example;
    const limits = { budget: policy.maxLength - config.rollout.maxTokens, maxTokens };
    const made = privilegedPrompt({ messages, privileged: text, answer, row }, block, materials.prompter, limits);
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
    asked: { student: materials.prompter.decode(first!.ids), teacher },
  };
}

function endingsOf({ rollout }: ResolvedConfig, { tokenizer }: Materials, policy: Policy): string[] | null {
  const tokens = policy.endTokenIds?.map((id) => tokenizer.decode([id]) || `token ${id}`);
  return tokens === undefined ? null : [...tokens, ...rollout.stopStrings];
}

/** Loads and checks everything a run needs, and says what the run would be. Nothing is trained or written. */
export async function dryRun(
  settings: TrainConfig,
  hooks: { readonly loadPolicy?: LoadPolicy | undefined } = {},
): Promise<DryRun> {
  const config = resolveConfig(settings);
  const policy = await loadStudent(config, undefined, policyLoader(config, hooks.loadPolicy));
  try {
    if (asksTeacher(config)) checkTeacher(config.teacher, policy);
    if (asksTeacher(config) && config.teacher.kind === "external" && hooks.loadPolicy === undefined) {
      await readModelFolder(await modelUnder(config.teacher.model));
    }
    const materials = await prepare(config, policy);
    await materials.verifier.dispose?.();
    const promptTokens = spread(materials.train.map((prompt) => prompt.ids.length));
    const { prompts, count, maxTokens } = config.rollout;
    const algorithm = ALGORITHMS[config.algorithm]!;
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
      endings: endingsOf(config, materials, policy),
      promptTokens,
      sequencesPerStep: prompts * count,
      tokensPerStep: prompts * count * (promptTokens.max + maxTokens),
      memory: await memoryOf(config, policy, promptTokens.max),
      ...privilegedRows(config, materials, policy),
      schedule: [...marks]
        .filter((step) => step >= 1)
        .map((step) => ({
          step,
          creditMix: algorithm.creditMix(config, step),
          learningRate: learningRateOf(step, config.steps, config.optimizer),
        })),
      passes: (config.steps * prompts) / materials.train.length,
    };
  } finally {
    await policy.dispose();
  }
}

const bytes = (n: number): string => {
  const unit = ["B", "KiB", "MiB", "GiB", "TiB"].findLast((_, i) => n >= 1024 ** i || i === 0)!;
  const scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].indexOf(unit);
  return `${(n / scale).toFixed(scale === 1 ? 0 : 1)} ${unit}`;
};

const spreadText = ({ min, median, p95, max }: Spread) => `${min} to ${max} (median ${median}, 95 % at most ${p95})`;

function columnsText({ train, eval: held }: DryRun["columns"]): string[] {
  const told = (columns: FieldMap | null) =>
    Object.entries(columns ?? {})
      .flatMap(([part, column]) => (column === null ? [] : [part === column ? part : `${part} from ${column}`]))
      .join(", ");
  const [first, second] = [told(train), told(held)];
  return [`columns    ${first}`, ...(held === null || second === first ? [] : [`           held out: ${second}`])];
}

function endingsText(endings: DryRun["endings"]): string[] {
  if (endings === null) return [];
  const told = endings.map((text) => JSON.stringify(text)).join(", ");
  return [`ends       ${told || "nowhere: the model has no end token, so that all completions are cut off"}`];
}

/** Characters of a prompt that are shown from each of its ends. */
const SHOWN = 600;

function askedText({ student, teacher }: DryRun["asked"]): string[] {
  const told = (who: string, text: string) => {
    const left = text.length - 2 * SHOWN;
    const shown = left > 0 ? `${text.slice(0, SHOWN)} ... (${left} characters) ... ${text.slice(-SHOWN)}` : text;
    return [`the first prompt, as the ${who} reads it:`, ...shown.split("\n").map((line) => `  | ${line}`)];
  };
  return [...told("model", student), ...(teacher === null ? [] : told("teacher", teacher))];
}

/** The plan of a run for people. */
export function dryRunText(plan: DryRun): string {
  const { config, rows, privileged, memory } = plan;
  const total = Object.values(memory).reduce((a, b) => a + b, 0);
  const shares = Object.entries(memory).filter(([, n]) => n > 0);
  const found = privileged.fromRollouts
    ? `made from completions (${config.privileged.source})`
    : `${privileged.whole} rows whole, ${privileged.cut} cut to fit, ${privileged.noRoom} without room, ${privileged.none} without any`;
  return [
    `model      ${config.model}: ${parametersText(plan)}, ${plan.maxLength} tokens`,
    `data       ${rows.train} rows, ${rows.eval} held out, ${rows.leftOut} left out; ${plan.passes.toFixed(2)} passes`,
    ...(plan.heldOutInTraining > 0 ? [`           ${heldOutText(plan)}`] : []),
    ...columnsText(plan.columns),
    `prompts    ${spreadText(plan.promptTokens)} tokens`,
    ...endingsText(plan.endings),
    `step       ${config.rollout.prompts} prompts x ${config.rollout.count} completions x ${config.rollout.maxTokens} tokens:` +
      ` ${plan.sequencesPerStep} sequences, at most ${plan.tokensPerStep} tokens`,
    `memory     ${bytes(total)}: ${shares.map(([name, n]) => `${name} ${bytes(n)}`).join(", ")}` +
      ("activations" in memory ? "" : ", and activations"),
    `teacher    ${config.algorithm === "grpo" ? "none" : config.teacher.kind}; privileged text: ${found}`,
    ...(privileged.teacherPromptTokens === null
      ? []
      : [`           its prompts ${spreadText(privileged.teacherPromptTokens)} tokens`]),
    ...privileged.firstWithout.map((where) => `           without privileged text: ${where}`),
    "schedule   step  creditMix  learningRate",
    ...plan.schedule.map(
      (s) =>
        `           ${String(s.step).padStart(4)}  ${s.creditMix.toFixed(4).padStart(9)}  ${s.learningRate.toExponential(2)}`,
    ),
    ...askedText(plan.asked),
  ].join("\n");
}
