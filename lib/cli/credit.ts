import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { Command } from "commander";
import { RlsdError } from "../errors.js";
import type { ResolvedConfig } from "../trainer/config.js";
import type { RunConfig, SampleLine } from "../trainer/run-folder.js";
import { collect, print, printColoured, printJson, tell, wholeNumber } from "./command.js";
import { type HeatMapOptions, heatMap, heatMapLegend } from "./heat-map.js";
import { onInterrupt } from "./interrupt.js";
import { checkPage } from "./page-file.js";
import { slowly } from "./slowly.js";

interface CreditFlags {
  readonly set?: readonly string[];
  readonly step?: string;
  readonly id?: string;
  readonly limit?: string;
  readonly html?: string;
  /** undefined: as the terminal and NO_COLOR, FORCE_COLOR say. */
  readonly color?: boolean;
  readonly base?: string;
  readonly json?: boolean;
}

const EXAMPLES = `
With a run alone: the completions that it logged; of its last step with any credit, or of --step, those with most to see.
Where none has any, those of its last step, with what the verifier said.
With rows: what RLSD would credit in completions that exist already. The model is the student, the teacher and the
privileged text are those of the settings (a run brings its own). Rows are as for training, with "completion" or
"completions"; "finish": "length" says that one was cut off. The verdict is that of --set reward=..., or the column
"reward". Where the rewards of one prompt do not differ, A is 1 for a success (eval.successThreshold) and -1 otherwise.

Examples:
  $ rlsd credit runs/first                       the last step's most telling completions
  $ rlsd credit runs/first --step 10 --limit 8
  $ rlsd credit runs/first --id train-995 --html credit.html
  $ rlsd credit ./qwen3-0.6b answers.jsonl --set reward=math --set privileged.source=trace`;

/** Completions shown of a run's log where --limit does not say. */
const LOGGED = 4;

function colours(flag: boolean | undefined): boolean {
  if (flag !== undefined) return flag;
  const { NO_COLOR, FORCE_COLOR } = process.env;
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== "") return FORCE_COLOR !== "0";
  return (NO_COLOR === undefined || NO_COLOR === "") && process.stdout.isTTY === true;
}

/** The logged completions with most to see, in the order of the log; where none has credit, the first of the last step. */
async function loggedSamples(run: string, flags: CreditFlags, limit: number): Promise<SampleLine[]> {
  const { readSamples } = await import("../trainer/run-logs.js");
  const { liveliness } = await import("../report/digest.js");
  const step = flags.step === undefined ? undefined : wholeNumber(flags.step, "--step", 0);
  const asked = step !== undefined || flags.id !== undefined;
  const count = slowly("samples read");
  let kept: { readonly order: number; readonly sample: SampleLine }[] = [];
  let silent: SampleLine[] = [];
  let order = 0;
  for await (const sample of readSamples(run)) {
    count(++order);
    if (step !== undefined && sample.step !== step) continue;
    if (flags.id !== undefined && sample.id !== flags.id && !sample.id.startsWith(`${flags.id}#`)) continue;
    if (!asked && liveliness(sample) === 0) {
      if (silent[0]?.step !== sample.step) silent = [];
      if (silent.length < limit) silent.push(sample);
      continue;
    }
    if (!asked && kept[0] !== undefined && kept[0].sample.step !== sample.step) kept = [];
    kept.push({ order, sample });
    if (kept.length <= 2 * limit) continue;
    kept = kept.sort((a, b) => liveliness(b.sample) - liveliness(a.sample)).slice(0, limit);
  }
  if (kept.length === 0) return silent;
  const best = kept.sort((a, b) => liveliness(b.sample) - liveliness(a.sample)).slice(0, limit);
  return best.sort((a, b) => a.order - b.order).map(({ sample }) => sample);
}

/** Whether a teacher has read it. */
const isRead = ({ teacherLogProbs, divergences }: SampleLine): boolean =>
  teacherLogProbs.length > 0 || divergences !== undefined;

/** What is printed, and the page, one completion after the other. */
async function createShow(title: string, config: RunConfig, flags: CreditFlags) {
  const { createCreditReport } = await import("../report/credit-report.js");
  const { clipOf, isRewarded } = await import("../report/settings.js");
  const { writeReport } = await import("../trainer/run-folder.js");
  const options: HeatMapOptions = {
    color: colours(flags.color),
    clip: clipOf(config),
    rewarded: isRewarded(config),
  };
  const report = flags.html === undefined ? undefined : createCreditReport(title, config);
  let count = 0;
  let read = 0;
  return {
    add(sample: SampleLine): void {
      report?.add(sample);
      if (isRead(sample) && ++read === 1 && !flags.json) printColoured(heatMapLegend(sample, options));
      if (flags.json) printJson(sample);
      else printColoured(`${count === 0 && read === 0 ? "" : "\n"}${heatMap(sample, options)}`);
      count++;
    },
    async end(): Promise<void> {
      if (report !== undefined) await writeReport(resolve(flags.html!), report.end());
      if (flags.json) return;
      print(`\n${count} ${count === 1 ? "completion" : "completions"}, ${read} of which a teacher has read`);
      if (flags.html !== undefined) print(`page ${resolve(flags.html)}`);
    },
  };
}

/** Why a run's log has nothing to be shown. */
async function whyNothing(run: string, config: RunConfig["config"], flags: CreditFlags): Promise<string> {
  const { ALGORITHMS, asksTeacher } = await import("../trainer/algorithms.js");
  const { algorithm, steps = 0 } = config as Partial<ResolvedConfig>;
  const logged = "(log.samples says how many are logged a step)";
  if (flags.step !== undefined || flags.id !== undefined)
    return `no completion of that step or id was logged ${logged}`;
  const known = algorithm !== undefined && Object.hasOwn(ALGORITHMS, algorithm);
  if (!known || steps < 1 || asksTeacher(config as ResolvedConfig)) return `no logged completion has credit ${logged}`;
  return `its steps (algorithm ${algorithm}) ask no teacher, so that no token has credit: name completions that are to have it, rlsd credit ${run} ROWS`;
}

async function showLogged(run: string, flags: CreditFlags): Promise<void> {
  const { readRunConfig } = await import("../trainer/run-folder.js");
  const { ADAPTER_CONFIG } = await import("../policy/adapter-folder.js");
  if (flags.set !== undefined)
    throw new RlsdError("ERR_RLSD_USAGE", "--set is for rows: name the files to be credited.");
  if (flags.base !== undefined)
    throw new RlsdError("ERR_RLSD_USAGE", "--base is for rows: name the files to be credited.");
  if (["tokenizer.json", ADAPTER_CONFIG].some((name) => existsSync(join(run, name)))) {
    const message = `${run} is a model, not a run, and has logged nothing: name the rows to be credited, rlsd credit ${run} ROWS.`;
    throw new RlsdError("ERR_RLSD_USAGE", message);
  }
  await checkPage("--html", flags.html);
  const config = await readRunConfig(run);
  const limit = flags.limit === undefined ? LOGGED : wholeNumber(flags.limit, "--limit");
  const samples = await loggedSamples(run, flags, limit);
  if (samples.length === 0) {
    throw new RlsdError("ERR_RLSD_DATA", `${run}: ${await whyNothing(run, config.config, flags)}.`);
  }
  if (flags.step === undefined && flags.id === undefined && !samples.some(isRead)) {
    tell(
      `rlsd: no logged completion has credit: here is what step ${samples[0]!.step} drew, and what the verifier said.`,
    );
  }
  const show = await createShow(basename(resolve(run)), config, flags);
  for (const sample of samples) show.add(sample);
  await show.end();
}

async function showRows(directory: string, files: readonly string[], flags: CreditFlags): Promise<void> {
  const { parseSet } = await import("../trainer/config-file.js");
  const { creditCompletions, creditSettings } = await import("../trainer/credit-run.js");
  if (flags.step !== undefined || flags.id !== undefined) {
    throw new RlsdError(
      "ERR_RLSD_USAGE",
      "--step and --id choose among a run's logged completions: leave them out with rows.",
    );
  }
  const limit = flags.limit === undefined ? undefined : wholeNumber(flags.limit, "--limit");
  await checkPage("--html", flags.html);
  const { refuseUnusedSets } = await import("./set-checks.js");
  const given = await parseSet(flags.set);
  refuseUnusedSets("credit", given);
  const config = await creditSettings(directory, files, given, { base: flags.base });
  const show = await createShow(basename(resolve(directory)), { version: "", config }, flags);
  const { signal, dispose } = onInterrupt(() => {});
  const tell = slowly("completions credited");
  let count = 0;
  try {
    const onStart = (completions: number, skipped: number) => {
      if (skipped > 0) process.stderr.write(`rlsd: ${skipped} rows left out: they do not fit\n`);
      if (completions > 1000) process.stderr.write(`rlsd: ${completions} completions\n`);
    };
    for await (const sample of creditCompletions(directory, files, given, {
      signal,
      limit,
      onStart,
      base: flags.base,
    })) {
      tell(++count);
      show.add(sample);
    }
    await show.end();
  } finally {
    dispose();
  }
}

export function registerCredit(program: Command): void {
  program
    .command("credit")
    .description("which tokens the teacher blames and praises: of a run's log, or of completions in a file")
    .argument("<directory>", "run; with rows also a checkpoint, a model folder or a .gguf file")
    .argument("[rows...]", "files with completions: JSONL, JSON, CSV, TSV or Parquet, folders or patterns")
    .option("--step <n>", "logged completions of this step")
    .option("--id <id>", "logged completions of this row")
    .option("--limit <n>", "completions at most; default: 4 of a log, all rows")
    .option("--set <key=value>", "one setting for rows, as --set reward=math; repeatable", collect)
    .option("--base <folder>", "the model under adapters, for rows; default: what they say themselves")
    .option("--html <file>", "a page besides")
    .option("--color", "colours also where there is no terminal")
    .option("--no-color", "weights in numbers instead")
    .option("--json", "one JSON object a completion, as in samples.jsonl")
    .addHelpText("after", EXAMPLES)
    .action(async (directory: string, rows: string[], flags: CreditFlags) => {
      if (flags.json && flags.color) throw new RlsdError("ERR_RLSD_USAGE", "--json has no colours: leave out --color.");
      return rows.length === 0 ? showLogged(directory, flags) : showRows(directory, rows, flags);
    });
}
