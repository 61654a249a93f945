import { pointsText, reachText, seedNote } from "../report/compare-report.js";
import type { Comparison, Spread } from "../report/comparison.js";
import { tableLines } from "./table.js";

/** Columns of steps that fit on a line; the first and the last are always among them. */
const STEPS = 7;

const accuracy = ({ mean, sd }: Spread): string =>
  `${(100 * mean).toFixed(1)}%${sd === undefined ? "" : ` ± ${(100 * sd).toFixed(1)}`}`;

function chosen(steps: readonly number[]): number[] {
  const count = Math.min(STEPS, steps.length);
  const at = (i: number) => steps[Math.round((i * (steps.length - 1)) / Math.max(1, count - 1))]!;
  return Array.from({ length: count }, (_, i) => at(i));
}

/** A comparison for a terminal: accuracy by step, and what it comes to. */
export function comparisonText(comparison: Comparison): string {
  const { arms, baseline } = comparison;
  const steps = chosen(arms[0]!.curve.map((point) => point.step));
  const rows = arms.map(({ name, curve }) => {
    const cells = steps.map((step) => curve.find((point) => point.step === step));
    return [name, ...cells.map((cell) => (cell === undefined ? "-" : accuracy(cell)))];
  });
  const table = [["held-out accuracy", ...steps.map((step) => `step ${step}`)], ...rows];
  const lines = tableLines(table);
  for (const arm of arms.slice(1)) {
    lines.push(reachText(arm, comparison));
    if (arm.difference === undefined) continue;
    lines.push(
      `${arm.name} - ${baseline} at the end: ${pointsText(arm.difference)} points, ${arm.difference.n} ${arm.difference.n === 1 ? "seed" : "seeds"} in both`,
    );
  }
  if (arms.some((arm) => arm.seeds > 1)) lines.push("± is the standard deviation over the seeds");
  const note = seedNote(comparison);
  if (note !== undefined) lines.push(note);
  return lines.join("\n");
}
