import { mkdirSync } from "node:fs";
import { checkPath } from "../check.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import type { RunStart } from "../trainer/train-hooks.js";
import { writeError } from "../write-error.js";
import { createEventFile, type EventFile } from "./event-file.js";

/** Hooks for `train`; where you have hooks of your own by these names, call these from them. */
export interface TensorBoardHooks {
  /** Begins an event file in the run's folder. */
  readonly onStart: (start: Pick<RunStart, "folder" | "step">) => void;
  /** train/... and time/... of a step. */
  readonly onStep: (metrics: MetricsLine) => void;
  /** eval/... of an evaluation. */
  readonly onEval: (metrics: MetricsLine) => void;
}

/** The numbers of a line as TensorBoard names them: train/reward, eval/accuracy, time/total. */
function scalarsOf({ kind, step: _, time, ...rest }: MetricsLine): Record<string, number> {
  const named = (group: string, values: Readonly<Record<string, unknown>>) =>
    Object.entries(values).flatMap(([name, value]): [string, number][] =>
      typeof value === "number" ? [[`${group}/${name}`, value]] : [],
    );
  return Object.fromEntries([...named(kind, rest), ...(kind === "train" ? named("time", time) : [])]);
}

function writing(folder: string, body: () => void): void {
  try {
    body();
  } catch (error) {
    throw writeError(`TensorBoard's events into ${folder}`, error);
  }
}

/**
 * Writes what a run logs as TensorBoard event files while it goes on: `train(settings, tensorBoard())`, then
 * `tensorboard --logdir runs`. A run that goes on (`resume`) begins a new file, before which nothing of the steps that it makes
 * again counts.
 *
 * @param folder default: the run's own
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT for a folder that is no path; its hooks ERR_RLSD_WRITE when the disk refuses
 */
export function tensorBoard(folder?: string): TensorBoardHooks {
  if (folder !== undefined) checkPath(folder, "folder");
  let file: EventFile | undefined;
  let into = folder;
  const log = (line: MetricsLine) => writing(into!, () => file!.scalars(line.step, scalarsOf(line)));
  return {
    onStart: ({ folder: run, step }) => {
      into = folder ?? run;
      writing(into, () => {
        mkdirSync(into!, { recursive: true });
        file = createEventFile(into!, step + 1);
      });
    },
    onStep: log,
    onEval: log,
  };
}
