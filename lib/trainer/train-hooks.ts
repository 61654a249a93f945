/** What a caller gives `train` besides settings, and what it is told. */
import { checkFunction, checkObject, checkSignal, invalid } from "../check.js";
import type { RunState } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";
import type { DiskPlan } from "./disk.js";
import type { MetricsLine } from "./metrics-line.js";
import type { Prediction } from "./predict.js";
import type { PrivilegedFunction } from "./privileged-text.js";
import type { OnStage } from "./stage.js";
import type { ParameterCounts } from "./student.js";
import type { LoadPolicy } from "./teacher.js";

/** What `train` takes besides settings, all of it optional. A hook that throws ends the run, as does a promise of one that rejects. */
export interface TrainHooks {
  /**
   * Stops at the next safe point; what was done is saved and the summary says `interrupted`. While the verifier still starts,
   * nothing has been written, and the call rejects with the signal's reason.
   */
  readonly signal?: AbortSignal | undefined;
  /** After everything is loaded and checked, before the first step. A promise is waited for. */
  readonly onStart?: ((start: RunStart) => unknown) | undefined;
  /** After each step, with the line that was added to metrics.jsonl. A promise is waited for. */
  readonly onStep?: ((metrics: MetricsLine) => unknown) | undefined;
  /** After each evaluation, with its line and what was answered. A promise is waited for. */
  readonly onEval?: ((metrics: MetricsLine, predictions: readonly Prediction[]) => unknown) | undefined;
  /** While a step or an evaluation is made: what is being done, and after each verdict. Nothing waits for it. */
  readonly onStage?: OnStage | undefined;
  /**
   * Builds the privileged text of a sample instead of `privileged.source`; null or undefined: as `privileged.source` says.
   * Its text is taken at once: a promise is refused.
   */
  readonly privileged?: PrivilegedFunction | undefined;
  /**
   * How a model folder becomes a policy. Default: the built-in engine. A hook answers for what adapters stand on: a run that
   * goes on is not held to the weights that it began with.
   */
  readonly loadPolicy?: LoadPolicy | undefined;
  /**
   * Goes on with the run in this folder, from its last checkpoint. One that is finished is left as it is: nothing is loaded
   * or written, and no hook called.
   */
  readonly resume?: string | undefined;
}

/** A run that is about to begin, or to go on. */
export interface RunStart extends ParameterCounts {
  /** The run's; absolute. */
  readonly folder: string;
  /** Every setting, defaults included. */
  readonly config: ResolvedConfig;
  /** Rows that are used, of data.train and data.eval. */
  readonly rows: { readonly train: number; readonly eval: number };
  /** Rows that were left out because they do not fit (`data.invalid: skip`). */
  readonly skipped: { readonly train: number; readonly eval: number };
  /** Held-out prompts that are training prompts as well, word for word. */
  readonly heldOutInTraining: number;
  /** Training rows that bring no privileged text; null: it comes from completions or a hook, or no step asks for it. */
  readonly withoutPrivileged: number | null;
  /** What its checkpoints take, and what is free. */
  readonly disk: DiskPlan;
  /** Updates made before, in a run that goes on. */
  readonly step: number;
  /** The CPU's instructions that made those, where they are others now: what follows agrees with them to float32 tolerance. */
  readonly earlierInstructionSet: string | null;
  /** Of a run that goes on: which of its rows, or of their prompts, are not those of the steps before. */
  readonly otherRows: readonly ("train" | "eval")[];
}

/** What a run came to. */
export interface TrainSummary {
  /** The run's; absolute. */
  readonly folder: string;
  /** The last one's folder. */
  readonly checkpoint: string;
  /** Updates made, those before a resume included. */
  readonly step: number;
  /** Why it ended: all steps done, no better for so many evaluations, good enough, or aborted. */
  readonly stopped: "done" | "patience" | "target" | "interrupted";
  /** The evaluation with the highest accuracy; null: there was none. */
  readonly best: RunState["best"];
  /** Greedy accuracy at the first and the last evaluation of this call, from 0 to 1; null: it made none. */
  readonly accuracy: { readonly first: number; readonly last: number } | null;
  /** Drawn in all rollouts of the run. */
  readonly tokens: number;
  /** Of this call. */
  readonly seconds: number;
}

const FUNCTIONS = ["onStart", "onStep", "onEval", "onStage", "privileged", "loadPolicy"] as const;
const FIELDS: ReadonlySet<string> = new Set<keyof TrainHooks>([...FUNCTIONS, "signal", "resume"]);

/** A hook with a misspelt name would never be called. */
export function checkHooks(hooks: TrainHooks): void {
  checkObject(hooks, "hooks", FIELDS);
  for (const name of FUNCTIONS) checkFunction(hooks[name], `hooks.${name}`);
  const { resume }: { resume?: unknown } = hooks;
  checkSignal(hooks.signal, "hooks.signal");
  if (resume !== undefined && (typeof resume !== "string" || resume === "")) {
    throw invalid("a run folder", "hooks.resume", resume);
  }
}
