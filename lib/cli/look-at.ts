/** What a run's metrics say that its owner should look at, told in words beside it. */
import { stepWarnings, type Warning, warningsOf } from "../report/warnings.js";
import type { MetricsLine } from "../trainer/metrics-line.js";
import { readMetrics } from "../trainer/run-logs.js";

export const lookAt = ({ metric, message }: Warning): string => `look at ${metric}: ${message}`;

/** Steps after which the first look is taken; then after twice as many, and so on. */
const FIRST_LOOK = 5;

/** Looks at a run while it goes on: what was not told before is returned, once a metric. */
export function createWatch(): { see(line: MetricsLine): readonly Warning[] } {
  const lines: MetricsLine[] = [];
  const told = new Set<string>();
  let steps = 0;
  let next = FIRST_LOOK;
  return {
    see(line) {
      lines.push(line);
      if (line.kind === "train") steps++;
      if (line.kind !== "train" || steps < next) return [];
      next *= 2;
      const found = stepWarnings(lines).filter(({ metric }) => !told.has(metric));
      for (const { metric } of found) told.add(metric);
      return found;
    },
  };
}

/** Of a run's whole log, earlier calls included. */
export async function warningsOfRun(folder: string): Promise<readonly Warning[]> {
  const metrics: MetricsLine[] = [];
  for await (const line of readMetrics(folder)) metrics.push(line);
  return warningsOf({ metrics });
}
