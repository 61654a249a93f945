import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { TensorBoardHooks } from "../report/tensorboard.js";
import type { Warning } from "../report/warnings.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import type { Success } from "../trainer/success.js";
import type { TrainHooks, TrainSummary } from "../trainer/train-hooks.js";
import type { AnswerChanges } from "./before-after.js";
import { collect, Interrupted, optionName, print, printJson } from "./command.js";
import { onInterrupt } from "./interrupt.js";
import type { Progress } from "./progress.js";
import { onceSlow } from "./slowly.js";

interface TrainFlags {
  readonly set?: readonly string[];
  readonly output?: string;
  readonly resume?: string;
  readonly dryRun?: boolean;
  readonly settings?: boolean;
  /** false: --no-report. */
  readonly report: boolean;
  readonly tensorboard?: boolean;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  $ rlsd train                                   the built-in example
  $ rlsd train --set algorithm=grpo --set seed=2
  $ rlsd train run.yaml --set optimizer.learningRate=2e-6 --output runs/first
  $ rlsd train run.yaml --set algorithm=sft      first imitate the traces of the data
  $ rlsd train run.yaml --dry-run                shapes, memory, schedule; trains nothing
  $ rlsd train --resume runs/first               go on where it was stopped
  $ rlsd train --settings                        every setting, with its default`;

/** The settings that a call means: file or example, then --set, then --output. */
async function settingsOf(file: string | undefined, flags: TrainFlags): Promise<Record<string, unknown>> {
  const { merge, parseSet, readConfigFile } = await import("../trainer/config-file.js");
  const changes = await parseSet(flags.set);
  let settings: Record<string, unknown>;
  if (flags.resume !== undefined) {
    if (file !== undefined) {
      throw new RlsdError("ERR_RLSD_USAGE", "--resume takes the run's own settings: leave out the settings file.");
    }
    const other = flags.output !== undefined ? "--output" : "output" in changes ? "--set output" : undefined;
    if (other !== undefined) {
      throw new RlsdError("ERR_RLSD_USAGE", `--resume goes on in the run's own folder: leave out ${other}.`);
    }
    const { readRunConfig } = await import("../trainer/run-folder.js");
    settings = { ...(await readRunConfig(flags.resume)).config };
  } else if (file !== undefined) {
    settings = await readConfigFile(file);
  } else {
    const { settingsWithoutFile } = await import("../trainer/example/config.js");
    settings = { ...settingsWithoutFile(changes) };
  }
  settings = merge(settings, changes);
  return flags.output === undefined ? settings : { ...settings, output: flags.output };
}

async function showSettings(json: boolean): Promise<void> {
  const { describeSettings } = await import("../trainer/schema.js");
  const { trainSchema } = await import("../trainer/settings.js");
  const all = describeSettings(trainSchema);
  if (json) return printJson(all);
  const width = Math.max(...all.map(({ name }) => name.length));
  for (const { name, default: fallback, doc } of all) print(`${name.padEnd(width)}  ${doc}; default ${fallback}`);
}

const ENDINGS: Readonly<Record<TrainSummary["stopped"], string>> = {
  done: "done",
  patience: "ended early: no better result for some evaluations",
  target: "ended early: the target was reached",
  interrupted: "interrupted",
};

/** What a run came to besides its summary. */
interface Told {
  readonly report: string | undefined;
  readonly warnings: readonly Warning[];
  readonly answers: AnswerChanges | undefined;
}

/** ": of 60 answers 3 became right and 12 wrong"; "" where there is nothing to compare. */
function answersText({ answers, warnings }: Told): string {
  if (answers === undefined || answers.rows === 0) return "";
  const { rows, gained, lost, reworded } = answers;
  if (gained + lost + reworded > 0) {
    return `: of ${rows} answers ${gained} became right and ${lost} wrong, ${reworded} were reworded`;
  }
  const taught = !warnings.some(({ metric }) => metric === "zeroVarianceFraction");
  return `: not one of ${rows} answers changed${taught ? ", a larger optimizer.learningRate may be wanted" : ""}`;
}

async function summaryText(summary: TrainSummary, told: Told): Promise<string> {
  const { folder, checkpoint, step, stopped, best, accuracy, tokens, seconds } = summary;
  const { lookAt } = await import("./look-at.js");
  const share = (value: number) => `${(100 * value).toFixed(1)}%`;
  const lines = [`${ENDINGS[stopped]} after step ${step}: ${tokens} tokens in ${seconds.toFixed(1)} s`];
  if (accuracy !== null) {
    lines.push(`held-out accuracy ${share(accuracy.first)} -> ${share(accuracy.last)}${answersText(told)}`);
  }
  const unchanged = best?.step === 0 && step > 0 ? ": the model that the run began with, no checkpoint was better" : "";
  if (best !== null) lines.push(`best ${share(best.accuracy)} at step ${best.step}${unchanged}`);
  lines.push(...told.warnings.map(lookAt), `checkpoint ${checkpoint}`, `run        ${folder}`);
  if (told.report !== undefined) lines.push(`report     ${told.report}`);
  if (stopped === "interrupted") lines.push(`go on with: rlsd train --resume ${folder}`);
  return lines.join("\n");
}

/** What is said of a beginning that takes long. */
const READING = "reading the model and the rows";

async function showPlan(settings: Record<string, unknown>, flags: TrainFlags): Promise<void> {
  const { dryRun } = await import("../trainer/dry-run.js");
  const { dryRunText } = await import("../trainer/dry-run-text.js");
  const quiet = onceSlow(READING);
  const plan = await dryRun(flags.resume === undefined ? settings : { ...settings, output: flags.resume }).finally(
    quiet,
  );
  if (flags.json) return printJson(plan);
  return print(dryRunText(plan));
}

/** Those who are told of a run: a person, or a machine, a line each; and TensorBoard. */
async function createTellers(progress: Progress | undefined, events: TensorBoardHooks | undefined) {
  const { createBeforeAfter } = await import("./before-after.js");
  const { createWatch, lookAt } = await import("./look-at.js");
  const { rightBy } = await import("../trainer/success.js");
  const compared = createBeforeAfter();
  const watch = createWatch();
  const look = (line: MetricsLine) => {
    for (const warning of watch.see(line)) {
      if (progress) progress.note(lookAt(warning));
      else printJson({ kind: "warning", step: line.step, ...warning });
    }
  };
  let isRight: Success | undefined;
  const hooks: Pick<TrainHooks, "onStart" | "onStage" | "onStep" | "onEval"> = {
    onStart(start) {
      events?.onStart(start);
      isRight = rightBy(start.config);
      if (progress) progress.start(start);
      else printJson({ kind: "start", ...start });
    },
    onStage: progress?.stage,
    onStep(metrics) {
      events?.onStep(metrics);
      if (progress) progress.step(metrics);
      else printJson(metrics);
      look(metrics);
    },
    onEval(metrics, predictions) {
      events?.onEval(metrics);
      compared.see(predictions, isRight);
      if (progress) progress.evaluation(metrics);
      else printJson(metrics);
      look(metrics);
    },
  };
  return { hooks, compared };
}

/** The list is that of every run: it has nothing of one. */
function refuseWithSettings(file: string | undefined, { json: _, settings: __, report, ...flags }: TrainFlags): void {
  const others = [...(file === undefined ? [] : [file]), ...Object.keys(flags).map(optionName)];
  if (!report) others.push("--no-report");
  if (others.length === 0) return;
  throw new RlsdError(
    "ERR_RLSD_USAGE",
    `--settings lists every setting and its default: leave out ${others.join(", ")}.`,
  );
}

async function runTraining(file: string | undefined, flags: TrainFlags): Promise<void> {
  if (flags.settings) {
    refuseWithSettings(file, flags);
    return showSettings(flags.json ?? false);
  }
  const settings = await settingsOf(file, flags);
  if (flags.dryRun) return showPlan(settings, flags);
  const { train } = await import("../trainer/train.js");
  const { createProgress, stdoutScreen, TICK_MS } = await import("./progress.js");
  const progress = flags.json ? undefined : createProgress(stdoutScreen(process.stdout.isTTY === true));
  const events = flags.tensorboard ? (await import("../report/tensorboard.js")).tensorBoard() : undefined;
  const { hooks, compared } = await createTellers(progress, events);
  const { signal, dispose } = onInterrupt((text) => progress?.note(text), { saves: true });
  const ticking = setInterval(() => progress?.tick(), TICK_MS);
  const quiet = onceSlow(READING);
  try {
    const summary = await train(settings, {
      signal,
      ...(flags.resume !== undefined && { resume: flags.resume }),
      ...hooks,
      onStart(start) {
        quiet();
        return hooks.onStart?.(start);
      },
    });
    progress?.end();
    const { reportAfterTraining } = await import("./report.js");
    const report = flags.report ? await reportAfterTraining(summary.folder) : undefined;
    const { warningsOfRun } = await import("./look-at.js");
    const told = { report, warnings: await warningsOfRun(summary.folder), answers: compared.changes() };
    if (flags.json) printJson({ kind: "summary", ...summary, ...told });
    else print([compared.text(), await summaryText(summary, told)].filter((part) => part !== undefined).join("\n"));
    if (summary.stopped === "interrupted") throw new Interrupted();
  } finally {
    quiet();
    clearInterval(ticking);
    progress?.end();
    dispose();
  }
}

export function registerTrain(program: Command): void {
  program
    .command("train")
    .description("train a policy from a verifier; without arguments: the built-in example")
    .argument("[settings]", "YAML or JSON file")
    .option("--set <key=value>", "one setting, as --set rollout.count=16; repeatable", collect)
    .option("--output <folder>", "run folder; default: a new one under runs/")
    .option("--resume <folder>", "go on with a run from its last checkpoint")
    .option("--dry-run", "check everything, print what would happen, train nothing")
    .option("--settings", "list every setting and its default")
    .option("--no-report", "leave out report.html, the run as a page")
    .option("--tensorboard", "write TensorBoard event files into the run folder: tensorboard --logdir runs")
    .option("--json", "one JSON object a line")
    .addHelpText("after", EXAMPLES)
    .action((file: string | undefined, flags: TrainFlags) => runTraining(file, flags));
}
