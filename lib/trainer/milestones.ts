import type { RunState } from "./checkpoint.js";
import type { ResolvedConfig } from "./config.js";

/** Whether a run is to be evaluated as it is; `held`: rows it has for that. */
export function evaluationDue(state: RunState, config: ResolvedConfig, held: number): boolean {
  if (held === 0 || state.evaluatedAt >= state.step) return false;
  if (state.step === 0) return config.eval.atStart;
  return state.step === config.steps || (config.eval.every > 0 && state.step % config.eval.every === 0);
}

export function afterEvaluation(state: RunState, accuracy: number, config: ResolvedConfig): RunState {
  const better = state.best === null || accuracy > state.best.accuracy + config.stop.minDelta;
  const best = better ? { step: state.step, accuracy } : state.best;
  const sinceBest = better ? 0 : state.sinceBest + 1;
  return { ...state, evaluatedAt: state.step, accuracy, best, sinceBest };
}

/** Why these settings end a run before its last step; null: they do not. Other settings may let it go on. */
export function endedBy({ accuracy, sinceBest }: RunState, { stop }: ResolvedConfig): "patience" | "target" | null {
  if (stop.target !== null && (accuracy ?? Number.NEGATIVE_INFINITY) >= stop.target) return "target";
  return stop.patience > 0 && sinceBest >= stop.patience ? "patience" : null;
}

/** Whether a run is to be saved as it is, behind the evaluation that is due. */
export function checkpointDue(state: RunState, config: ResolvedConfig): boolean {
  if (state.step === 0) return false;
  const { every } = config.checkpoint;
  return (
    (every > 0 && state.step % every === 0) || (state.best?.step === state.step && state.evaluatedAt === state.step)
  );
}

/** Whether no step is left to make. */
export const lastStepMade = (state: RunState, config: ResolvedConfig): boolean =>
  endedBy(state, config) !== null || state.step >= config.steps;
