import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { RlsdError } from "../errors.js";
import { ADAPTER_CONFIG } from "../policy/adapter-folder.js";
import { makeFolder } from "../policy/folder.js";
import { loadPolicy } from "../policy/load.js";
import { startVerifier } from "../verifiers/start.js";
import { bestCheckpoint, type Checkpoint, readCheckpoint, STATE_FILE } from "./checkpoint.js";
import { resolveConfig, type TrainConfig } from "./config.js";
import { merge } from "./config-file.js";
import { LineFile, writeWhole, writing } from "./durable.js";
import { evaluate, type Prediction } from "./evaluate.js";
import { createLeakDetector, type Numbers } from "./metrics.js";
import { checkVocabulary, createReward, loadPrompts, loadTextParts } from "./prepare.js";
import { CHECKPOINTS, readRunConfig, rounded } from "./run-folder.js";
import { requireBase } from "./student.js";
import type { LoadPolicy } from "./teacher.js";

type Tree = Record<string, unknown>;

export interface EvalSummary {
  readonly model: string;
  readonly folder: string;
  readonly metrics: Numbers;
  /** Rows left out because they do not fit. */
  readonly skipped: number;
}

interface ResolvedModel {
  readonly model: string;
  /** Those it was trained by; none for a model that is not a run's. */
  readonly settings: Tree;
  /** Updates behind it; 0 for a model that is not a run's. */
  readonly step: number;
  /** Where it lies with what trained it; undefined for a model that is not a run's, whatever folders are beside it. */
  readonly checkpoint: Checkpoint | undefined;
}

async function resolveCheckpoint(checkpoint: Checkpoint, run: string): Promise<ResolvedModel> {
  const { model, state } = checkpoint;
  await requireBase(checkpoint, model);
  return { model, settings: { ...(await readRunConfig(run)).config }, step: state.step, checkpoint };
}

/** What a folder is: a run (its best checkpoint), a checkpoint, or a model or adapters of one. */
export async function resolveModel(directory: string): Promise<ResolvedModel> {
  if (existsSync(join(directory, CHECKPOINTS))) {
    const best = await bestCheckpoint(directory);
    if (best === undefined) throw new RlsdError("ERR_RLSD_CHECKPOINT", `${directory}: this run has no checkpoint yet.`);
    return resolveCheckpoint(best, directory);
  }
  if (existsSync(join(directory, STATE_FILE))) {
    return resolveCheckpoint(await readCheckpoint(directory), resolve(directory, "..", ".."));
  }
  if (existsSync(join(directory, "config.json")) || existsSync(join(directory, ADAPTER_CONFIG))) {
    return { model: directory, settings: {}, step: 0, checkpoint: undefined };
  }
  throw new RlsdError(
    "ERR_RLSD_MODEL",
    `${directory} is neither a run, nor a checkpoint, nor a model folder (it has neither config.json nor adapter_config.json).`,
  );
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

/** A file where the folder of the results is to be: better known before an evaluation than after it. */
async function refuseFile(output: string): Promise<void> {
  await writing(output, async () => {
    const found = await stat(output).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (found?.isDirectory() === false) throw Object.assign(new Error("a file"), { code: "EEXIST" });
  });
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
  hooks: { readonly signal?: AbortSignal | undefined; readonly loadPolicy?: LoadPolicy | undefined } = {},
): Promise<EvalSummary> {
  const { model, settings } = await resolveModel(directory);
  const merged = merge(merge(settings, given), { model });
  const own = merged.data as { eval?: readonly string[] } | undefined;
  const held = files.length > 0 ? files : (own?.eval ?? []);
  if (held.length === 0) throw new RlsdError("ERR_RLSD_USAGE", "Name the files to evaluate on: rlsd eval DIR DATA.");
  await refuseFile(output);
  const config = resolveConfig(merge(merged, { data: { train: held, eval: held } }));
  const load = hooks.loadPolicy ?? ((folder: string) => loadPolicy(folder));
  const policy = await load(model);
  const verifier = createReward(config.reward);
  try {
    const text = await loadTextParts(model, config.data.templateVariables);
    checkVocabulary(policy, text.tokenizer, model);
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
    });
    const file = join(output, "predictions.jsonl");
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
