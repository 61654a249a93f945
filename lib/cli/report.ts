import type { Command } from "commander";
import { messageOf } from "../errors.js";
import { print, printJson, tell, wholeNumber } from "./command.js";
import { REPORT_STEPS, reportRun } from "./report-run.js";
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

/** The page of a run that is whole without it: what goes wrong here is said, and no failure of the training. */
export async function reportAfterTraining(folder: string): Promise<string | undefined> {
  try {
    return (await reportRun(folder, { onSample: slowly("samples read") })).report;
  } catch (error) {
    tell(`rlsd: no report: ${messageOf(error)}`);
    return undefined;
  }
}

async function runReportCommand(run: string, flags: ReportFlags): Promise<void> {
  const steps = wholeNumber(flags.steps, "--steps");
  const { lookAt } = await import("./look-at.js");
  const told = await reportRun(run, { steps, output: flags.output, onSample: slowly("samples read") });
  if (flags.json) return printJson(told);
  for (const warning of told.warnings) print(lookAt(warning));
  print(`report ${told.report}`);
}

export function registerReport(program: Command): void {
  program
    .command("report")
    .description("a run as one page: curves, completions with the credit of every token, what to look at")
    .argument("<run>", "run folder; it may still be going on")
    .option("--output <file>", "default: report.html in the run folder")
    .option("--steps <n>", "steps of which completions are shown", String(REPORT_STEPS))
    .option("--json", "one JSON object")
    .addHelpText("after", EXAMPLES)
    .action((run: string, flags: ReportFlags) => runReportCommand(run, flags));
}
