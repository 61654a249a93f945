import { join } from "node:path";
import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { EvalStart, EvalSummary } from "../trainer/eval-run.js";
import type { Stage } from "../trainer/stage.js";
import { collect, Interrupted, print, printJson, tell, wholeNumber } from "./command.js";
import { onInterrupt } from "./interrupt.js";
import { meanwhile } from "./slowly.js";
import { tokensDrawn } from "./stage-line.js";

interface EvalFlags {
  readonly set?: readonly string[];
  readonly samples?: string;
  readonly output?: string;
  readonly base?: string;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  $ rlsd eval runs/first                         the run's best checkpoint on its own held-out rows
  $ rlsd eval runs/first test.jsonl --samples 8  avg@8 and pass@k besides greedy accuracy
                                                 again, after Ctrl-C or kill -9: it goes on
  $ rlsd eval ./qwen3-0.6b test.parquet --set reward=math --set rollout.maxTokens=512`;

async function settingsOf(flags: EvalFlags): Promise<Record<string, unknown>> {
  const { parseSet, merge } = await import("../trainer/config-file.js");
  const { refuseUnusedSets } = await import("./set-checks.js");
  const settings = await parseSet(flags.set);
  refuseUnusedSets("eval", settings);
  if (flags.samples === undefined) return settings;
  if (Object(settings.eval).samples !== undefined) {
    throw new RlsdError("ERR_RLSD_USAGE", "--samples and --set eval.samples say the same: leave one of them out.");
  }
  const samples = wholeNumber(flags.samples, "--samples");
  const passAt = [1, 2, 4, 8, 16, 32, 64].filter((k) => k <= samples);
  return merge({ eval: { samples, passAt } }, settings);
}

async function showSummary(summary: EvalSummary): Promise<void> {
  const { describeEvaluation } = await import("./progress.js");
  print(describeEvaluation({ step: 0, kind: "eval", time: {}, ...summary.metrics }).replace(/^step 0: /, ""));
  for (const [name, value] of Object.entries(summary.metrics)) {
    print(`  ${name.padEnd(18)} ${Number.isInteger(value) ? value : value.toFixed(4)}`);
  }
  if (summary.skipped > 0) print(`${summary.skipped} rows left out: they do not fit`);
  print(`predictions: ${join(summary.folder, "predictions.jsonl")}`);
}

async function runEval(directory: string, files: readonly string[], flags: EvalFlags): Promise<void> {
  const { evaluateModel } = await import("../trainer/eval-run.js");
  const settings = await settingsOf(flags);
  const { signal, dispose } = onInterrupt(() => {});
  let begun: EvalStart | undefined;
  let stage: Stage;
  let quiet: (() => void) | undefined;
  const onStage = (next: Stage) => {
    stage = next;
    quiet ??= meanwhile(() => `${stage.done} of ${stage.total} completions judged${tokensDrawn(stage)}`);
  };
  const onStart = (start: EvalStart) => {
    begun = start;
    const { folder, kept, total } = start;
    if (kept === total) {
      tell(
        `rlsd: ${folder} has all ${total} completions: none is drawn or judged again; another --output makes new ones`,
      );
    } else if (kept > 0) {
      tell(`rlsd: going on in ${folder}: ${kept} of ${total} completions are there`);
    }
  };
  try {
    const hooks = { signal, base: flags.base, onStart, onStage };
    const summary = await evaluateModel(directory, files, flags.output ?? null, settings, hooks);
    quiet?.();
    if (flags.json) printJson(summary);
    else await showSummary(summary);
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    const left = begun ? `${begun.folder} has what was judged, and the same command goes on` : "nothing was written";
    throw new Interrupted(`interrupted: ${left}`);
  } finally {
    quiet?.();
    dispose();
  }
}

export function registerEval(program: Command): void {
  program
    .command("eval")
    .description("judge a run, a checkpoint or a model on held-out rows; every prediction is kept")
    .argument("<directory>", "run, checkpoint, model folder or .gguf file")
    .argument(
      "[data...]",
      "JSONL, JSON, CSV, TSV or Parquet files, folders or patterns; default: the run's own held-out rows",
    )
    .option("--samples <k>", "draw k completions a row besides the greedy one, for avg@k and pass@k")
    .option("--set <key=value>", "one setting, as --set reward=math; repeatable", collect)
    .option(
      "--output <folder>",
      "where predictions.jsonl and metrics.json go; default: one under runs/, that of the same evaluation where it was interrupted",
    )
    .option("--base <folder>", "the model under adapters; default: what they say themselves")
    .option("--json", "one JSON object")
    .addHelpText("after", EXAMPLES)
    .action((directory: string, files: string[], flags: EvalFlags) => runEval(directory, files, flags));
}
