import { existsSync } from "node:fs";
import { checkFunction, checkInteger, checkObject, checkPath, checkPaths, checkSignal } from "../check.js";
import { RlsdError } from "../errors.js";
import { groupAdvantages } from "../ops/advantages.js";
import { rlsdCredit } from "../ops/credit.js";
import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import { createPrivilegedBlock } from "../prompt/privileged.js";
import { fromFunction } from "../verifiers/function.js";
import { startVerifier } from "../verifiers/start.js";
import type { Verifier } from "../verifiers/verifier.js";
import { ALGORITHMS } from "./algorithms.js";
import { type Checkpoint, savedTeacher } from "./checkpoint.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import { merge } from "./config-file.js";
import type { Talk } from "./conversation.js";
import { readCompletions } from "./credit-rows.js";
import { giveUpAll } from "./durable.js";
import { type Evidence, gatherEvidence } from "./evidence.js";
import { type Judged, judge } from "./judge.js";
import { createReward } from "./prepare.js";
import { loadAsked, loaderOf, type ModelSource, type ResolvedModel, withModel } from "./resolve-model.js";
import { type Rollout, sequenceOf, spanOf } from "./rollout.js";
import type { SampleLine } from "./run-folder.js";
import { creditedWeights, sampleLine } from "./sample-line.js";
import { loadBeside } from "./student.js";
import { rightBy } from "./success.js";
import { isStored, startTalk } from "./talk.js";
import { createTeacher, type LoadPolicy, type Teacher } from "./teacher.js";
import { checkTeacherVocabulary } from "./teacher-vocabulary.js";

/** Completions that are scored in one call, at least: groups are not cut. */
const AT_ONCE = 32;

/** Settings of a run that win over those of the model's own run: `teacher`, `privileged`, `objective`, `reward`, ... */
export type CreditSettings = TrainConfig | Readonly<Record<string, unknown>>;

/** What `creditCompletions` takes besides settings. */
export interface CreditHooks extends ModelSource {
  /** Stops between completions; the call rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Completions at most, those that come first; what is done for the others is little. Default: all. */
  readonly limit?: number | undefined;
  /** Before the first score: how many completions there will be, and rows left out because they do not fit. A promise is waited for. */
  readonly onStart?: ((completions: number, skipped: number) => unknown) | undefined;
}

const HOOKS: ReadonlySet<string> = new Set<keyof CreditHooks>(["signal", "loadPolicy", "base", "limit", "onStart"]);

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
  successes: readonly boolean[],
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
    return successes[i] ? 1 : -1;
  });
}

/** The teacher that trained this model, or the one that would begin to: see `teacher.kind`. */
async function teacherOf(
  config: ResolvedConfig,
  checkpoint: Checkpoint | undefined,
  student: Policy,
  load: LoadPolicy,
): Promise<Teacher> {
  const folder = checkpoint && savedTeacher(config.teacher.kind, checkpoint);
  const kept = folder !== undefined && existsSync(folder);
  return createTeacher(config.teacher, student, load, kept ? await loadBeside(student, folder, load) : undefined);
}

/** Rollouts in lots of whole groups. */
function* lots(rollouts: readonly Rollout[]): Generator<{ readonly from: number; readonly to: number }> {
  let from = 0;
  for (const [i, { group }] of rollouts.entries()) {
    if (i - from < AT_ONCE || group === rollouts[i - 1]!.group) continue;
    yield { from, to: i };
    from = i;
  }
  if (from < rollouts.length) yield { from, to: rollouts.length };
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
function creditOne(rollout: Rollout, advantage: number, evidence: Evidence, { config, step, tokenizer }: Scene) {
  const { evidenceClip, negativeOnly, clipMode, normalize } = ALGORITHMS.rlsd!.objective(config);
  // That of the step which this policy would draw for.
  const creditMix = ALGORITHMS.rlsd!.creditMix(config, step + 1);
  const mask = spanOf(rollout, tokenizer, config);
  const input = {
    logProbs: rollout.logProbs,
    teacherLogProbs: evidence.teacherLogProbs,
    // Without a rejected sibling the contrast is the teacher itself: no evidence.
    ...(config.privileged.contrast && { contrastLogProbs: evidence.contrastLogProbs ?? evidence.teacherLogProbs }),
    advantages: Float32Array.of(advantage),
    cuSeqlens: Int32Array.of(0, rollout.tokenIds.length),
    ...(mask && { spanMask: mask }),
  };
  const credit = rlsdCredit(input, { creditMix, evidenceClip, negativeOnly, clipMode, normalize });
  const evidenceWeights = creditedWeights(credit.evidenceWeights, { span: mask, advantage, negativeOnly });
  return { ...credit, evidenceWeights };
}

/** The first `wanted` completions of a lot with their credit, in order; the others are there as siblings. */
async function creditLot(
  drawn: readonly Rollout[],
  verdicts: readonly Judged[],
  advantages: Float32Array,
  wanted: number,
  scene: Scene,
): Promise<SampleLine[]> {
  const { student, teacher, config, step, tokenizer, evidence: options } = scene;
  const requests = drawn.slice(0, wanted).map(sequenceOf);
  const { signal } = options;
  const scores = await student.score(requests, { temperature: config.rollout.temperature, ...(signal && { signal }) });
  const rollouts = drawn.map((one, i) => ({ ...one, logProbs: scores[i] ?? one.logProbs }));
  const worth = advantages.map((advantage, i) => (i < wanted ? advantage : 0));
  const { evidence } = await gatherEvidence(teacher.policy, rollouts, verdicts, worth, options);
  return rollouts.slice(0, wanted).map((rollout, i) => {
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
        evidence: seen,
        evidenceWeights: told?.evidenceWeights,
        tokenAdvantages,
      },
      tokenizer,
    );
  });
}

function settle({ model, settings }: ResolvedModel, files: readonly string[], given: CreditSettings) {
  const merged = merge(merge(settings, given as Readonly<Record<string, unknown>>), { model, algorithm: "rlsd" });
  // Nothing is evaluated here, but a run's own "stop" wants a file to wait for.
  const config = resolveConfig(merge(merged, { data: { train: files, eval: files } }));
  return { config, judged: merged.reward !== undefined };
}

/** What is credited, and by what settings. */
async function open(found: ResolvedModel, files: readonly string[], given: CreditSettings, source: ModelSource) {
  const settled = settle(found, files, given);
  await checkTeacherVocabulary({ ...settled.config, model: found.model }, source.base);
  const { policy: student, text } = await loadAsked(found, settled.config, source);
  return { ...found, ...settled, load: loaderOf(source, found, settled.config), student, text };
}

/** The settings that `creditCompletions` goes by, checked. */
export const creditSettings = async (
  directory: string,
  files: readonly string[],
  given: CreditSettings = {},
  source: ModelSource = {},
): Promise<ResolvedConfig> => withModel(directory, source, async (found) => settle(found, files, given).config);

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
  checkObject(hooks, "hooks", HOOKS);
  checkSignal(hooks.signal, "hooks.signal");
  for (const name of ["loadPolicy", "onStart"] as const) checkFunction(hooks[name], `hooks.${name}`);
  const limit = hooks.limit === undefined ? Number.POSITIVE_INFINITY : checkInteger(hooks.limit, "limit", { min: 1 });
  checkPath(directory, "directory");
  checkPaths(files, "files");
  const opened = await withModel(directory, hooks, (found) => open(found, files, given, hooks));
  const { step, checkpoint, config, judged, load, student, text } = opened;
  const signal = hooks.signal ?? new AbortController().signal;
  let teacher: Teacher | undefined;
  let verifier: Verifier | undefined;
  let talk: Talk | undefined;
  try {
    const block = createPrivilegedBlock(config.privileged.template);
    verifier = judged ? createReward(config.reward) : fromColumn();
    // Prompts offer its tools; nothing is called.
    if (isStored(config.environment)) talk = await startTalk(config, { ...text, policy: student }, signal);
    // A standard deviation over the batch needs every reward.
    const read = config.advantage.scale === "batch" ? Number.POSITIVE_INFINITY : limit;
    const { tokenizer, prompter, rollouts, skipped } = await readCompletions(
      files,
      config,
      { ...text, talk },
      verifier,
      student,
      read,
    );
    teacher = await teacherOf(config, checkpoint, student, load);
    await startVerifier(verifier, signal);
    await hooks.onStart?.(Math.min(limit, rollouts.length), skipped);
    const verdicts = await judge(verifier, rollouts, config, { signal, occasion: { step, name: "credit" } });
    const rewards = verdicts.map((verdict) => verdict.reward);
    const groups = rollouts.map((one) => one.group);
    const advantages = signedAdvantages(rewards, groups, config.advantage, verdicts.map(rightBy(config)));
    const scene = { config, step, student, teacher, tokenizer, evidence: { config, block, prompter, signal } };
    for (const { from, to } of lots(rollouts)) {
      if (from >= limit) break;
      signal.throwIfAborted();
      const lot = [rollouts.slice(from, to), verdicts.slice(from, to), advantages.slice(from, to)] as const;
      yield* await creditLot(...lot, Math.min(limit, to) - from, scene);
    }
  } finally {
    await giveUpAll(
      () => teacher?.dispose(),
      () => verifier?.dispose?.(),
      () => talk?.environment.dispose(),
      () => student.dispose(),
    );
  }
}
