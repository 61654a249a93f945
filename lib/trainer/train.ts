import { join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { packageVersion } from "../version.js";
import { imitates } from "./algorithms.js";
import {
  type Checkpoint,
  INITIAL_STATE,
  isPruned,
  lastCheckpoint,
  pruneCheckpoints,
  type RunState,
  removePartials,
  saveCheckpoint,
  tellingMend,
} from "./checkpoint.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import { type DiskPlan, planDisk, requireRoom } from "./disk.js";
import { giveUpAll, releasing } from "./durable.js";
import { evaluate } from "./evaluate.js";
import { afterEvaluation, checkpointDue, endedBy, evaluationDue, lastStepMade } from "./milestones.js";
import { newFolder } from "./new-folder.js";
import type { Prediction } from "./predict.js";
import { disposeMaterials, heldOutInTraining, type Materials, prepare } from "./prepare.js";
import { rowsWithoutPrivilege } from "./privileged-text.js";
import { settleConfig } from "./resolve-model.js";
import { type MetricsLine, RunFolder, readRunConfig, recorded, type SampleLine } from "./run-folder.js";
import { lockRun } from "./run-lock.js";
import { sampleLine } from "./sample-line.js";
import { sftStep } from "./sft.js";
import { type StepContext, trainStep } from "./step.js";
import { parametersOf, textFolder } from "./student.js";
import { checkHooks, type TrainHooks, type TrainSummary } from "./train-hooks.js";
import { VerdictJournal } from "./verdict-journal.js";
import { disposeWeights, loadWeights, saveConstants, type Weights } from "./weights.js";

/** The run between its steps. */
interface Run {
  readonly config: ResolvedConfig;
  readonly hooks: TrainHooks;
  readonly folder: RunFolder;
  readonly weights: Weights;
  readonly materials: Materials;
  readonly context: StepContext;
  readonly journal: VerdictJournal;
  readonly disk: DiskPlan;
  readonly accuracies: number[];
  /** The last checkpoint. */
  saved: { readonly state: RunState; readonly path: string } | undefined;
}

/** What the model answers to the first held-out rows, where steps have no completions to log. */
function heldOutSamples({ config, materials }: Run, step: number, predictions: readonly Prediction[]): SampleLine[] {
  const answers = predictions.filter(({ greedy }) => greedy).slice(0, config.log.samples);
  return answers.map(({ rollout, verdict }) =>
    sampleLine({ step, heldOut: true, rollout, verdict, advantage: 0 }, materials.tokenizer),
  );
}

async function evaluateRun(run: Run, state: RunState): Promise<RunState> {
  const { config, materials, weights, context, journal } = run;
  const start = performance.now();
  const { metrics, predictions } = await evaluate({
    policy: weights.policy,
    tokenizer: materials.tokenizer,
    verifier: materials.verifier,
    talk: materials.talk,
    prompts: materials.eval,
    config,
    leaks: materials.leaks,
    journal,
    step: state.step,
    signal: context.signal,
    onStage: context.onStage,
  });
  const line: MetricsLine = {
    step: state.step,
    kind: "eval",
    ...metrics,
    time: { total: performance.now() - start },
  };
  if (imitates(config)) await run.folder.logSamples(heldOutSamples(run, state.step, predictions));
  await run.folder.log(line);
  run.accuracies.push(metrics.accuracy!);
  run.hooks.onEval?.(line, predictions);
  return afterEvaluation(state, metrics.accuracy!, config);
}

/** Where the run is saved in that state, and what it needs no more is gone. */
async function save(run: Run, state: RunState): Promise<string> {
  const path = run.saved?.state === state ? run.saved.path : await saveCheckpoint(run.folder, state, run.weights);
  await run.journal.settle(state.evaluatedAt === state.step ? state.step : state.step - 1);
  await pruneCheckpoints(run.folder, state, run.config.checkpoint.keep);
  run.saved = { state, path };
  return path;
}

/** Steps, evaluations and checkpoints until the end, or until the signal: returns the last whole state either way. */
async function loop(run: Run, begin: RunState): Promise<{ state: RunState; interrupted: boolean }> {
  let state = begin;
  try {
    for (;;) {
      if (evaluationDue(state, run.config, run.materials.eval.length)) state = await evaluateRun(run, state);
      if (run.saved?.state.step !== state.step && checkpointDue(state, run.config)) await save(run, state);
      if (lastStepMade(state, run.config)) return { state, interrupted: false };
      run.context.signal.throwIfAborted();
      const outcome = await (imitates(run.config) ? sftStep : trainStep)(run.context, state);
      await run.folder.logSamples(outcome.samples);
      await run.folder.log(outcome.metrics);
      state = outcome.state;
      run.hooks.onStep?.(outcome.metrics);
    }
  } catch (error) {
    if (!run.context.signal.aborted) throw error;
    return { state, interrupted: true };
  }
}

type Unlock = () => Promise<void>;

async function openFolder(config: ResolvedConfig, hooks: TrainHooks, from: Checkpoint | undefined, unlock?: Unlock) {
  const settings = { version: packageVersion(), config };
  if (hooks.resume === undefined || unlock === undefined) {
    return RunFolder.create(config.output || newFolder(config.algorithm), settings);
  }
  const offsets = from?.offsets ?? { metrics: 0, samples: 0 };
  const folder = await RunFolder.resume(hooks.resume, settings, offsets, unlock);
  return releasing(
    () => folder.close(),
    async () => {
      await removePartials(folder);
      return folder;
    },
  );
}

/** What a run works with, in its folder; the folder is closed again where that fails. */
async function openIn(
  folder: RunFolder,
  { reward }: ResolvedConfig,
  weights: Weights,
  from: Checkpoint | undefined,
): Promise<VerdictJournal> {
  return releasing(
    () => folder.close(),
    async () => {
      // Of a run without steps it may be that nothing had been kept: no step asked for it.
      if (from === undefined || from.state.step === 0) await saveConstants(folder, weights);
      return VerdictJournal.open(join(folder.checkpoints, "verdicts.jsonl"), reward);
    },
  );
}

async function openPrepared(o: {
  readonly config: ResolvedConfig;
  readonly hooks: TrainHooks;
  readonly from: Checkpoint | undefined;
  readonly weights: Weights;
  readonly materials: Materials;
  readonly unlock: Unlock | undefined;
}): Promise<{ run: Run; state: RunState }> {
  const { config, hooks, from, weights, materials, unlock } = o;
  const text = await textFolder(config, from);
  const disk = await planDisk(config, weights.policy, text, hooks.resume);
  // What a hook's policies write is not known.
  if (hooks.loadPolicy === undefined) requireRoom(disk);
  const folder = await openFolder(config, hooks, from, unlock);
  const journal = await openIn(folder, config, weights, from);
  const signal = hooks.signal ?? new AbortController().signal;
  const context: StepContext = {
    config,
    materials,
    ...weights,
    journal,
    privileged: hooks.privileged,
    signal,
    onStage: hooks.onStage,
  };
  const run: Run = { config, hooks, folder, weights, materials, context, journal, disk, accuracies: [], saved: from };
  return { run, state: from?.state ?? INITIAL_STATE };
}

async function openLocked(config: ResolvedConfig, hooks: TrainHooks, unlock?: Unlock) {
  const run = hooks.resume === undefined ? undefined : resolve(hooks.resume);
  const from = run === undefined ? undefined : await lastCheckpoint(run);
  const load = () => loadWeights(config, from, hooks.loadPolicy);
  const weights = await (run === undefined ? load() : tellingMend(run, load));
  return releasing(
    () => disposeWeights(weights),
    async () => {
      const materials = await prepare(config, weights.policy, hooks.signal, await textFolder(config, from));
      const begin = () => openPrepared({ config, hooks, from, weights, materials, unlock });
      return releasing(() => disposeMaterials(materials), begin);
    },
  );
}

async function openRun(config: ResolvedConfig, hooks: TrainHooks): Promise<{ run: Run; state: RunState }> {
  if (hooks.resume === undefined) return openLocked(config, hooks);
  // Before the checkpoint is read: what another process adds until then must not be cut off.
  const unlock = await lockRun(hooks.resume);
  return releasing(unlock, () => openLocked(config, hooks, unlock));
}

async function close({ folder, journal, materials, weights }: Run): Promise<void> {
  await giveUpAll(
    () => disposeMaterials(materials),
    () => disposeWeights(weights),
    () => journal.close(),
    () => folder.close(),
  );
}

/** All of a run that is open, and what it came to. `start` is when it was called. */
async function complete(run: Run, begin: RunState, start: number): Promise<TrainSummary> {
  const { config, hooks, folder, materials, accuracies } = run;
  hooks.onStart?.({
    folder: folder.path,
    config,
    ...parametersOf(run.weights.policy),
    rows: { train: materials.train.length, eval: materials.eval.length },
    skipped: materials.skipped,
    heldOutInTraining: heldOutInTraining(materials),
    withoutPrivileged: rowsWithoutPrivilege(materials.train, config, hooks.privileged),
    disk: run.disk,
    step: begin.step,
  });
  const { state, interrupted } = await loop(run, begin);
  const checkpoint = await save(run, state);
  return {
    ...summaryOf(folder.path, checkpoint, state, config, start),
    ...(interrupted && { stopped: "interrupted" }),
    ...(accuracies.length > 0 && { accuracy: { first: accuracies[0]!, last: accuracies.at(-1)! } }),
  };
}

/** What is told of a run that ended in that state, where this call made no evaluation. */
const summaryOf = (
  folder: string,
  checkpoint: string,
  state: RunState,
  config: ResolvedConfig,
  start: number,
): TrainSummary => ({
  folder,
  checkpoint,
  step: state.step,
  stopped: endedBy(state, config) ?? "done",
  best: state.best,
  accuracy: null,
  tokens: state.tokens,
  seconds: (performance.now() - start) / 1000,
});

/**
 * The last checkpoint of a run that these settings leave nothing to do; other settings are for the steps to come.
 * ERR_RLSD_RUN_FOLDER where there is no run.
 */
async function finishedBefore(run: string, config: ResolvedConfig): Promise<Checkpoint | undefined> {
  const same = recorded(config) === JSON.stringify((await readRunConfig(run)).config);
  const last = same ? await lastCheckpoint(resolve(run)) : undefined;
  if (last === undefined || !lastStepMade(last.state, config)) return undefined;
  if (evaluationDue(last.state, config, config.data.eval.length)) return undefined;
  return (await isPruned(run, last.state, config.checkpoint.keep)) ? last : undefined;
}

/**
 * Trains a policy: rollout, verify, advantage, teacher, loss, step. Settings are checked, and model and data read whole,
 * before anything is written. A killed run goes on with `resume`, bit for bit as if it had never been killed.
 *
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT, ERR_RLSD_CONFIG, ERR_RLSD_DATA, ERR_RLSD_MODEL before the start; ERR_RLSD_WRITE when the disk refuses
 */
export async function train(settings: TrainConfig, hooks: TrainHooks = {}): Promise<TrainSummary> {
  const start = performance.now();
  checkHooks(hooks);
  const began = hooks.resume === undefined ? undefined : (await readRunConfig(hooks.resume)).config;
  const config = await settleConfig(resolveConfig(settings), began);
  if (hooks.resume !== undefined) {
    const last = await finishedBefore(hooks.resume, config);
    if (last !== undefined) return summaryOf(resolve(hooks.resume), last.path, last.state, config, start);
  }
  const { run, state: begin } = await openRun(config, hooks);
  const summary = await releasing(
    () => close(run),
    () => complete(run, begin, start),
  );
  await close(run);
  return summary;
}
