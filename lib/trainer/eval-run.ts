import { checkFunction, checkObject, checkPath, checkPaths, checkSignal } from "../check.js";
import { RlsdError } from "../errors.js";
import { instructionSet } from "../ops/backend-info.js";
import type { Policy } from "../policy/policy.js";
import { startVerifier } from "../verifiers/start.js";
import { packageVersion } from "../version.js";
import { type ResolvedConfig, resolveConfig, type TrainConfig } from "./config.js";
import { merge } from "./config-file.js";
import { findDataFiles } from "./data/find-files.js";
import { giveUpAll, releasing } from "./durable.js";
import { EvalFolder, type EvaluationRecord, refuseUnknown, rowsFingerprint } from "./eval-folder.js";
import { evaluate } from "./evaluate.js";
import { createLeakDetector, type Numbers } from "./metrics.js";
import { createReward, disposeMaterials, loadPrompts } from "./prepare.js";
import { loadAsked, type ModelSource, type ResolvedModel, weightsFingerprint, withModel } from "./resolve-model.js";
import type { Prompted } from "./rollout.js";
import type { OnStage } from "./stage.js";
import { startTalk } from "./talk.js";

/** What `evaluateModel` found. */
export interface EvalSummary {
  /** Folder of the weights: of a run those of its best checkpoint. */
  readonly model: string;
  /** Where predictions.jsonl, evaluation.json and metrics.json are. */
  readonly folder: string;
  /**
   * By name: `accuracy` of greedy completions with its 95 % interval (`accuracyLow`, `accuracyHigh`), `reward`, `rows`, `unjudged`,
   * `length` (tokens), `truncatedFraction`, `leakRate`; with `eval.samples` `avg@k` and `pass@k`, each with its bounds; `loss` where
   * rows have traces to learn. Shares are from 0 to 1.
   */
  readonly metrics: Numbers;
  /** Rows left out because they do not fit. */
  readonly skipped: number;
  /** Predictions that were there before this call, of one that was interrupted or finished. */
  readonly kept: number;
}

/** An evaluation that is about to begin, or to go on. */
export interface EvalStart {
  /** Where predictions.jsonl, evaluation.json and metrics.json are, or will be. */
  readonly folder: string;
  /** Predictions that are there before this call, of one that was interrupted or finished. */
  readonly kept: number;
  /** Predictions that there will be: for each row a greedy one, and `eval.samples`. */
  readonly total: number;
}

/** What `evaluateModel` takes besides settings, all of it optional. */
export interface EvalHooks extends ModelSource {
  /** Stops: what was judged is kept, and the same call goes on from there. It rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** After everything is loaded and checked, before the first completion is drawn. A promise is waited for. */
  readonly onStart?: ((start: EvalStart) => unknown) | undefined;
  /** At the start of the evaluation, and after each verdict. */
  readonly onStage?: OnStage | undefined;
}

const HOOKS: ReadonlySet<string> = new Set<keyof EvalHooks>(["signal", "onStart", "onStage", "loadPolicy", "base"]);

function checkHooks(hooks: EvalHooks): void {
  checkObject(hooks, "hooks", HOOKS);
  checkSignal(hooks.signal, "hooks.signal");
  for (const name of ["loadPolicy", "onStart", "onStage"] as const) checkFunction(hooks[name], `hooks.${name}`);
}

/** What is evaluated, and on what. */
async function open(found: ResolvedModel, files: readonly string[], given: TrainConfig, source: EvalHooks) {
  const { model, settings } = found;
  // A run's eval.limit is for its own held-out rows: of files that are named all rows are meant.
  const all = files.length > 0 ? { eval: { limit: 0 } } : {};
  const merged = merge(merge(merge(settings, all), given), { model });
  const own = merged.data as { eval?: readonly string[] } | undefined;
  const held = await findDataFiles(files.length > 0 ? files : (own?.eval ?? []));
  if (held.length === 0) {
    const message = "Name the files to evaluate on: rlsd eval DIR DATA, or evaluateModel(DIR, [DATA], OUTPUT).";
    throw new RlsdError("ERR_RLSD_USAGE", message);
  }
  const config = resolveConfig(merge(merged, { data: { train: held, eval: held } }));
  const { policy, text } = await loadAsked(found, config, source);
  return releasing(
    () => policy.dispose(),
    async () => {
      const weights = source.loadPolicy === undefined ? await weightsFingerprint(model, source.base) : null;
      const verifier = createReward(config.reward);
      const talk = await startTalk(config, { ...text, policy }, source.signal);
      return { model, config, held, policy, text, weights, verifier, talk };
    },
  );
}

/** All that predictions depend on. Other settings are for the metrics, which are made at the end. */
function recordOf(
  o: {
    readonly model: string;
    readonly config: ResolvedConfig;
    readonly held: readonly string[];
    readonly weights: string | null;
    readonly policy: Policy;
  },
  prompts: readonly Prompted[],
): EvaluationRecord {
  const { seed, matmulType, maxLength, reward, environment, overlong, rollout, eval: evaluation } = o.config;
  const { topK, topP, minP, maxTokens, turns, stopStrings } = rollout;
  const { samples, temperature } = evaluation;
  return {
    version: packageVersion(),
    instructionSet: instructionSet(),
    model: o.model,
    data: o.held,
    weights: o.weights,
    rows: rowsFingerprint(prompts),
    endTokenIds: o.policy.endTokenIds ?? null,
    settings: {
      seed,
      matmulType,
      // Absent where it is not set, as in records from before there was one.
      ...(maxLength !== null && { maxLength }),
      reward,
      ...(environment !== null && { environment, turns }),
      overlong,
      rollout: { topK, topP, minP, maxTokens, stopStrings },
      eval: { samples, temperature },
    },
  };
}

/**
 * Evaluates a run, a checkpoint or a model on rows, and keeps every prediction in `predictions.jsonl` as soon as it is judged;
 * `metrics.json` comes last. The same call goes on where an earlier one was interrupted, with the results of one that was not;
 * after one that was finished it draws and judges nothing, and makes the metrics of what is there.
 *
 * @param files held-out rows; none: those of the run
 * @param output folder of the results; null: that of the same evaluation under runs/ where it was not finished, or a new one
 * @param given settings that win over those of the run (`reward`, `rollout`, `eval`, ...)
 */
export async function evaluateModel(
  directory: string,
  files: readonly string[],
  output: string | null,
  given: TrainConfig = {},
  hooks: EvalHooks = {},
): Promise<EvalSummary> {
  checkPath(directory, "directory");
  checkPaths(files, "files");
  checkHooks(hooks);
  if (output !== null) await refuseUnknown(checkPath(output, "output"));
  const opened = await withModel(directory, hooks, (found) => open(found, files, given, hooks));
  const { model, config, held, policy, text, verifier, talk } = opened;
  try {
    const { prompts, skipped } = await loadPrompts("the data", held, config, {
      ...text,
      verifier,
      talk,
      maxLength: policy.maxLength,
      limit: config.eval.limit,
    });
    const record = recordOf(opened, prompts);
    await startVerifier(verifier, hooks.signal);
    const folder = await (output === null ? EvalFolder.find(record) : EvalFolder.open(output, record));
    try {
      const kept = folder.predictions.count;
      await hooks.onStart?.({ folder: folder.path, kept, total: prompts.length * (1 + config.eval.samples) });
      const { metrics } = await evaluate({
        ...text,
        policy,
        verifier,
        talk,
        prompts,
        config,
        leaks: createLeakDetector(config.leak.patterns),
        kept: folder.predictions,
        step: 0,
        signal: hooks.signal ?? new AbortController().signal,
        onStage: hooks.onStage,
      });
      await folder.finish(model, metrics);
      return { model, folder: folder.path, metrics, skipped, kept };
    } finally {
      await folder.close();
    }
  } finally {
    await giveUpAll(
      () => disposeMaterials({ verifier, talk }),
      () => policy.dispose(),
    );
  }
}
