import { existsSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { basename, join, relative, resolve } from "node:path";
import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { ComparedArm, Comparison, LoggedRun } from "../report/comparison.js";
import type { Arm, ComparedRun } from "../trainer/compare.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import type { RunStart, TrainSummary } from "../trainer/train-hooks.js";
import { collect, Interrupted, print, printJson, wholeNumber } from "./command.js";
import { comparisonText } from "./comparison-text.js";
import type { Progress } from "./progress.js";

interface CompareFlags {
  readonly arm?: readonly string[];
  readonly set?: readonly string[];
  readonly seeds?: string;
  readonly output?: string;
  readonly tensorboard?: boolean;
  readonly json?: boolean;
}

/** Runs of each arm where --seeds does not say. */
const SEEDS = "3";

const EXAMPLES = `
Without --arm the settings are trained twice a seed: with the credit (rlsd) and without it (grpo), the loss otherwise the
same. The first arm is the baseline. A comparison that was stopped goes on when it is called again with the same --output.

Examples:
  $ rlsd compare                                 the built-in example: GRPO and RLSD, 3 seeds each
  $ rlsd compare run.yaml --seeds 5 --output runs/credit
  $ rlsd compare run.yaml --arm mild:objective.evidenceClip=0.2 --arm strong:objective.evidenceClip=0.5
  $ rlsd compare --arm frozen --arm live:teacher.kind=shared --arm live:objective.creditMix=0.5
  $ rlsd compare runs/first runs/second          runs that are there already; only seeds apart are one arm`;

/** `name:key=value`, repeatable for one name; `name` alone changes nothing. */
async function parseArms(given: readonly string[]): Promise<Arm[]> {
  const { parseSet } = await import("../trainer/config-file.js");
  const assignments = new Map<string, string[]>();
  for (const text of given) {
    const cut = text.indexOf(":");
    const name = cut < 0 ? text : text.slice(0, cut);
    if (!/^[\w.+-]+$/.test(name) || /^\.+$/.test(name)) {
      const message = `--arm: expected a name of letters, digits, ".", "_", "+" and "-", then :key=value, but received "${text}".`;
      throw new RlsdError("ERR_RLSD_USAGE", message);
    }
    assignments.set(name, [...(assignments.get(name) ?? []), ...(cut < 0 ? [] : [text.slice(cut + 1)])]);
  }
  if (assignments.size === 1)
    throw new RlsdError("ERR_RLSD_USAGE", "--arm: one arm alone has nothing to be compared with.");
  return Promise.all([...assignments].map(async ([name, sets]) => ({ name, settings: await parseSet(sets) })));
}

/** What a run logged. `from`: the folder of the page that will link to its report. */
async function loadRun(folder: string, name: string, from: string): Promise<LoggedRun> {
  const { readRunConfig, REPORT_FILE } = await import("../trainer/run-folder.js");
  const { readMetrics } = await import("../trainer/run-logs.js");
  const config = await readRunConfig(folder);
  const metrics = [];
  for await (const line of readMetrics(folder)) metrics.push(line);
  const page = join(folder, REPORT_FILE);
  if (!existsSync(page)) return { name, config, metrics };
  const link = relative(from, page).split(/[\\/]/).map(encodeURIComponent).join("/");
  return { name, link, config, metrics };
}

interface Compared {
  readonly json: boolean;
  /** Whether TensorBoard's event files are written. */
  readonly logged: boolean;
}

/** Trains one run, with what is told of it while it goes on. */
async function trainOne(
  run: ComparedRun,
  progress: Progress,
  signal: AbortSignal,
  { json, logged }: Compared,
): Promise<TrainSummary> {
  const { trainCompared } = await import("../trainer/compare.js");
  const { changedRows, missingPrivilege, otherInstructions } = await import("./progress.js");
  const { tensorBoard } = await import("../report/tensorboard.js");
  const events = logged ? tensorBoard() : undefined;
  const onStep = (metrics: MetricsLine) => {
    events?.onStep(metrics);
    if (isLive(json)) progress.step(metrics);
  };
  const onStart = (start: RunStart) => {
    events?.onStart(start);
    progress.expect(start);
    for (const told of [missingPrivilege(start), otherInstructions(start), changedRows(start)]) {
      if (told !== undefined && !json) progress.note(`${run.arm}: ${told}`);
    }
  };
  const onStage = progress.stage;
  const summary = await trainCompared(run, { signal, onStart, onStep, onEval: events?.onEval, onStage });
  progress.end();
  return summary;
}

const isLive = (json: boolean): boolean => process.stdout.isTTY === true && !json;

function outcomeText({ arm, seed }: ComparedRun, { accuracy, seconds, step, stopped }: TrainSummary): string {
  const told = accuracy === null ? "" : `, held-out accuracy ${(100 * accuracy.last).toFixed(1)}%`;
  return `${arm}, seed ${seed}: ${stopped} at step ${step}${told}, ${seconds.toFixed(1)} s`;
}

/** Trains what is to be compared, run by run; says what became of each. */
async function trainAll(runs: readonly ComparedRun[], o: Compared): Promise<void> {
  const { createProgress, stdoutScreen, TICK_MS } = await import("./progress.js");
  const { onInterrupt } = await import("./interrupt.js");
  const { reportAfterTraining } = await import("./report.js");
  const { lookAt, warningsOfRun } = await import("./look-at.js");
  const progress = createProgress(stdoutScreen(isLive(o.json)));
  const { signal, dispose } = onInterrupt((text) => o.json || progress.note(text), { saves: true });
  const ticking = setInterval(() => o.json || progress.tick(), TICK_MS);
  try {
    for (const [i, run] of runs.entries()) {
      const summary = await trainOne(run, progress, signal, o);
      const warnings = await warningsOfRun(run.folder);
      if (o.json) printJson({ kind: "run", arm: run.arm, seed: run.seed, ...summary, warnings });
      else {
        progress.note(`[${i + 1}/${runs.length}] ${outcomeText(run, summary)}`);
        for (const warning of warnings) progress.note(`${run.arm}: ${lookAt(warning)}`);
      }
      if (summary.stopped === "interrupted") throw new Interrupted();
      await reportAfterTraining(run.folder);
    }
  } finally {
    clearInterval(ticking);
    progress.end();
    dispose();
  }
}

async function conclude(title: string, arms: readonly ComparedArm[], output: string, json: boolean): Promise<void> {
  const { compareArms } = await import("../report/comparison.js");
  const { compareReport } = await import("../report/compare-report.js");
  const { writeComparison } = await import("../trainer/run-folder.js");
  const comparison: Comparison | undefined = compareArms(arms);
  if (comparison === undefined) {
    throw new RlsdError(
      "ERR_RLSD_DATA",
      "There is nothing to compare by: an arm has no held-out evaluation that all its runs share. Give data.eval, or choose runs that have it.",
    );
  }
  const report = await writeComparison(output, comparison, compareReport(title, comparison, arms));
  if (json) printJson({ kind: "comparison", ...comparison, report });
  else print(`${comparisonText(comparison)}\nreport ${report}`);
}

async function compareSettings(file: string | undefined, flags: CompareFlags): Promise<void> {
  const { merge, parseSet, readConfigFile } = await import("../trainer/config-file.js");
  const { defaultArms, planComparison } = await import("../trainer/compare.js");
  const { settingsWithoutFile } = await import("../trainer/example/config.js");
  const { newFolder } = await import("../trainer/new-folder.js");
  const changes = await parseSet(flags.set);
  const base = file === undefined ? { ...settingsWithoutFile(changes) } : await readConfigFile(file);
  const settings = merge(base, changes);
  const byDefault = flags.arm === undefined ? defaultArms(settings) : undefined;
  const arms = byDefault?.arms ?? (await parseArms(flags.arm!));
  const output = resolve(flags.output ?? newFolder("compare"));
  const runs = planComparison(settings, arms, wholeNumber(flags.seeds ?? SEEDS, "--seeds"), output);
  const json = flags.json ?? false;
  const loss = byDefault === undefined ? "" : `, both with the loss of objective.preset=${byDefault.preset}`;
  if (!json) print(`${arms.map((arm) => arm.name).join(", ")}: ${runs.length} runs in ${output}${loss}`);
  try {
    await trainAll(runs, { json, logged: flags.tensorboard ?? false });
  } catch (error) {
    if (error instanceof Interrupted && !json) print(`go on by the same command with --output ${output}`);
    throw error;
  }
  const loaded = await Promise.all(
    arms.map(async ({ name }) => {
      const own = runs.filter((run) => run.arm === name);
      return { name, runs: await Promise.all(own.map((run) => loadRun(run.folder, `seed ${run.seed}`, output))) };
    }),
  );
  await conclude(basename(output), loaded, output, json);
}

/** A run that is named twice would count as two independent ones. */
async function refuseTwice(folders: readonly string[]): Promise<void> {
  const seen = new Map<string, string>();
  for (const folder of folders) {
    // One that is not there is told where it is read.
    const real = await realpath(folder).catch(() => resolve(folder));
    const before = seen.get(real);
    if (before !== undefined) {
      throw new RlsdError("ERR_RLSD_USAGE", `${before} and ${folder} are the same run: name it once.`);
    }
    seen.set(real, folder);
  }
}

async function compareRuns(folders: readonly string[], flags: CompareFlags): Promise<void> {
  const { groupRuns } = await import("../report/comparison.js");
  const { newFolder } = await import("../trainer/new-folder.js");
  if ([flags.arm, flags.seeds, flags.set, flags.tensorboard].some((flag) => flag !== undefined)) {
    throw new RlsdError(
      "ERR_RLSD_USAGE",
      "--arm, --seeds, --set and --tensorboard are for settings that are to be trained, not for runs that are there.",
    );
  }
  await refuseTwice(folders);
  const output = resolve(flags.output ?? newFolder("compare"));
  const runs = await Promise.all(folders.map((folder) => loadRun(resolve(folder), basename(resolve(folder)), output)));
  await conclude(basename(output), groupRuns(runs), output, flags.json ?? false);
}

async function runCompare(given: readonly string[], flags: CompareFlags): Promise<void> {
  const [first] = given;
  const { kindOf } = await import("../trainer/data/read-rows.js");
  // Data are named in the place of settings too, and told from them there.
  const isFile = (name: string) => /\.ya?ml$/i.test(name) || kindOf(name) !== undefined;
  if (given.length === 0 || (given.length === 1 && isFile(first!))) return compareSettings(first, flags);
  if (given.length === 1) {
    const message = `Expected one settings file (.yaml, .yml, .json) or at least two run folders but received "${first}".`;
    throw new RlsdError("ERR_RLSD_USAGE", message);
  }
  return compareRuns(given, flags);
}

export function registerCompare(program: Command): void {
  program
    .command("compare")
    .description("ways of training side by side over several seeds, or runs that are there already")
    .argument(
      "[settings or runs...]",
      "one YAML or JSON file, or two run folders and more; default: the built-in example",
    )
    .option("--arm <name:key=value>", "a way of training and what it changes; repeatable, also for one name", collect)
    .option("--seeds <n>", `runs of each arm: the settings' seed and those after it; default: ${SEEDS}`)
    .option("--set <key=value>", "one setting of all arms; repeatable", collect)
    .option("--output <folder>", "where runs, compare.html and compare.json go; default: a new one under runs/")
    .option("--tensorboard", "write TensorBoard event files into the runs' folders")
    .option("--json", "one JSON object a run, then one of the comparison")
    .addHelpText("after", EXAMPLES)
    .action((given: string[], flags: CompareFlags) => runCompare(given, flags));
}
