import { basename, join, resolve } from "node:path";
import type { Command } from "commander";
import { print, printJson, wholeNumber } from "./command.js";
import { slowly } from "./slowly.js";

interface ReportFlags {
  readonly output?: string;
  readonly steps: string;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  $ rlsd report runs/first                       writes runs/first/report.html
  $ rlsd report runs/first --steps 40            completions of 40 steps instead of 8
  $ rlsd report runs/first --output first.html
  $ rlsd report runs/first --json                the run in a few numbers, and what to look at`;

/** Steps of which completions are shown. */
const DEFAULT_STEPS = 8;

/** Writes the report of a run, also of one that is still going on; returns where it is and what it found. */
async function writeRunReport(run: string, o: { readonly steps: number; readonly output?: string | undefined }) {
  const { readMetrics, readRunConfig, readSamples, REPORT_FILE, writeReport } = await import(
    "../trainer/run-folder.js"
  );
  const { digestRun } = await import("../report/digest.js");
  const { factsOf, runReport } = await import("../report/run-report.js");
  const { warningsOf } = await import("../report/warnings.js");
  const config = await readRunConfig(run);
  const name = basename(resolve(run));
  const source = { name, config, metrics: readMetrics(run), samples: readSamples(run) };
  const digest = await digestRun(source, { steps: o.steps, onSample: slowly("samples read") });
  const file = resolve(o.output ?? join(run, REPORT_FILE));
  await writeReport(file, runReport(digest));
  return { report: file, ...factsOf(digest), warnings: warningsOf(digest) };
}

/** The page of a run that is whole without it: what goes wrong here is said, and no failure of the training. */
export async function reportAfterTraining(folder: string): Promise<string | undefined> {
  try {
    return (await writeRunReport(folder, { steps: DEFAULT_STEPS })).report;
  } catch (error) {
    process.stderr.write(`rlsd: no report: ${error instanceof Error ? error.message : error}\n`);
    return undefined;
  }
}

async function runReportCommand(run: string, flags: ReportFlags): Promise<void> {
  const steps = wholeNumber(flags.steps, "--steps");
  const told = await writeRunReport(run, { steps, output: flags.output });
  if (flags.json) return printJson(told);
  for (const { metric, message } of told.warnings) print(`look at ${metric}: ${message}`);
  print(`report ${told.report}`);
}

export function registerReport(program: Command): void {
  program
    .command("report")
    .description("a run as one page: curves, completions with the credit of every token, what to look at")
    .argument("<run>", "run folder; it may still be going on")
    .option("--output <file>", "default: report.html in the run folder")
    .option("--steps <n>", "steps of which completions are shown", String(DEFAULT_STEPS))
    .option("--json", "one JSON object")
    .addHelpText("after", EXAMPLES)
    .action((run: string, flags: ReportFlags) => runReportCommand(run, flags));
}
