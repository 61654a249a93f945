import { readdir, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import { readTextFiles } from "../policy/text-files.js";
import { ALGORITHMS, asksTeacher } from "./algorithms.js";
import { bytesText } from "./bytes-text.js";
import type { ResolvedConfig } from "./config.js";
import { CHECKPOINTS } from "./run-folder.js";
import { sum } from "./statistics.js";
import { parametersOf } from "./student.js";

/** Bytes that a run's checkpoints take, without its logs. */
export interface DiskPlan {
  /** Where the run is written. */
  readonly folder: string;
  /** Of one checkpoint: weights or adapters, both moments, a teacher that moves, the text files. */
  readonly checkpoint: number;
  /** How many there are at once, at most: those kept, the best, and the one that is being written. */
  readonly checkpoints: number;
  /** Written once: a frozen teacher, a KL reference. */
  readonly initial: number;
  /** When the most is there at once: `checkpoints` of them, and `initial`. */
  readonly total: number;
  /** Of them, those that are there already. */
  readonly present: number;
  /** Free for this user where the run is written; null: the file system does not tell. */
  readonly free: number | null;
}

/** float32 weights and two moments. */
const CHECKPOINT_BYTES = 12;
const WEIGHT_BYTES = 4;

/** Checkpoints that are there at once, at most: a new one is whole before an old one is removed. */
function checkpointsAtOnce({ steps, eval: evaluation, checkpoint, data }: ResolvedConfig): number {
  const times = (every: number) => (every > 0 ? Math.floor(steps / every) : 0);
  const evaluated = data.eval.length > 0;
  const made = 1 + times(checkpoint.every) + (evaluated ? times(evaluation.every) : 0);
  return Math.min(made, checkpoint.keep + 1 + Number(evaluated));
}

async function bytesIn(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const sizes = names.map((name) =>
    stat(join(folder, name)).then(
      (found) => (found.isFile() ? found.size : 0),
      () => 0,
    ),
  );
  return sum(await Promise.all(sizes));
}

/** Bytes that a user may write where a folder is, or will be. */
async function freeAt(folder: string): Promise<number | null> {
  for (let at = resolve(folder); ; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
      if (!missing || dirname(at) === at) return null;
    }
  }
}

/**
 * What the checkpoints of a run take.
 *
 * @param text folder of its tokenizer and chat template
 * @param folder of the run, or what it will lie in
 */
export async function planDisk(
  config: ResolvedConfig,
  policy: Policy,
  text: string,
  folder = config.output || "runs",
): Promise<DiskPlan> {
  const { trained, parameters } = parametersOf(policy);
  const { files } = await readTextFiles(text);
  const beside = [...files.values()].reduce((sum, file) => sum + file.byteLength, 0);
  const { kind } = config.teacher;
  const asks = asksTeacher(config);
  const moves = asks && (kind === "periodic" || kind === "ema");
  const checkpoint = CHECKPOINT_BYTES * trained + beside + (moves ? WEIGHT_BYTES * trained + beside : 0);
  const held = trained < parameters ? "f32" : ((await policy.heldType?.()) ?? "f32");
  const copies = Number(asks && kind === "frozen") + Number(ALGORITHMS[config.algorithm].objective(config).klCoef > 0);
  const initial = copies * ((held === "f32" ? WEIGHT_BYTES : WEIGHT_BYTES / 2) * trained + beside);
  const checkpoints = checkpointsAtOnce(config);
  const total = initial + checkpoints * checkpoint;
  const present = await bytesIn(join(folder, CHECKPOINTS));
  return { folder, checkpoint, checkpoints, initial, total, present, free: await freeAt(folder) };
}

/** What a run may lack before its end; undefined: nothing, or nobody knows. */
export function diskShortage({ folder, total, present, free }: DiskPlan): string | undefined {
  const needed = total - present;
  if (free === null || free >= needed) return undefined;
  return `checkpoints will take up to ${bytesText(needed)} more, but ${folder} has ${bytesText(free)} free: lower "checkpoint.keep", train adapters ("lora.rank"), or choose another folder`;
}

/**
 * A run that cannot save its first checkpoint would lose all of its work.
 *
 * @throws RlsdError ERR_RLSD_WRITE
 */
export function requireRoom({ folder, checkpoint, initial, present, free }: DiskPlan): void {
  const needed = checkpoint + (present > 0 ? 0 : initial);
  if (free === null || free >= needed) return;
  throw new RlsdError(
    "ERR_RLSD_WRITE",
    `${folder} has ${bytesText(free)} free, but the next checkpoint takes ${bytesText(needed)}: free some, choose another folder (--output), or train adapters ("lora.rank").`,
  );
}

/** The plan in words. */
export function diskText({ folder, checkpoint, checkpoints, initial, total, present, free }: DiskPlan): string {
  const once = initial > 0 ? `, and ${bytesText(initial)} once` : "";
  const there = present > 0 ? `; ${bytesText(present)} are there` : "";
  const left = free === null ? "" : `; ${bytesText(free)} free in ${folder}`;
  return `${bytesText(total)} at most: ${checkpoints} checkpoints of ${bytesText(checkpoint)}${once}${there}${left}`;
}
