import { resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { RlsdError } from "../errors.js";
import { imitates } from "./algorithms.js";
import {
  type Checkpoint,
  isPruned,
  lastCheckpoint,
  pruneCheckpoints,
  type RunState,
  saveCheckpoint,
} from "./checkpoint.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import { checkGivenAgain } from "./config-checks.js";
import { releasing } from "./durable.js";
import { evaluate } from "./evaluate.js";
import type { MetricsLine } from "./metrics-line.js";
import { afterEvaluation, checkpointDue, endedBy, evaluationDue, lastStepMade } from "./milestones.js";
import { closeRun, openRun, type Run } from "./open-run.js";
import type { Prediction } from "./predict.js";
import { heldOutInTraining } from "./prepare.js";
import { rowsWithoutPrivilege } from "./privileged-text.js";
import { settleConfig } from "./resolve-model.js";
import { readRunConfig, recorded, type SampleLine } from "./run-folder.js";
import { sampleLine } from "./sample-line.js";
import { sftStep } from "./sft.js";
import { trainStep } from "./step.js";
import { parametersOf } from "./student.js";
import { checkHooks, type TrainHooks, type TrainSummary } from "./train-hooks.js";

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
  await run.hooks.onEval?.(line, predictions);
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
      await run.hooks.onStep?.(outcome.metrics);
    }
  } catch (error) {
    if (!run.context.signal.aborted) throw error;
    return { state, interrupted: true };
  }
}

/** All of a run that is open, and what it came to. `start` is when it was called. */
async function complete(run: Run, begin: RunState, start: number): Promise<TrainSummary> {
  const { config, hooks, folder, materials, accuracies } = run;
  await hooks.onStart?.({
    folder: folder.path,
    config,
    ...parametersOf(run.weights.policy),
    rows: { train: materials.train.length, eval: materials.eval.length },
    skipped: materials.skipped,
    heldOutInTraining: heldOutInTraining(materials),
    withoutPrivileged: rowsWithoutPrivilege(materials.train, config, hooks.privileged),
    ...run.begun,
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

/** What a run does not fit into says what it needs; its settings can make that less. */
function withSavings(error: unknown): unknown {
  if (!(error instanceof RlsdError) || error.code !== "ERR_RLSD_OUT_OF_MEMORY") return error;
  const savings =
    'A run takes less with "lora.rank", "update.recompute" or fewer "update.microbatchTokens"; --dry-run says what it takes.';
  return new RlsdError(error.code, `${error.message} ${savings}`, { cause: error });
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
  const resolved = resolveConfig(settings);
  if (began !== undefined) checkGivenAgain(settings, resolved, began);
  const config = await settleConfig(resolved, began);
  if (hooks.resume !== undefined) {
    const last = await finishedBefore(hooks.resume, config);
    if (last !== undefined) return summaryOf(resolve(hooks.resume), last.path, last.state, config, start);
  }
  try {
    const { run, state: begin } = await openRun(config, hooks);
    const summary = await releasing(
      () => closeRun(run),
      () => complete(run, begin, start),
    );
    await closeRun(run);
    return summary;
  } catch (error) {
    throw withSavings(error);
  }
}
