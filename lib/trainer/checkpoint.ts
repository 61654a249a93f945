import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { messageOf, RlsdError } from "../errors.js";
import { makeFolder, renameOver, syncDirectory } from "../policy/folder.js";
import type { Policy } from "../policy/policy.js";
import { readRegular } from "../regular-file.js";
import type { ResolvedConfig } from "./config.js";
import { writeWhole, writing } from "./durable.js";
import { CHECKPOINTS, type Offsets, type RunFolder } from "./run-folder.js";
import { TEACHER_FOLDER, type Teacher } from "./teacher.js";

/** All of a run that is not weights. Plain data: what a step returns and the next one takes. */
export interface RunState {
  /** Updates made. */
  readonly step: number;
  /** Prompts drawn, which is the place in the data. */
  readonly cursor: number;
  /** Groups drawn, which numbers them. */
  readonly groups: number;
  readonly tokens: number;
  /** The last step that was evaluated; -1: none. */
  readonly evaluatedAt: number;
  readonly best: { readonly step: number; readonly accuracy: number } | null;
  /** Evaluations since the best. */
  readonly sinceBest: number;
  /** Of the last evaluation; null: there was none. */
  readonly accuracy: number | null;
}

export const INITIAL_STATE: RunState = {
  step: 0,
  cursor: 0,
  groups: 0,
  tokens: 0,
  evaluatedAt: -1,
  best: null,
  sinceBest: 0,
  accuracy: null,
};

interface SavedState {
  readonly version: 1;
  readonly state: RunState;
  readonly offsets: Offsets;
  /** Fingerprint of the weights under the adapters; absent: all weights are in the checkpoint. */
  readonly base?: string | undefined;
}

export interface Checkpoint extends SavedState {
  readonly path: string;
  /** Weights, configuration and tokenizer, as any model folder, or adapters of one; and the optimizer's state. */
  readonly model: string;
  readonly teacher: string;
}

export const STATE_FILE = "state.json";
const MODEL_FOLDER = "model";
/** What never changes in a run: the frozen teacher, the KL reference. Written once. */
export const INITIAL_FOLDER = "initial";
const NAME = /^step-(\d+)$/;

const nameOf = (step: number) => `step-${String(step).padStart(6, "0")}`;

const isCount = (value: unknown): boolean => typeof value === "number" && value >= 0;

function isWhole({ state, offsets }: Partial<SavedState>): boolean {
  if (typeof state !== "object" || state === null || typeof offsets !== "object" || offsets === null) return false;
  const counts = [state.step, state.cursor, state.groups, state.tokens, state.sinceBest];
  const places = [offsets.metrics, offsets.samples];
  const { best, accuracy, evaluatedAt } = state;
  const known = best === null || (typeof best === "object" && isCount(best.step) && isCount(best.accuracy));
  // Earlier versions did not keep it.
  const measured = (accuracy ?? null) === null || isCount(accuracy);
  return [...counts, ...places].every(isCount) && typeof evaluatedAt === "number" && known && measured;
}

/** The checkpoint in a folder; ERR_RLSD_CHECKPOINT where it cannot be used. */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  const file = join(path, STATE_FILE);
  try {
    const saved = JSON.parse((await readRegular(file)).toString("utf8")) as SavedState;
    const version: unknown = saved?.version;
    if (typeof version === "number" && version !== 1) {
      // Nothing is damaged: not to be removed.
      throw new RlsdError("ERR_RLSD_UNSUPPORTED", `${file} has version ${version}, which this rlsd does not know.`);
    }
    if (version !== 1 || !isWhole(saved)) throw new Error("it is not what a run writes");
    return { ...saved, path, model: join(path, MODEL_FOLDER), teacher: join(path, TEACHER_FOLDER) };
  } catch (error) {
    if (error instanceof RlsdError) throw error;
    const why = messageOf(error);
    throw new RlsdError("ERR_RLSD_CHECKPOINT", `${file} cannot be used: ${why}`, { cause: error });
  }
}

/** Where a checkpoint's run has its teacher's own weights; undefined: such a teacher has none. */
export function savedTeacher(kind: ResolvedConfig["teacher"]["kind"], from: Checkpoint): string | undefined {
  if (kind === "frozen") return join(from.path, "..", INITIAL_FOLDER, TEACHER_FOLDER);
  return kind === "periodic" || kind === "ema" ? from.teacher : undefined;
}

/** Complete checkpoints, oldest first. Whatever was being written when a run died has another name. */
async function listCheckpoints(folder: string): Promise<{ step: number; path: string }[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return names
    .flatMap((name) => {
      const step = NAME.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), path: join(folder, name) }];
    })
    .sort((a, b) => a.step - b.step);
}

/** The last checkpoint of a run; undefined: it died before its first. */
export async function lastCheckpoint(run: string): Promise<Checkpoint | undefined> {
  const last = (await listCheckpoints(join(run, CHECKPOINTS))).at(-1);
  return last && tellingMend(run, () => readCheckpoint(last.path));
}

/** Errors that say that files are not as they were written. */
const DAMAGED: readonly string[] = ["ERR_RLSD_CHECKPOINT", "ERR_RLSD_MODEL_FILE", "ERR_RLSD_TOKENIZER"];

/** Runs a body that reads a run's last checkpoint. Where that is damaged the error says what the run can go on from. */
export async function tellingMend<T>(run: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    const [last, before] = (await listCheckpoints(join(run, CHECKPOINTS))).toReversed();
    if (!(error instanceof RlsdError) || !DAMAGED.includes(error.code)) throw error;
    if (last === undefined || !error.message.includes(basename(last.path))) throw error;
    const from = before === undefined ? "its beginning" : basename(before.path);
    throw new RlsdError(error.code, `${error.message}. Remove ${last.path}, and the run goes on from ${from}.`, {
      cause: error,
    });
  }
}

/**
 * Runs a body on the checkpoint with the best evaluation, or the last where none was evaluated; undefined: there is none. A
 * run that goes on may remove it meanwhile: then again, on what is the best by then.
 */
export async function onBestCheckpoint<T>(run: string, body: (best: Checkpoint | undefined) => Promise<T>): Promise<T> {
  for (;;) {
    const all = await listCheckpoints(join(run, CHECKPOINTS));
    let path = all.at(-1)?.path;
    if (path === undefined) return body(undefined);
    try {
      const last = await readCheckpoint(path);
      path = all.find((one) => one.step === last.state.best?.step)?.path ?? path;
      return await body(path === last.path ? last : await readCheckpoint(path));
    } catch (error) {
      if (existsSync(path)) throw error;
    }
  }
}

const isPartial = (name: string): boolean => name.endsWith(".partial");

/** Clears away what a run that died was writing or removing. */
export async function removePartials(folder: RunFolder): Promise<void> {
  const names = await readdir(folder.checkpoints);
  for (const name of names.filter(isPartial)) {
    await rm(join(folder.checkpoints, name), { recursive: true, force: true });
  }
}

/** Writes a folder in one stroke: made aside by `fill`, flushed, renamed. */
async function writeFolder(path: string, fill: (aside: string) => Promise<void>): Promise<void> {
  const aside = `${path}.partial`;
  await writing(path, async () => {
    await rm(aside, { recursive: true, force: true });
    try {
      await makeFolder(aside);
      await fill(aside);
      await syncDirectory(aside);
      await rm(path, { recursive: true, force: true });
      await renameOver(aside, path);
      await syncDirectory(join(path, ".."));
    } catch (error) {
      await rm(aside, { recursive: true, force: true });
      throw error;
    }
  });
}

/** Saves what never changes, once, when a run begins. */
export async function saveInitial(folder: RunFolder, parts: Readonly<Record<string, Policy>>): Promise<void> {
  if (Object.keys(parts).length === 0) return;
  await writeFolder(join(folder.checkpoints, INITIAL_FOLDER), async (aside) => {
    for (const [name, policy] of Object.entries(parts)) {
      const held = policy.lora === undefined ? await policy.heldType?.() : undefined;
      await policy.save(join(aside, name), { dtype: held ?? "f32" });
    }
  });
}

/**
 * A checkpoint of the run as it is after `state.step`. The logs are flushed first, so that the offsets it remembers are
 * on the disk. Until the last rename the one before it is the last.
 */
export async function saveCheckpoint(
  folder: RunFolder,
  state: RunState,
  parts: { readonly policy: Policy; readonly teacher: Teacher | undefined; readonly base: string | undefined },
): Promise<string> {
  await folder.flush();
  const path = join(folder.checkpoints, nameOf(state.step));
  const saved: SavedState = { version: 1, state, offsets: folder.offsets, base: parts.base };
  await writeFolder(path, async (aside) => {
    await parts.policy.save(join(aside, MODEL_FOLDER), { optimizer: true, dtype: "f32" });
    await parts.teacher?.save(aside);
    await writeWhole(join(aside, STATE_FILE), `${JSON.stringify(saved, null, 2)}\n`);
  });
  return path;
}

/** All but the newest `keep` checkpoints and the best. */
const superfluous = (all: readonly { step: number; path: string }[], state: RunState, keep: number) =>
  all.slice(0, -keep).filter(({ step }) => step !== state.best?.step);

/** Whether a run, last saved in that state, lived on to remove what it then had no more use for. */
export async function isPruned(run: string, state: RunState, keep: number): Promise<boolean> {
  const folder = join(run, CHECKPOINTS);
  const left = superfluous(await listCheckpoints(folder), state, keep);
  return left.length === 0 && !(await readdir(folder)).some(isPartial);
}

/** Removes all but the newest `keep` checkpoints and the best. */
export async function pruneCheckpoints(folder: RunFolder, state: RunState, keep: number): Promise<void> {
  const all = await listCheckpoints(folder.checkpoints);
  for (const { path } of superfluous(all, state, keep)) {
    // Renamed first: a folder that is half removed must not look like a checkpoint.
    const doomed = `${path}.partial`;
    await renameOver(path, doomed);
    await rm(doomed, { recursive: true, force: true });
  }
}
