import { access } from "node:fs/promises";
import { join } from "node:path";
import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import { differingPaths } from "../leaves.js";
import { type ResolvedConfig, resolveConfig } from "./config.js";
import { merge } from "./config-file.js";
import { settleConfig } from "./resolve-model.js";
import { CONFIG_FILE, readRunConfig, recorded } from "./run-folder.js";
import { train } from "./train.js";
import type { TrainHooks, TrainSummary } from "./train-hooks.js";

type Settings = Readonly<Record<string, unknown>>;

/** One way of training that is compared with others. */
export interface Arm {
  readonly name: string;
  /** What it changes of the settings that all arms share. */
  readonly settings: Settings;
}

/** One run of a comparison: an arm with a seed, in a folder of its own. */
export interface ComparedRun {
  readonly arm: string;
  readonly seed: number;
  readonly folder: string;
  readonly settings: Settings;
}

/** The settings with the credit and without it, and the same loss otherwise: theirs, or what their algorithm has by itself. */
export function defaultArms(settings: Settings): { arms: Arm[]; preset: unknown } {
  const { preset = settings.algorithm === "grpo" ? "grpo" : "rlsd" } = (settings.objective ?? {}) as Settings;
  // Nothing is said of the arm that has it anyway.
  const arm = (algorithm: string): Arm => ({
    name: algorithm,
    settings: { algorithm, ...(preset !== algorithm && { objective: { preset } }) },
  });
  return { arms: [arm("grpo"), arm("rlsd")], preset };
}

/**
 * The runs of a comparison, seed by seed, so that one that is stopped early has compared something. Every arm's settings
 * are checked here, before the first run.
 *
 * @throws RlsdError ERR_RLSD_CONFIG, naming the arm
 */
export function planComparison(settings: Settings, arms: readonly Arm[], seeds: number, output: string): ComparedRun[] {
  if (settings.output !== undefined && settings.output !== "") {
    const message = `"output" is ${show(settings.output)}, but each run of a comparison has a folder of its own: leave it out, and name the folder of all with --output.`;
    throw new RlsdError("ERR_RLSD_CONFIG", message);
  }
  let first = 1;
  for (const arm of arms) {
    try {
      requireOwn(arm);
      // With the seed as it was given, so that one that is none is told.
      const config = resolveConfig(merge(settings, arm.settings));
      requireEvaluation(config);
      first = config.seed;
    } catch (error) {
      if (!(error instanceof RlsdError)) throw error;
      throw new RlsdError(error.code, `arm ${arm.name}: ${error.message}`, { cause: error });
    }
  }
  return Array.from({ length: seeds }, (_, i) => first + i).flatMap((seed) =>
    arms.map((arm) => {
      const folder = join(output, arm.name, `seed-${seed}`);
      return { arm: arm.name, seed, folder, settings: { ...merge(settings, arm.settings), seed, output: folder } };
    }),
  );
}

/** What every run of an arm is given, an arm cannot set. */
function requireOwn({ settings }: Arm): void {
  const name = ["seed", "output"].find((one) => Object.hasOwn(settings, one));
  if (name === undefined) return;
  const instead = name === "seed" ? "the seeds are the same for all arms: --set seed=N is the first" : "see --output";
  throw new RlsdError("ERR_RLSD_CONFIG", `"${name}" cannot differ from arm to arm (${instead}).`);
}

/** What arms are compared by: better missed before hours of training than after. */
function requireEvaluation({ data }: ResolvedConfig): void {
  if (data.eval.length > 0) return;
  throw new RlsdError("ERR_RLSD_CONFIG", 'arms are compared by held-out accuracy: expected files for "data.eval".');
}

async function begun(folder: string): Promise<boolean> {
  try {
    await access(join(folder, CONFIG_FILE));
    return true;
  } catch {
    return false;
  }
}

/** A run that was begun before goes on only with the settings that it has. */
async function requireSame({ arm, seed, folder, settings }: ComparedRun): Promise<void> {
  const began = (await readRunConfig(folder)).config;
  const wanted: unknown = JSON.parse(recorded(await settleConfig(resolveConfig(settings), began)));
  const differing = differingPaths([wanted, began]);
  if (differing.length === 0) return;
  throw new RlsdError(
    "ERR_RLSD_RUN_FOLDER",
    `${folder} holds a run that differs from arm ${arm} with seed ${seed} in ${differing.join(", ")}. Choose another folder with --output.`,
  );
}

/** Trains one run of a comparison, or what is left of it; a finished one is left as it is. */
export async function trainCompared(run: ComparedRun, hooks: TrainHooks): Promise<TrainSummary> {
  if (!(await begun(run.folder))) return train(run.settings, hooks);
  await requireSame(run);
  return train(run.settings, { ...hooks, resume: run.folder });
}
