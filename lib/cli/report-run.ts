import { basename, join, resolve } from "node:path";
import { checkFunction, checkInteger, checkObject, checkPath } from "../check.js";
import type { RunFacts } from "../report/run-report.js";
import type { Warning } from "../report/warnings.js";
import { checkPage } from "./page-file.js";

/** Steps of which completions are shown where nothing else is said. */
export const REPORT_STEPS = 8;

/** What of a run its page shows, and where it goes. */
export interface ReportOptions {
  /** Steps of which completions are shown, spread over the run. Default 8. */
  readonly steps?: number | undefined;
  /** Default: report.html in the run folder. */
  readonly output?: string | undefined;
  /** Called with the number of samples read so far. */
  readonly onSample?: ((count: number) => void) | undefined;
}

/** What a report shows, in a few numbers. */
export interface RunReport extends RunFacts {
  /** Where the page is. */
  readonly report: string;
  /** What to look at, as the page says it. */
  readonly warnings: readonly Warning[];
}

const FIELDS = new Set(["steps", "output", "onSample"]);

/**
 * Writes a run as one page that loads nothing: what was reached, what to look at, completions with the credit of every
 * token, curves. The run may still be going on. Memory grows by one line of metrics a step, not with the samples.
 *
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT; ERR_RLSD_RUN_FOLDER where there is no run, or a file of it is damaged; ERR_RLSD_WRITE
 */
export async function reportRun(run: string, o: ReportOptions = {}): Promise<RunReport> {
  checkPath(run, "run");
  checkObject(o, "options", FIELDS);
  checkFunction(o.onSample, "onSample");
  if (o.output !== undefined) checkPath(o.output, "output");
  const { readRunConfig, REPORT_FILE, writeReport } = await import("../trainer/run-folder.js");
  const { readMetrics, readSamples } = await import("../trainer/run-logs.js");
  const { digestRun } = await import("../report/digest.js");
  const { factsOf, runReport } = await import("../report/run-report.js");
  const { warningsOf } = await import("../report/warnings.js");
  const { output = join(run, REPORT_FILE), onSample } = o;
  const steps = checkInteger(o.steps ?? REPORT_STEPS, "steps", { min: 1 });
  const config = await readRunConfig(run);
  await checkPage("the report", output);
  const source = { name: basename(resolve(run)), config, metrics: readMetrics(run), samples: readSamples(run) };
  const digest = await digestRun(source, { steps, ...(onSample && { onSample }) });
  await writeReport(resolve(output), runReport(digest));
  return { report: resolve(output), ...factsOf(digest), warnings: warningsOf(digest) };
}
