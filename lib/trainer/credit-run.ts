import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { RlsdError } from "../errors.js";
import { groupAdvantages } from "../ops/advantages.js";
import { rlsdCredit } from "../ops/credit.js";
import { loadPolicy } from "../policy/load.js";
import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import { createPrivilegedBlock } from "../prompt/privileged.js";
import { spanMask } from "../prompt/spans.js";
import { fromFunction } from "../verifiers/function.js";
import { startVerifier } from "../verifiers/start.js";
import type { Verifier } from "../verifiers/verifier.js";
import { ALGORITHMS } from "./algorithms.js";
import { INITIAL_FOLDER } from "./checkpoint.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import { merge } from "./config-file.js";
import { completionsOf, finishOf } from "./data/completions.js";
import { resolveModel } from "./eval-run.js";
import { type Evidence, gatherEvidence } from "./evidence.js";
import { type Judged, judge } from "./judge.js";
import { checkVocabulary, createReward, loadPrompts, loadTextParts } from "./prepare.js";
import type { Prompted, Rollout } from "./rollout.js";
import type { SampleLine } from "./run-folder.js";
import { sampleLine } from "./sample-line.js";
import { createTeacher, type LoadPolicy, TEACHER_FOLDER, type Teacher } from "./teacher.js";

/** Completions that are scored in one call, at least: groups are not cut. */
const AT_ONCE = 32;

export type CreditSettings = TrainConfig | Readonly<Record<string, unknown>>;

export interface CreditHooks {
  readonly signal?: AbortSignal | undefined;
  readonly loadPolicy?: LoadPolicy | undefined;
  /** Before the first score: how many completions there are, and rows left out because they do not fit. */
  readonly onStart?: ((completions: number, skipped: number) => void) | undefined;
}

/** A verifier of rows that bring their verdict along. */
function fromColumn(): Verifier {
  const check = (row: Readonly<Record<string, unknown>>) => {
    if (row.reward === null || (typeof row.reward === "number" && Number.isFinite(row.reward))) return;
    const message =
      'no verifier is set, so that "reward" must be a number or null: add the column, or --set reward=math';
    throw new RlsdError("ERR_RLSD_DATA", message);
  };
  return { ...fromFunction((sample) => sample.row.reward as number | null), check };
}

/**
 * A's of completions that were not drawn for this: as in training where a group's rewards differ; where they do not, or
 * the group is one completion, 1 for a success and -1 for anything else, because a picture of credit needs a sign.
 */
export function signedAdvantages(
  rewards: readonly (number | null)[],
  groups: readonly number[],
  o: ResolvedConfig["advantage"],
  successThreshold: number,
): Float32Array {
  const sizes = new Map<number, number>();
  for (const group of groups) sizes.set(group, (sizes.get(group) ?? 0) + 1);
  const several = groups.flatMap((group, i) => (sizes.get(group)! > 1 ? [i] : []));
  const known = groupAdvantages(
    several.map((i) => rewards[i]!),
    several.map((i) => groups[i]!),
    o,
  );
  const advantages = new Float32Array(rewards.length);
  for (const [k, i] of several.entries()) advantages[i] = known[k]!;
  const uneven = new Set(groups.filter((_, i) => advantages[i] !== 0));
  return advantages.map((advantage, i) => {
    const reward = rewards[i]!;
    if (uneven.has(groups[i]!) || reward === null) return advantage;
    return reward >= successThreshold ? 1 : -1;
  });
}

/** The teacher that trained this model, or the one that would begin to: see `teacher.kind`. */
async function teacherOf(config: ResolvedConfig, model: string, student: Policy, load: LoadPolicy): Promise<Teacher> {
  const checkpoint = resolve(model, "..");
  const kept = [join(checkpoint, TEACHER_FOLDER), join(checkpoint, "..", INITIAL_FOLDER, TEACHER_FOLDER)];
  const own = ["frozen", "periodic", "ema"].includes(config.teacher.kind);
  const found = own ? kept.find((folder) => existsSync(join(folder, "config.json"))) : undefined;
  return createTeacher(config.teacher, student, load, found === undefined ? undefined : await load(found));
}

/** The completions of rows as if they had been drawn; log-probs are not there yet. One prompt is one group. */
function toRollouts(prompts: readonly Prompted[], tokenizer: Tokenizer, policy: Policy): Rollout[] {
  const end = policy.endTokenIds?.slice(0, 1) ?? [];
  const groups = new Map<string, { readonly group: number; size: number }>();
  return prompts.flatMap((prompt) => {
    const { row, id, where } = prompt.example;
    const finish = finishOf(row);
    const own = groups.get(prompt.text) ?? { group: groups.size, size: 0 };
    groups.set(prompt.text, own);
    return completionsOf(row).map((text): Rollout => {
      const tokenIds = Int32Array.from([...tokenizer.encode(text), ...(finish === "stop" ? end : [])]);
      if (tokenIds.length === 0) throw new RlsdError("ERR_RLSD_DATA", `${where}: a completion has no tokens.`);
      const name = `${id}#${own.size++}`;
      return { id: name, group: own.group, prompt, tokenIds, logProbs: new Float32Array(0), finish, text };
    });
  });
}

/** Rollouts in the order of their groups, in lots of whole groups. */
function* lots(rollouts: readonly Rollout[]): Generator<number[]> {
  const members = new Map<number, number[]>();
  for (const [i, { group }] of rollouts.entries()) members.set(group, [...(members.get(group) ?? []), i]);
  let lot: number[] = [];
  for (const group of members.values()) {
    lot.push(...group);
    if (lot.length < AT_ONCE) continue;
    yield lot;
    lot = [];
  }
  if (lot.length > 0) yield lot;
}

interface Scene {
  readonly config: ResolvedConfig;
  readonly step: number;
  readonly student: Policy;
  readonly teacher: Teacher;
  readonly tokenizer: Tokenizer;
  readonly evidence: Parameters<typeof gatherEvidence>[4];
}

/** What the credit makes of one completion. */
function creditOne(rollout: Rollout, advantage: number, evidence: Evidence, { config, tokenizer }: Scene) {
  const { creditMix, evidenceClip, negativeOnly, clipMode, normalize } = ALGORITHMS.rlsd!.objective(config);
  const { open, close } = config.span;
  const input = {
    logProbs: rollout.logProbs,
    teacherLogProbs: evidence.teacherLogProbs,
    // Without a rejected sibling the contrast is the teacher itself: no evidence.
    ...(config.privileged.contrast && { contrastLogProbs: evidence.contrastLogProbs ?? evidence.teacherLogProbs }),
    advantages: Float32Array.of(advantage),
    cuSeqlens: Int32Array.of(0, rollout.tokenIds.length),
    ...(open !== "" && { spanMask: spanMask(tokenizer.pieces(rollout.tokenIds), open, close) }),
  };
  return rlsdCredit(input, { creditMix, evidenceClip, negativeOnly, clipMode, normalize });
}

/** The completions of a lot with their credit, in order. */
async function creditLot(
  drawn: readonly Rollout[],
  verdicts: readonly Judged[],
  advantages: Float32Array,
  scene: Scene,
): Promise<SampleLine[]> {
  const { student, teacher, config, step, tokenizer, evidence: options } = scene;
  const requests = drawn.map(({ prompt, tokenIds }) => ({ prompt: prompt.ids, completion: tokenIds }));
  const { signal } = options;
  const scores = await student.score(requests, { temperature: config.rollout.temperature, ...(signal && { signal }) });
  const rollouts = drawn.map((one, i) => ({ ...one, logProbs: scores[i]! }));
  const { evidence } = await gatherEvidence(teacher.policy, rollouts, verdicts, advantages, options);
  return rollouts.map((rollout, i) => {
    const [seen, advantage] = [evidence[i], advantages[i]!];
    const told = seen === undefined ? undefined : creditOne(rollout, advantage, seen, scene);
    const tokenAdvantages = told?.tokenAdvantages ?? new Float32Array(rollout.tokenIds.length).fill(advantage);
    return sampleLine(
      {
        step,
        rollout,
        verdict: verdicts[i]!,
        advantage,
        privileged: seen?.privileged,
        teacherLogProbs: seen?.teacherLogProbs,
        evidenceWeights: told?.evidenceWeights,
        tokenAdvantages,
      },
      tokenizer,
    );
  });
}

/** Rows that fit: their prompt, their completions, and both together. */
async function readCompletions(files: readonly string[], config: ResolvedConfig, verifier: Verifier, policy: Policy) {
  const text = await loadTextParts(config.model, config.data.templateVariables);
  checkVocabulary(policy, text.tokenizer, config.model);
  const check = (row: Readonly<Record<string, unknown>>) => {
    completionsOf(row);
    verifier.check?.(row);
  };
  const room = { data: config.data, rollout: { ...config.rollout, maxTokens: 1 } };
  const options = { ...text, verifier: { check }, maxLength: policy.maxLength };
  const { prompts, skipped } = await loadPrompts("the data", files, room, options);
  const rollouts = toRollouts(prompts, text.tokenizer, policy);
  const long = rollouts.find(({ prompt, tokenIds }) => prompt.ids.length + tokenIds.length > policy.maxLength);
  if (long !== undefined) {
    const length = long.prompt.ids.length + long.tokenIds.length;
    const message = `${long.prompt.example.where}: prompt and completion have ${length} tokens, but the model reads ${policy.maxLength}.`;
    throw new RlsdError("ERR_RLSD_DATA", message);
  }
  return { ...text, rollouts, skipped };
}

async function sceneOf(directory: string, files: readonly string[], given: CreditSettings) {
  const { model, settings, step } = await resolveModel(directory);
  const merged = merge(merge(settings, given as Readonly<Record<string, unknown>>), { model, algorithm: "rlsd" });
  const config = resolveConfig(merge(merged, { data: { train: files, eval: [] } }));
  return { model, step, config, judged: merged.reward !== undefined };
}

/** The settings that `creditCompletions` goes by, checked. */
export const creditSettings = async (
  directory: string,
  files: readonly string[],
  given: CreditSettings = {},
): Promise<ResolvedConfig> => (await sceneOf(directory, files, given)).config;

/**
 * What RLSD would credit, token by token, in completions that exist already: the model is the student, the teacher that
 * of the settings, the verdict that of `reward` or, where none is set, of the rows' column `reward`.
 *
 * @param directory run (its best checkpoint), checkpoint or model
 * @param files rows as for training, with `completion` or `completions`; rows with the same prompt are a group
 * @param given settings that win over those of the run (`privileged`, `objective`, `teacher`, ...)
 */
export async function* creditCompletions(
  directory: string,
  files: readonly string[],
  given: CreditSettings = {},
  hooks: CreditHooks = {},
): AsyncGenerator<SampleLine> {
  const { model, step, config, judged } = await sceneOf(directory, files, given);
  const load = hooks.loadPolicy ?? ((folder: string) => loadPolicy(folder));
  const signal = hooks.signal ?? new AbortController().signal;
  const block = createPrivilegedBlock(config.privileged.template);
  const verifier = judged ? createReward(config.reward) : fromColumn();
  const student = await load(model);
  let teacher: Teacher | undefined;
  try {
    const { tokenizer, prompter, rollouts, skipped } = await readCompletions(files, config, verifier, student);
    teacher = await teacherOf(config, model, student, load);
    await startVerifier(verifier, signal);
    hooks.onStart?.(rollouts.length, skipped);
    const verdicts = await judge(verifier, rollouts, config, { signal, occasion: { step, name: "credit" } });
    const rewards = verdicts.map((verdict) => verdict.reward);
    const groups = rollouts.map((one) => one.group);
    const advantages = signedAdvantages(rewards, groups, config.advantage, config.eval.successThreshold);
    const scene = { config, step, student, teacher, tokenizer, evidence: { config, block, prompter, signal } };
    for (const lot of lots(rollouts)) {
      signal.throwIfAborted();
      const pick = <T>(all: readonly T[]) => lot.map((i) => all[i]!);
      yield* await creditLot(
        pick(rollouts),
        pick(verdicts),
        Float32Array.from(lot, (i) => advantages[i]!),
        scene,
      );
    }
  } finally {
    await teacher?.dispose();
    await verifier.dispose?.();
    await student.dispose();
  }
}
