import { join, resolve } from "node:path";
import { instructionSet } from "../ops/backend-info.js";
import { packageVersion } from "../version.js";
import {
  type Checkpoint,
  INITIAL_STATE,
  lastCheckpoint,
  type RunState,
  removePartials,
  tellingMend,
} from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import { planDisk, requireRoom } from "./disk.js";
import { giveUpAll, releasing } from "./durable.js";
import { newFolder } from "./new-folder.js";
import { disposeMaterials, type Materials, prepare } from "./prepare.js";
import { otherRows, type RowPrints, rowPrints } from "./row-prints.js";
import { otherInstructions, RunFolder, readRunConfig } from "./run-folder.js";
import { lockRun } from "./run-lock.js";
import type { StepContext } from "./step.js";
import { textFolder } from "./student.js";
import type { RunStart, TrainHooks } from "./train-hooks.js";
import { VerdictJournal } from "./verdict-journal.js";
import { disposeWeights, loadWeights, saveConstants, type Weights } from "./weights.js";

/** The run between its steps. */
export interface Run {
  readonly config: ResolvedConfig;
  readonly hooks: TrainHooks;
  readonly folder: RunFolder;
  readonly weights: Weights;
  readonly materials: Materials;
  readonly context: StepContext;
  readonly journal: VerdictJournal;
  readonly begun: Pick<RunStart, "disk" | "earlierInstructionSet" | "otherRows">;
  readonly accuracies: number[];
  /** The last checkpoint. */
  saved: { readonly state: RunState; readonly path: string } | undefined;
}

type Unlock = () => Promise<void>;

/** What a run is made of, before it has its folder. */
interface Prepared {
  readonly config: ResolvedConfig;
  readonly hooks: TrainHooks;
  readonly from: Checkpoint | undefined;
  readonly weights: Weights;
  readonly materials: Materials;
  readonly unlock: Unlock | undefined;
}

/** What has changed since a run's earlier steps; nothing where it has none. */
async function changedSince({ hooks, from }: Pick<Prepared, "hooks" | "from">, rows: RowPrints) {
  if (from === undefined || from.state.step === 0) return { earlierInstructionSet: null, otherRows: [] };
  const before = await readRunConfig(hooks.resume!);
  return { earlierInstructionSet: otherInstructions(before), otherRows: otherRows(before.rows, rows) };
}

async function openFolder(
  { config, hooks, from, unlock }: Pick<Prepared, "config" | "hooks" | "from" | "unlock">,
  rows: RowPrints,
) {
  const settings = { version: packageVersion(), instructionSet: instructionSet(), rows, config };
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

async function openPrepared(o: Prepared): Promise<{ run: Run; state: RunState }> {
  const { config, hooks, from, weights, materials } = o;
  const text = await textFolder(config, from);
  const disk = await planDisk(config, weights.policy, text, hooks.resume);
  // What a hook's policies write is not known.
  if (hooks.loadPolicy === undefined) requireRoom(disk);
  const rows = rowPrints(materials);
  const changed = await changedSince(o, rows);
  const folder = await openFolder(o, rows);
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
  const run: Run = {
    config,
    hooks,
    folder,
    weights,
    materials,
    context,
    journal,
    begun: { disk, ...changed },
    accuracies: [],
    saved: from,
  };
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

/** A new run, or one that goes on: everything is loaded and checked, and its folder is this process's. */
export async function openRun(config: ResolvedConfig, hooks: TrainHooks): Promise<{ run: Run; state: RunState }> {
  if (hooks.resume === undefined) return openLocked(config, hooks);
  // Before the checkpoint is read: what another process adds until then must not be cut off.
  const unlock = await lockRun(hooks.resume);
  return releasing(unlock, () => openLocked(config, hooks, unlock));
}

export async function closeRun({ folder, journal, materials, weights }: Run): Promise<void> {
  await giveUpAll(
    () => disposeMaterials(materials),
    () => disposeWeights(weights),
    () => journal.close(),
    () => folder.close(),
  );
}
