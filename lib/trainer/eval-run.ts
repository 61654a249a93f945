import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { checkFunction, checkObject, checkPath, checkPaths, checkSignal } from "../check.js";
import { RlsdError } from "../errors.js";
import { makeFolder } from "../policy/folder.js";
import { startVerifier } from "../verifiers/start.js";
import { resolveConfig, type TrainConfig } from "./config.js";
import { merge } from "./config-file.js";
import { LineFile, releasing, writeWhole, writing } from "./durable.js";
import { evaluate, type Prediction } from "./evaluate.js";
import { createLeakDetector, type Numbers } from "./metrics.js";
import { createReward, loadPrompts } from "./prepare.js";
import { loadAsked, type ModelSource, type ResolvedModel, withModel } from "./resolve-model.js";
import { rounded } from "./run-folder.js";
import type { OnStage } from "./stage.js";

const PREDICTIONS_FILE = "predictions.jsonl";

export interface EvalSummary {
  readonly model: string;
  readonly folder: string;
  readonly metrics: Numbers;
  /** Rows left out because they do not fit. */
  readonly skipped: number;
}

const predictionLine = ({ rollout, verdict, greedy }: Prediction): string =>
  JSON.stringify({
    id: rollout.id,
    greedy,
    prompt: rollout.prompt.text,
    completion: rollout.text,
    finish: rollout.finish,
    reward: verdict.reward,
    logProb: rounded([rollout.logProbs.reduce((sum, p) => sum + p, 0)])[0],
    detail: { ...verdict.detail, ...(verdict.reason !== undefined && { reason: verdict.reason }) },
  });

/** A file where the folder of the results is to be, or results that would be lost: better known before than after. */
async function refuseUsed(output: string): Promise<void> {
  await writing(output, async () => {
    const found = await stat(output).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (found?.isDirectory() === false) throw Object.assign(new Error("a file"), { code: "EEXIST" });
    if (!existsSync(join(output, PREDICTIONS_FILE))) return;
    const message = `${output} holds an evaluation already: choose another folder for this one.`;
    throw new RlsdError("ERR_RLSD_WRITE", message);
  });
}

export interface EvalHooks extends ModelSource {
  readonly signal?: AbortSignal | undefined;
  /** At the start of the evaluation, and after each verdict. */
  readonly onStage?: OnStage | undefined;
}

const HOOKS: ReadonlySet<string> = new Set<keyof EvalHooks>(["signal", "onStage", "loadPolicy", "base"]);

/** What is evaluated, and on what. */
async function open(found: ResolvedModel, files: readonly string[], given: TrainConfig, source: ModelSource) {
  const { model, settings } = found;
  const merged = merge(merge(settings, given), { model });
  const own = merged.data as { eval?: readonly string[] } | undefined;
  const held = files.length > 0 ? files : (own?.eval ?? []);
  if (held.length === 0) throw new RlsdError("ERR_RLSD_USAGE", "Name the files to evaluate on: rlsd eval DIR DATA.");
  const config = resolveConfig(merge(merged, { data: { train: held, eval: held } }));
  const { policy, text } = await loadAsked(found, config.data.templateVariables, source);
  return releasing(
    () => policy.dispose(),
    async () => ({ model, config, held, policy, text, verifier: createReward(config.reward) }),
  );
}

/**
 * Evaluates a run, a checkpoint or a model on rows, and keeps every prediction: `predictions.jsonl` and `metrics.json` in
 * `output`.
 *
 * @param files held-out rows; none: those of the run
 * @param given settings that win over those of the run (`reward`, `rollout`, `eval`, ...)
 */
export async function evaluateModel(
  directory: string,
  files: readonly string[],
  output: string,
  given: TrainConfig = {},
  hooks: EvalHooks = {},
): Promise<EvalSummary> {
  checkPath(directory, "directory");
  checkPaths(files, "files");
  checkObject(hooks, "hooks", HOOKS);
  checkSignal(hooks.signal, "hooks.signal");
  checkFunction(hooks.loadPolicy, "hooks.loadPolicy");
  checkFunction(hooks.onStage, "hooks.onStage");
  await refuseUsed(checkPath(output, "output"));
  const opened = await withModel(directory, hooks, (found) => open(found, files, given, hooks));
  const { model, config, held, policy, text, verifier } = opened;
  try {
    const { prompts, skipped } = await loadPrompts("the data", held, config, {
      ...text,
      verifier,
      maxLength: policy.maxLength,
      limit: config.eval.limit,
    });
    await startVerifier(verifier, hooks.signal);
    const { metrics, predictions } = await evaluate({
      ...text,
      policy,
      verifier,
      prompts,
      config,
      leaks: createLeakDetector(config.leak.patterns),
      step: 0,
      signal: hooks.signal ?? new AbortController().signal,
      onStage: hooks.onStage,
    });
    const file = join(output, PREDICTIONS_FILE);
    await writing(output, () => makeFolder(dirname(file)));
    const lines = await LineFile.open(file);
    try {
      await lines.append(predictions.map(predictionLine));
      await lines.flush();
    } finally {
      await lines.close();
    }
    await writeWhole(join(output, "metrics.json"), `${JSON.stringify({ model, ...metrics }, null, 2)}\n`);
    return { model, folder: output, metrics, skipped };
  } finally {
    await verifier.dispose?.();
    await policy.dispose();
  }
}
